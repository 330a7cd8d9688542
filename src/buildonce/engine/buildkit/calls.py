"""Calling the daemon's services, with its errors translated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio.lowlevel
import grpc
import grpc.aio
from google.protobuf.message import Message

from buildonce.engine.buildkit.errors import translate

if TYPE_CHECKING:
    from buildonce.engine.buildkit.proto import ops_pb2

Request = TypeVar("Request", bound=Message)
Answer = TypeVar("Answer", bound=Message)

_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]

CONTROL = "/moby.buildkit.v1.Control/"
BRIDGE = "/moby.buildkit.v1.frontend.LLBBridge/"


class Duplex(Generic[Request, Answer]):
    """A call with a stream of messages each way."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        method: str,
        request: type[Request],
        answer: type[Answer],
        metadata: Sequence[tuple[str, str]],
    ) -> None:
        # grpcio's published types lack the form of these calls that reads and writes.
        function: Any = channel.stream_stream(
            method, request_serializer=_serialize, response_deserializer=answer.FromString
        )
        self._call: Any = function(metadata=metadata)

    async def read(self) -> Answer | None:
        """The next message; None at the end.

        Raises:
            grpc.aio.AioRpcError: the call failed.
        """
        async with _cancellable():
            message: Any = await self._call.read()
        return None if message is _EOF else message

    async def write(self, message: Request) -> None:
        """Send a message; waits while the daemon does not take it.

        Raises:
            grpc.aio.AioRpcError, asyncio.InvalidStateError: the call has ended.
        """
        async with _cancellable():
            await self._call.write(message)

    def cancel(self) -> None:
        self._call.cancel()


class Caller:
    """A channel to the daemon, and metadata that every call through it carries."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        address: str,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.channel = channel
        self.address = address
        self.metadata = metadata
        self._methods: dict[str, Callable[..., grpc.aio.UnaryUnaryCall[Message, Message]]] = {}

    def within(self, build: str) -> Caller:
        """The same for calls that belong to a build."""
        return Caller(self.channel, self.address, [("buildkit-controlapi-buildid", build)])

    async def call(
        self,
        method: str,
        request: Message,
        answer: type[Answer],
        *,
        definition: ops_pb2.Definition | None = None,
    ) -> Answer:
        """One request, one answer.

        Args:
            definition: where an operation that fails is looked up.

        Raises:
            BuildkitError: as `translate` says.
        """
        function = self._methods.get(method)
        if function is None:
            function = self.channel.unary_unary(
                method,
                request_serializer=_serialize,
                response_deserializer=answer.FromString,
            )
            self._methods[method] = function
        try:
            async with _cancellable():
                return await function(request, metadata=self.metadata)  # type: ignore[return-value]
        except grpc.aio.AioRpcError as error:
            raise translate(error, self.address, definition) from None

    async def stream(
        self, method: str, request: Message, answer: type[Answer]
    ) -> AsyncIterator[Answer]:
        """One request, many answers.

        Raises:
            BuildkitError: as `translate` says.
        """
        call = self.channel.unary_stream(
            method, request_serializer=_serialize, response_deserializer=answer.FromString
        )(request, metadata=self.metadata)
        try:
            messages = aiter(call)
            while True:
                async with _cancellable():
                    item = await anext(messages, None)
                if item is None:
                    return
                yield item
        except grpc.aio.AioRpcError as error:
            raise translate(error, self.address) from None
        finally:
            call.cancel()


@asynccontextmanager
async def _cancellable() -> AsyncIterator[None]:
    """Let anyio know its own cancellation again.

    grpcio ends a call that is cancelled with a CancelledError of its own, which a cancel scope
    takes for somebody else's: a time limit that ran out would cancel all that is around it.
    """
    try:
        yield
    except asyncio.CancelledError:
        await anyio.lowlevel.checkpoint_if_cancelled()
        raise


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
