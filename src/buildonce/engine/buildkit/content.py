"""Serving the blobs of OCI image layouts on this machine: `oci-layout://` sources, cache folders.

The part of containerd's content store that the daemon uses: how large a blob is, its bytes, and,
where a folder may be written to, new blobs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import anyio.to_thread

from buildonce.engine.buildkit.http2 import (
    ALREADY_EXISTS,
    INVALID_ARGUMENT,
    NOT_FOUND,
    Call,
    Refused,
)
from buildonce.engine.buildkit.proto import session_pb2

PART = 1 << 20
DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


STAT, WRITE, COMMIT = 0, 1, 2


def _store(call: Call) -> str:
    """The store's name, which comes in the request's metadata behind a prefix for its kind."""
    return (call.metadata.get("buildkit-attachable-store-id") or [""])[0].removeprefix("oci:")


def _blob(call: Call, digest: str, layouts: Mapping[str, Path]) -> Path:
    store = _store(call)
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


async def write(call: Call, stores: Mapping[str, Path]) -> None:
    """Serve Content.Write: one blob, kept only when it is what its digest says."""
    messages = await call.receive()
    if not messages:
        raise Refused(INVALID_ARGUMENT, "the call ended without a request")
    first = session_pb2.WriteContentRequest.FromString(messages[0])
    target = _blob(call, first.expected, stores)
    if await anyio.Path(target).exists():
        raise Refused(ALREADY_EXISTS, f"content {first.expected}: already exists")
    await anyio.Path(target.parent).mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".ingest-") as file:
        digest = hashlib.sha256()
        size = 0
        while messages:
            for message in messages:
                request = session_pb2.WriteContentRequest.FromString(message)
                if request.data:
                    if request.offset != size:
                        raise Refused(INVALID_ARGUMENT, f"expected offset {size}")
                    await anyio.to_thread.run_sync(file.write, request.data)
                    digest.update(request.data)
                    size += len(request.data)
                answer = session_pb2.WriteContentResponse(
                    action=request.action, offset=size, total=request.total
                )
                if request.action == COMMIT:
                    answer.digest = f"sha256:{digest.hexdigest()}"
                    if answer.digest != first.expected:
                        raise Refused(INVALID_ARGUMENT, f"{first.expected} has another content")
                    file.flush()
                    # Linked when whole: who finds it finds all of it.
                    with contextlib.suppress(FileExistsError):
                        os.link(file.name, target)
                    target.chmod(0o644)
                await call.send([answer.SerializeToString()])
            messages = await call.receive()
