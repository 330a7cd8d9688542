"""A gRPC server on a byte stream that somebody else carries.

A session turns the connection around: buildkitd sends us gRPC requests as HTTP/2 bytes inside a
stream of the connection that we opened. grpcio can only serve sockets, one message at a time; here
many small messages, a file listing of ten thousand entries say, leave in a few frames. This is the
server's side of RFC 9113 that a gRPC client needs, without TLS, push and priorities::

    connection = Connection({"/pkg.Service/Method": handler})
    connection.feed(received)         # starts handlers as requests arrive
    await connection.outgoing()       # bytes to carry back

A handler is `async def handler(call: Call) -> None`; it fails a call by raising `Refused`.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from urllib.parse import quote

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
END_STREAM = 0x1  # also ACK for SETTINGS and PING
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20
INITIAL_WINDOW_SIZE = 0x4
MAX_FRAME_SIZE = 0x5

STREAM_WINDOW = 4 << 20  # bytes that the peer may send before a handler takes them
CONNECTION_WINDOW = 1 << 30
HIGH_WATER = 4 << 20  # bytes waiting to leave at which handlers pause

OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE, NOT_FOUND, ALREADY_EXISTS = range(7)
PERMISSION_DENIED = 7
UNIMPLEMENTED = 12
INTERNAL = 13


class Refused(Exception):
    """The answer to a call is this gRPC status and not a message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class ProtocolError(Exception):
    """The peer does not speak HTTP/2 as we know it."""


class Call:
    """One request as its handler sees it."""

    def __init__(self, connection: Connection, number: int, window: int) -> None:
        self._connection = connection
        self._number = number
        self._window = window  # what we may still send
        self._messages: deque[bytes] = deque()
        self._partial = bytearray()
        self._untaken = 0  # bytes received that no handler has taken, nor the peer credit for
        self._ended = False
        self._arrived = asyncio.Event()
        self._answered = False
        self._gone = False
        self._sending = asyncio.Lock()  # a message must not begin within another
        self.metadata: dict[str, list[str]] = {}
        self.method = ""
        self.task: asyncio.Task[None] | None = None

    async def receive(self) -> list[bytes]:
        """The messages that have arrived, at least one; an empty list when the peer has ended."""
        while not self._messages:
            if self._ended or self._gone:
                return []
            self._arrived.clear()
            await self._arrived.wait()
        messages = list(self._messages)
        self._messages.clear()
        if self._untaken >= STREAM_WINDOW // 4:
            self._connection.credit(self._number, self._untaken)
            self._untaken = 0
        return messages

    async def request(self) -> bytes:
        """The one message of a call that takes one."""
        messages = await self.receive()
        if not messages:
            raise Refused(INVALID_ARGUMENT, "the call ended without a request")
        return messages[0]

    async def send(self, messages: Iterable[bytes]) -> None:
        """Send messages, as many to a frame as fit; waits for the peer's flow control."""
        parts = bytearray()
        for message in messages:
            parts += struct.pack(">BI", 0, len(message))
            parts += message
        async with self._sending:
            await self._send(memoryview(parts))

    async def _send(self, view: memoryview) -> None:
        if not self._answered:
            self._answered = True
            self._connection.headers(
                self._number, [(":status", "200"), ("content-type", "application/grpc")]
            )
        connection = self._connection
        position = 0
        while position < len(view):
            size = min(len(view) - position, connection.frame_size, self._window, connection.window)
            if size <= 0 or connection.full:
                connection.flush()
                await connection.room()
                if self._gone:
                    raise ConnectionResetError("buildkitd ended the call")
                continue
            connection.frame(DATA, 0, self._number, view[position : position + size])
            self._window -= size
            connection.window -= size
            position += size
        connection.flush()

    # -- what the connection tells it ---------------------------------------------------------

    def headers_arrived(self, headers: Iterable[tuple[str, str]], ended: bool) -> None:
        for name, value in headers:
            if name == ":path":
                self.method = value
            elif not name.startswith(":"):
                self.metadata.setdefault(name, []).append(value)
        self._ended = ended

    def data_arrived(self, data: memoryview, ended: bool) -> None:
        partial = self._partial
        partial += data
        self._untaken += len(data)
        position, end = 0, len(partial)
        while end - position >= 5:
            size = int.from_bytes(partial[position + 1 : position + 5], "big")
            if partial[position]:
                raise ProtocolError("a compressed message, which was never offered")
            if end - position - 5 < size:
                break
            self._messages.append(bytes(partial[position + 5 : position + 5 + size]))
            position += 5 + size
        if position:
            del partial[:position]
        elif self._untaken >= STREAM_WINDOW // 2:
            # A message larger than the window would never complete without new credit.
            self._connection.credit(self._number, self._untaken)
            self._untaken = 0
        if ended:
            self._ended = True
        self._arrived.set()

    def window_grew(self, size: int) -> None:
        self._window += size

    def reset(self) -> None:
        self._gone = True
        self._arrived.set()
        if self.task is not None:
            self.task.cancel()

    def finish(self, code: int, message: str) -> None:
        """Send the trailers."""
        if self._gone:
            return
        trailers = [("grpc-status", str(code))]
        if message:
            trailers.append(("grpc-message", quote(message, safe=" ,:;()/'\"!?=<>@[]{}")))
        if not self._answered:
            trailers = [
                (":status", "200"),
                ("content-type", "application/grpc"),
                *trailers,
            ]
        self._connection.headers(self._number, trailers, end=True)
        self._gone = True
        self._connection.flush()


