"""Clients of every kind, each a loop until it is told to stop: who of them is failed by a switch?

async with everybody("127.0.0.1", 8102) as seen:
    ...
assert seen["kept posts"].failures == []

They speak plain sockets: a library would try again what failed, and so hide it.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from .service import EVERY

HOST = "Host: shop.test\r\n"
LENGTH = 1.5  # seconds of what is long


@dataclass
class Kind:
    """What became of one kind of client. `versions` in the order in which they first answered."""

    done: int = 0
    failures: list[str] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)

    def saw(self, version: str) -> None:
        self.done += 1
        if version not in self.versions:
            self.versions.append(version)


class Connection:
    """One connection, read answer by answer."""

    def __init__(self, stream: SocketStream) -> None:
        self.stream = stream
        self.buffer = BufferedByteReceiveStream(stream)

    async def send(self, text: str, body: bytes = b"") -> None:
        await self.stream.send(text.encode() + body)

    async def head(self) -> tuple[str, dict[str, str]]:
        lines = (await self.buffer.receive_until(b"\r\n\r\n", 65536)).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        return lines[0], headers

    async def answer(self) -> dict[str, str]:
        status, headers = await self.head()
        body = await self.buffer.receive_exactly(int(headers["content-length"]))
        assert " 200 " in status, f"{status}: {body[:100]!r}"
        found: dict[str, str] = json.loads(body)
        return found


Client = Callable[[str, int, Kind, anyio.Event], Awaitable[None]]


def connected(work: Callable[[Connection, Kind], Awaitable[None]]) -> Client:
    """A client that makes a new connection for each piece of work."""

    async def client(host: str, port: int, kind: Kind, stop: anyio.Event) -> None:
        while not stop.is_set():
            async with await anyio.connect_tcp(host, port) as stream:
                await work(Connection(stream), kind)
            await anyio.sleep(0.02)

    return client


def kept(work: Callable[[Connection, Kind], Awaitable[None]]) -> Client:
    """A client that keeps one connection all the time."""

    async def client(host: str, port: int, kind: Kind, stop: anyio.Event) -> None:
        async with await anyio.connect_tcp(host, port) as stream:
            connection = Connection(stream)
            while not stop.is_set():
                await work(connection, kind)
                await anyio.sleep(0.02)

    return client


async def http_1_0(connection: Connection, kind: Kind) -> None:
    await connection.send("GET / HTTP/1.0\r\n\r\n")
    kind.saw((await connection.answer())["version"])


async def http_1_0_kept(connection: Connection, kind: Kind) -> None:
    await connection.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    kind.saw((await connection.answer())["version"])


async def http_1_0_stream(connection: Connection, kind: Kind) -> None:
    """A stream without chunks, which HTTP/1.0 does not know: it ends with the connection."""
    await connection.send(f"GET /events?{LENGTH} HTTP/1.0\r\n\r\n")
    status, _ = await connection.head()
    text = ""
    try:
        while True:
            text += (await connection.buffer.receive()).decode()
    except anyio.EndOfStream:
        pass
    assert " 200 " in status and text.count("data: ") == round(LENGTH / EVERY), (status, text)
    kind.saw(text.split()[1])


async def posts(connection: Connection, kind: Kind) -> None:
    body = os.urandom(2000)
    await connection.send(f"POST / HTTP/1.1\r\n{HOST}Content-Length: {len(body)}\r\n\r\n", body)
    answer = await connection.answer()
    assert int(answer["got"]) == len(body)
    kind.saw(answer["version"])


async def pipelined(connection: Connection, kind: Kind) -> None:
    await connection.send(f"GET / HTTP/1.1\r\n{HOST}\r\n" * 5)
    for _ in range(5):
        kind.saw((await connection.answer())["version"])


async def slow(connection: Connection, kind: Kind) -> None:
    await connection.send(f"GET /slow?{LENGTH} HTTP/1.1\r\n{HOST}\r\n")
    kind.saw((await connection.answer())["version"])


async def upload(connection: Connection, kind: Kind) -> None:
    """A body that takes its time, and is never sent twice."""
    await connection.send(f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(20):
        await connection.send("64\r\n", b"x" * 100 + b"\r\n")
        await anyio.sleep(LENGTH / 20)
    await connection.send("0\r\n\r\n")
    answer = await connection.answer()
    assert int(answer["got"]) == 2000
    kind.saw(answer["version"])


async def events(connection: Connection, kind: Kind) -> None:
    """Server-sent events, to the last one."""
    await connection.send(f"GET /events?{LENGTH} HTTP/1.1\r\n{HOST}\r\n")
    await connection.head()
    text = (await connection.buffer.receive_until(b"0\r\n\r\n", 1 << 20)).decode()
    seen = [line.split()[1:] for line in text.splitlines() if line.startswith("data: ")]
    assert [int(number) for _, number in seen] == list(range(round(LENGTH / EVERY)))
    assert len({version for version, _ in seen}) == 1
    kind.saw(seen[0][0])


async def websocket(connection: Connection, kind: Kind) -> None:
    """A conversation, every answer by the one that it began with."""
    await connection.send(
        f"GET /socket HTTP/1.1\r\n{HOST}Upgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    status, _ = await connection.head()
    assert " 101 " in status, status
    heard = set()
    for _ in range(20):
        await connection.send("", bytes([0x81, 0x82, 0, 0, 0, 0]) + b"hi")
        size = (await connection.buffer.receive_exactly(2))[1]
        heard.add((await connection.buffer.receive_exactly(size)).decode())
        await anyio.sleep(LENGTH / 20)
    await connection.send("", bytes([0x88, 0x80, 0, 0, 0, 0]))
    assert await connection.buffer.receive_exactly(2) == bytes([0x88, 0])
    (version,) = heard
    kind.saw(version)


CLIENTS: dict[str, Client] = {
    "HTTP/1.0": connected(http_1_0),
    "HTTP/1.0, kept": kept(http_1_0_kept),
    "HTTP/1.0, a stream": connected(http_1_0_stream),
    "posts": connected(posts),
    "kept posts": kept(posts),
    "pipelined": kept(pipelined),
    "slow": connected(slow),
    "slow, kept": kept(slow),
    "upload": connected(upload),
    "events": connected(events),
    "websocket": connected(websocket),
}


@asynccontextmanager
async def everybody(host: str, port: int) -> AsyncIterator[dict[str, Kind]]:
    """One of each kind, until the block ends; what they are at then is waited for."""
    seen = {name: Kind() for name in CLIENTS}
    stop = anyio.Event()

    async def one(name: str) -> None:
        while not stop.is_set():
            try:
                await CLIENTS[name](host, port, seen[name], stop)
            except Exception as error:
                seen[name].failures.append(f"{type(error).__name__}: {error}")
                await anyio.sleep(0.1)

    async with anyio.create_task_group() as group:
        for name in CLIENTS:
            group.start_soon(one, name)
        try:
            yield seen
        finally:
            stop.set()
