"""Our side of HTTP/2, driven frame by frame."""

from __future__ import annotations

import asyncio
import struct

import hpack
import pytest

from buildonce.engine.buildkit import http2
from buildonce.engine.buildkit.http2 import Call, Connection, ProtocolError, Refused

pytestmark = pytest.mark.anyio


class Peer:
    """A client that says exactly what a test wants."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.received = bytearray()
        connection.feed(http2.PREFACE)

    def frame(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        size = len(payload)
        head = struct.pack(">BHBBI", size >> 16, size & 0xFFFF, kind, flags, stream)
        return head + payload

    def request(self, stream: int, path: str, *messages: bytes, end: bool = True) -> bytes:
        block = self.encoder.encode([(":method", "POST"), (":path", path), ("key", "value")])
        data = b"".join(struct.pack(">BI", 0, len(m)) + m for m in messages)
        return self.frame(http2.HEADERS, http2.END_HEADERS, stream, block) + self.frame(
            http2.DATA, http2.END_STREAM if end else 0, stream, data
        )

    async def frames(self) -> list[tuple[int, int, int, bytes]]:
        """What has come, until nothing more does."""
        found = []
        while True:
            try:
                self.received += await asyncio.wait_for(self.connection.outgoing(), 0.05)
            except TimeoutError:
                break
        while len(self.received) >= 9:
            high, low, kind, flags, stream = struct.unpack_from(">BHBBI", self.received)
            size = (high << 16) | low
            found.append((kind, flags, stream, bytes(self.received[9 : 9 + size])))
            del self.received[: 9 + size]
        return found

    async def answer(self, stream: int) -> tuple[bytes, dict[str, str]]:
        """The data of a stream and all its headers."""
        data, headers = b"", {}
        for kind, _, number, payload in await self.frames():
            if kind == http2.HEADERS:
                for name, value in self.decoder.decode(payload):
                    if number == stream:
                        headers[str(name)] = str(value)
            elif kind == http2.DATA and number == stream:
                data += payload
        return data, headers


async def echo(call: Call) -> None:
    while messages := await call.receive():
        await call.send(messages)


async def test_bytes_may_come_in_any_pieces() -> None:
    connection = Connection({"/echo": echo})
    peer = Peer(connection)
    for byte in peer.request(1, "/echo", b"one", b"", b"three" * 10):
        connection.feed(bytes([byte]))
        await asyncio.sleep(0)
    data, headers = await peer.answer(1)
    assert data == b"\0\0\0\0\x03one" + b"\0\0\0\0\0" + b"\0\0\0\0\x32" + b"three" * 10
    assert headers["grpc-status"] == "0"


async def test_an_unknown_method_and_a_refusal() -> None:
    async def refuse(call: Call) -> None:
        raise Refused(http2.NOT_FOUND, "no such thing: 100 % é")

    peer = Peer(connection := Connection({"/refuse": refuse}))
    connection.feed(peer.request(1, "/nothing", b"x") + peer.request(3, "/refuse", b"x"))
    headers: dict[int, dict[str, str]] = {}
    for kind, flags, stream, payload in await peer.frames():
        if kind == http2.HEADERS:
            assert flags & http2.END_STREAM
            headers[stream] = {str(n): str(v) for n, v in peer.decoder.decode(payload)}
    assert headers[1]["grpc-status"] == "12"
    assert headers[3]["grpc-status"] == "5"
    assert headers[3]["grpc-message"] == "no such thing: 100 %25 %C3%A9"


async def test_an_error_of_ours_is_told() -> None:
    told: list[Exception] = []

    async def fail(call: Call) -> None:
        raise ValueError("broken")

    connection = Connection({"/fail": fail}, lambda _, error: told.append(error))
    peer = Peer(connection)
    connection.feed(peer.request(1, "/fail", b"x"))
    _, headers = await peer.answer(1)
    assert headers["grpc-status"] == "2"
    assert headers["grpc-message"] == "broken"
    assert isinstance(told[0], ValueError)


async def test_the_peer_s_windows_are_kept_to() -> None:
    async def much(call: Call) -> None:
        await call.send([b"x" * 200_000])

    peer = Peer(connection := Connection({"/much": much}))
    connection.feed(peer.request(1, "/much", b""))
    data, _ = await peer.answer(1)
    assert len(data) == 65_535
    connection.feed(peer.frame(http2.WINDOW_UPDATE, 0, 1, struct.pack(">I", 1 << 20)))
    assert (await peer.answer(1))[0] == b""  # the connection's window is used up too
    connection.feed(peer.frame(http2.WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 20)))
    rest, headers = await peer.answer(1)
    assert len(data) + len(rest) == 200_005
    assert headers["grpc-status"] == "0"


async def test_messages_of_two_tasks_do_not_mix() -> None:
    async def two(call: Call) -> None:
        await asyncio.gather(call.send([b"a" * 100_000]), call.send([b"b" * 100_000]))

    peer = Peer(connection := Connection({"/two": two}))
    connection.feed(peer.request(1, "/two", b""))
    data = (await peer.answer(1))[0]
    for stream in (0, 1):
        more = struct.pack(">I", 1 << 20)
        connection.feed(peer.frame(http2.WINDOW_UPDATE, 0, stream, more))
    data += (await peer.answer(1))[0]
    first, second = data[5:100_005], data[100_010:]
    assert {first, second} == {b"a" * 100_000, b"b" * 100_000}


async def test_a_message_larger_than_the_window_gets_credit() -> None:
    sizes: list[int] = []

    async def take(call: Call) -> None:
        sizes.append(len(await call.request()))

    peer = Peer(connection := Connection({"/take": take}))
    size = http2.STREAM_WINDOW * 2
    connection.feed(peer.request(1, "/take", end=False))
    sent, window = 0, http2.STREAM_WINDOW
    message = struct.pack(">BI", 0, size) + bytes(size)
    while sent < len(message):
        assert window > 0, "no more credit"
        part = message[sent : sent + min(16384, window)]
        connection.feed(peer.frame(http2.DATA, 0, 1, part))
        sent, window = sent + len(part), window - len(part)
        if window < 16384:
            for kind, _, stream, payload in await peer.frames():
                if kind == http2.WINDOW_UPDATE and stream == 1:
                    window += struct.unpack(">I", payload)[0]
    await peer.frames()
    assert sizes == [size]


async def test_a_reset_ends_the_handler() -> None:
    ended = asyncio.Event()

    async def wait(call: Call) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    peer = Peer(connection := Connection({"/wait": wait}))
    connection.feed(peer.request(1, "/wait", b""))
    await asyncio.sleep(0.01)
    connection.feed(peer.frame(http2.RST_STREAM, 0, 1, struct.pack(">I", 8)))
    await asyncio.wait_for(ended.wait(), 30)


async def test_pings_and_settings_are_answered() -> None:
    peer = Peer(connection := Connection({}))
    connection.feed(peer.frame(http2.PING, 0, 0, b"12345678"))
    connection.feed(peer.frame(http2.SETTINGS, 0, 0, struct.pack(">HI", 4, 1 << 20)))
    frames = await peer.frames()
    assert (http2.PING, 1, 0, b"12345678") in frames
    assert (http2.SETTINGS, 1, 0, b"") in frames


async def test_something_else_than_http2() -> None:
    with pytest.raises(ProtocolError):
        Connection({}).feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