Handler = Callable[[Call], Awaitable[None]]


class Connection:
    """The server's end of one HTTP/2 connection, fed with and emptied of bytes."""

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        failed: Callable[[str, Exception], None] | None = None,
    ) -> None:
        self._handlers = handlers
        self._failed = failed
        self._calls: dict[int, Call] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._received = bytearray()
        self._preface = False
        self._decoder = hpack.Decoder()
        self._encoder = hpack.Encoder()
        self._header_block: tuple[int, int, bytearray] | None = None
        self._out = bytearray()
        self._wake_out = asyncio.Event()
        self._wake_room = asyncio.Event()
        self._credit = 0
        self.frame_size = 16384
        self.window = 65535
        self._initial_window = 65535
        self.frame(
            SETTINGS, 0, 0, struct.pack(">HIHI", INITIAL_WINDOW_SIZE, STREAM_WINDOW, 0x3, 1 << 20)
        )
        self.frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", CONNECTION_WINDOW - 65535))
        self.flush()

    # -- bytes out ------------------------------------------------------------------------------

    def frame(self, kind: int, flags: int, stream: int, payload: bytes | memoryview) -> None:
        size = len(payload)
        self._out += struct.pack(">BHBBI", size >> 16, size & 0xFFFF, kind, flags, stream)
        self._out += payload

    def headers(self, stream: int, headers: list[tuple[str, str]], *, end: bool = False) -> None:
        block = self._encoder.encode(headers)
        first = True
        while first or block:
            part, block = block[: self.frame_size], block[self.frame_size :]
            flags = (END_HEADERS if not block else 0) | (END_STREAM if end and first else 0)
            self.frame(HEADERS if first else CONTINUATION, flags, stream, part)
            first = False

    def flush(self) -> None:
        if self._out:
            self._wake_out.set()

    @property
    def full(self) -> bool:
        return len(self._out) >= HIGH_WATER

    async def outgoing(self) -> bytes:
        """The next bytes to carry to the peer; waits until there are some."""
        while not self._out:
            self._wake_out.clear()
            await self._wake_out.wait()
        data = bytes(self._out)
        self._out.clear()
        self._wake_room.set()
        return data

    async def room(self) -> None:
        """Wait until sending may go on: bytes have left, or the peer's window grew."""
        self._wake_room.clear()
        await self._wake_room.wait()

    def credit(self, stream: int, size: int) -> None:
        if size <= 0:
            return
        if stream in self._calls:
            self.frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", size))
            self.flush()

    # -- bytes in -------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take bytes from the peer.

        Raises:
            ProtocolError: they are not HTTP/2.
        """
        received = self._received
        received += data
        position = 0
        if not self._preface:
            if len(received) < len(PREFACE):
                return
            if not received.startswith(PREFACE):
                raise ProtocolError("the HTTP/2 preface is missing")
            self._preface = True
            position = len(PREFACE)
        end = len(received)
        with memoryview(received) as view:
            while end - position >= 9:
                high, low, kind, flags, stream = struct.unpack_from(">BHBBI", view, position)
                size = (high << 16) | low
                if end - position - 9 < size:
                    break
                start = position + 9
                position = start + size
                with view[start:position] as payload:
                    self._frame(kind, flags, stream & 0x7FFFFFFF, payload)
        del received[:position]
        self.flush()

    def _frame(self, kind: int, flags: int, stream: int, payload: memoryview) -> None:
        if kind == DATA:
            self._data(flags, stream, payload)
        elif kind in (HEADERS, CONTINUATION):
            self._headers(kind, flags, stream, payload)
        elif kind == WINDOW_UPDATE:
            (size,) = struct.unpack(">I", payload)
            if stream == 0:
                self.window += size
            elif stream in self._calls:
                self._calls[stream].window_grew(size)
            self._wake_room.set()
        elif kind == PING:
            if not flags & END_STREAM:
                self.frame(PING, END_STREAM, 0, payload)
        elif kind == SETTINGS:
            self._settings(flags, payload)
        elif kind == RST_STREAM:
            call = self._calls.pop(stream, None)
            if call is not None:
                call.reset()
                self._wake_room.set()
        elif kind == GOAWAY:
            self.close()
        # PRIORITY and unknown kinds are ignored, as the RFC asks.

    def _data(self, flags: int, stream: int, payload: memoryview) -> None:
        self._credit += len(payload)
        if self._credit >= CONNECTION_WINDOW // 2:
            self.frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._credit))
            self._credit = 0
        call = self._calls.get(stream)
        if call is None:
            return  # what was under way when the call ended
        if flags & PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        call.data_arrived(payload, bool(flags & END_STREAM))

    def _headers(self, kind: int, flags: int, stream: int, payload: memoryview) -> None:
        if kind == HEADERS:
            if flags & PADDED:
                payload = payload[1 : len(payload) - payload[0]]
            if flags & HAS_PRIORITY:
                payload = payload[5:]
            self._header_block = (stream, flags, bytearray(payload))
        else:
            if self._header_block is None or self._header_block[0] != stream:
                raise ProtocolError("a CONTINUATION that continues nothing")
            self._header_block[2].extend(payload)
        if not flags & END_HEADERS:
            return
        stream, flags, block = self._header_block
        self._header_block = None
        headers = [_text(item) for item in self._decoder.decode(bytes(block), raw=True)]
        ended = bool(flags & END_STREAM)
        call = self._calls.get(stream)
        if call is not None:  # the client's trailers
            call.data_arrived(memoryview(b""), ended)
            return
        call = Call(self, stream, self._initial_window)
        call.headers_arrived(headers, ended)
        self._calls[stream] = call
        call.task = asyncio.create_task(self._run(call, stream))
        self._tasks.add(call.task)
        call.task.add_done_callback(self._tasks.discard)

    def _settings(self, flags: int, payload: memoryview) -> None:
        if flags & END_STREAM:
            return
        for position in range(0, len(payload) - 5, 6):
            name, value = struct.unpack_from(">HI", payload, position)
            if name == INITIAL_WINDOW_SIZE:
                for call in self._calls.values():
                    call.window_grew(value - self._initial_window)
                self._initial_window = value
            elif name == MAX_FRAME_SIZE:
                self.frame_size = min(value, 1 << 20)
        self.frame(SETTINGS, END_STREAM, 0, b"")
        self._wake_room.set()

    # -- calls ----------------------------------------------------------------------------------

    async def _run(self, call: Call, stream: int) -> None:
        code, message = OK, ""
        try:
            handler = self._handlers.get(call.method)
            if handler is None:
                raise Refused(UNIMPLEMENTED, f"this session does not serve {call.method}")
            await handler(call)
        except Refused as error:
            code, message = error.code, str(error)
        except ConnectionResetError:
            code = CANCELLED
        except asyncio.CancelledError:
            call.finish(CANCELLED, "the client cancelled the call")
            raise
        except Exception as error:
            code, message = UNKNOWN, str(error) or type(error).__name__
            if self._failed is not None:
                self._failed(call.method, error)
        finally:
            self._calls.pop(stream, None)
        call.finish(code, message)

    def close(self) -> None:
        """End every call under way."""
        for task in list(self._tasks):
            task.cancel()

    async def closed(self) -> None:
        """Wait until the calls that `close` ended have let go of what they held."""
        if self._tasks:
            await asyncio.wait(list(self._tasks))


def _text(item: tuple[bytes | str, ...]) -> tuple[str, str]:
    name, value = item[0], item[1]
    return (
        name.decode("latin-1") if isinstance(name, bytes) else name,
        value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value,
    )
