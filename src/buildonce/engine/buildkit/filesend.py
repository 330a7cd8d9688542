"""Taking what an exporter sends: one stream of bytes, or a tree of files.

A tree comes by fsutil's protocol, the receiver's side; `folder` writes it.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import anyio
import anyio.to_thread

from buildonce.engine.buildkit.folder import FolderWriter, UnsafePath
from buildonce.engine.buildkit.http2 import UNKNOWN, Call, Refused
from buildonce.engine.buildkit.proto import control_pb2, session_pb2

REQUESTED = 512  # files asked for at a time


class Receiver(Protocol):
    """Takes one exporter's output."""

    async def receive(self, call: Call) -> None: ...


async def receive(call: Call, receiver: Receiver) -> None:
    """Serve one FileSend.DiffCopy call."""
    try:
        await receiver.receive(call)
    except (OSError, UnsafePath) as error:
        raise Refused(UNKNOWN, f"the export could not be written: {error}") from error


@dataclass(frozen=True, slots=True)
class ByteSink:
    """Hands the bytes on as they come."""

    write: Callable[[bytes], Awaitable[None]]

    async def receive(self, call: Call) -> None:
        while messages := await call.receive():
            for message in messages:
                await self.write(control_pb2.BytesMessage.FromString(message).data)


@dataclass(frozen=True, slots=True)
class FileSink:
    """Writes the bytes to a file, which appears under its name when it is whole."""

    path: Path

    async def receive(self, call: Call) -> None:
        await anyio.Path(self.path.parent).mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(prefix=".buildonce-", dir=self.path.parent)
        try:
            while messages := await call.receive():
                await anyio.to_thread.run_sync(_write, number, messages)
            os.fchmod(number, 0o644)
            os.replace(name, self.path)  # noqa: PTH105 - a name in hand, not a Path
        except BaseException:
            os.unlink(name)  # noqa: PTH108
            raise
        finally:
            os.close(number)


def _write(number: int, messages: Sequence[bytes]) -> None:
    for message in messages:
        data = memoryview(control_pb2.BytesMessage.FromString(message).data)
        while data:
            data = data[os.write(number, data) :]


@dataclass(frozen=True, slots=True)
class FolderSink:
    """Writes a tree into a folder, over what is there; never outside it."""

    folder: Path

    async def receive(self, call: Call) -> None:
        await anyio.Path(self.folder).mkdir(parents=True, exist_ok=True)
        writer = FolderWriter(self.folder)
        try:
            await _receive_tree(call, writer)
        finally:
            await anyio.to_thread.run_sync(writer.close)


async def _receive_tree(call: Call, writer: FolderWriter) -> None:
    waiting: deque[int] = deque()
    requested = 0
    listed = finished = False
    while messages := await call.receive():
        files, ended, saw_end, error = await anyio.to_thread.run_sync(_take, writer, messages)
        if error is not None:
            raise Refused(UNKNOWN, error)
        waiting.extend(files)
        requested -= ended
        listed = listed or saw_end
        asks = []
        while waiting and requested < REQUESTED:
            packet = session_pb2.Packet(type=session_pb2.Packet.PACKET_REQ, ID=waiting.popleft())
            asks.append(packet.SerializeToString())
            requested += 1
        if asks:
            await call.send(asks)
        if listed and not waiting and not requested and not finished:
            finished = True
            await anyio.to_thread.run_sync(writer.finish)
            fin = session_pb2.Packet(type=session_pb2.Packet.PACKET_FIN)
            await call.send([fin.SerializeToString()])


def _take(
    writer: FolderWriter, messages: Sequence[bytes]
) -> tuple[list[int], int, bool, str | None]:
    """Write what packets bring: files to ask for, files that ended, the list's end, an error."""
    files: list[int] = []
    ended = 0
    listed = False
    for message in messages:
        packet = session_pb2.Packet.FromString(message)
        if packet.type == session_pb2.Packet.PACKET_STAT:
            if not packet.HasField("stat"):
                listed = True
            elif (number := writer.entry(packet.stat)) is not None:
                files.append(number)
        elif packet.type == session_pb2.Packet.PACKET_DATA:
            ended += writer.data(packet.ID, packet.data)
        elif packet.type == session_pb2.Packet.PACKET_ERR:
            return files, ended, listed, packet.data.decode(errors="replace")
    return files, ended, listed, None
