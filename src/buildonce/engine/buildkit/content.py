"""Serving the blobs of OCI image layouts on this machine, for `oci-layout://` sources.

The part of containerd's content store that the daemon reads: how large a blob is, and its bytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import anyio.to_thread

from buildonce.engine.buildkit.http2 import NOT_FOUND, Call, Refused
from buildonce.engine.buildkit.proto import session_pb2

PART = 1 << 20
DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


def _blob(call: Call, digest: str, layouts: Mapping[str, Path]) -> Path:
    # The store's name comes in the request's metadata, behind a prefix that says what it is.
    store = (call.metadata.get("buildkit-attachable-store-id") or [""])[0].removeprefix("oci:")
    folder = layouts.get(store)
    if folder is None:
        raise Refused(NOT_FOUND, f"no OCI layout is shared as {store!r}")
    if not DIGEST.fullmatch(digest):
        raise Refused(NOT_FOUND, f"{digest!r} is not a digest")
    return folder / "blobs" / digest.replace(":", "/")


async def info(call: Call, layouts: Mapping[str, Path]) -> None:
    """Serve Content.Info."""
    request = session_pb2.InfoRequest.FromString(await call.request())
    path = _blob(call, request.digest, layouts)
    try:
        size = (await anyio.Path(path).stat()).st_size
    except OSError as error:
        raise Refused(NOT_FOUND, f"content {request.digest}: not found in {path}") from error
    answer = session_pb2.InfoResponse(info=session_pb2.Info(digest=request.digest, size=size))
    await call.send([answer.SerializeToString()])


async def read(call: Call, layouts: Mapping[str, Path]) -> None:
    """Serve Content.Read."""
    request = session_pb2.ReadContentRequest.FromString(await call.request())
    path = _blob(call, request.digest, layouts)
    try:
        number = await anyio.to_thread.run_sync(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Refused(NOT_FOUND, f"content {request.digest}: not found in {path}") from error
    try:
        offset = request.offset
        left = request.size if request.size > 0 else None
        while left is None or left > 0:
            size = PART if left is None else min(PART, left)
            data = await anyio.to_thread.run_sync(os.pread, number, size, offset)
            if not data:
                break
            answer = session_pb2.ReadContentResponse(offset=offset, data=data)
            await call.send([answer.SerializeToString()])
            offset += len(data)
            left = None if left is None else left - len(data)
    finally:
        os.close(number)
