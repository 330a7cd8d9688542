"""How a running service is reached from this machine: by its address where packets get there, else
through a process in its container.

    async with dial(engine, running, 8080) as stream: ...
    async with nearby(engine, running, 8080) as (address, port): ...   # for programs
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from anyio.abc import ByteStream, Listener, SocketAttribute, SocketStream

from buildonce.engine.buildkit import BuildkitError
from buildonce.engine.errors import QueryFailed
from buildonce.engine.running import Running
from buildonce.engine.states import ServiceState

if TYPE_CHECKING:
    from buildonce.engine.engine import Engine


async def run_tunnel(
    engine: Engine, service: ServiceState, stack: AsyncExitStack, log: deque[bytes]
) -> Running:
    """Listen on loopback ports of the client's machine and lead them to a service."""
    assert service.upstream is not None
    upstream = await engine.services.start(service.upstream)
    listeners: list[tuple[Listener[SocketStream], int]] = []
    for front, back, _ in service.forwards:
        try:
            opened = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=front)
        except OSError as error:
            raise QueryFailed(
                f"cannot listen on 127.0.0.1:{front}: {error.strerror or error}; "
                "choose another port, or let one be chosen with random"
            ) from error
        stack.push_async_callback(opened.aclose)
        listeners.append((opened.listeners[0], back))
    # A task of its own, because a task group must end in the task that it began in.
    serving = asyncio.create_task(_lead(engine, upstream, listeners))
    stack.push_async_callback(_end, serving)
    numbers = [one.extra(SocketAttribute.local_port) for one, _ in listeners]  # noqa: S610
    return Running("127.0.0.1", numbers, stack)


async def _lead(
    engine: Engine, upstream: Running, listeners: Sequence[tuple[Listener[SocketStream], int]]
) -> None:
    async def serve(listener: Listener[SocketStream], port: int) -> None:
        async def lead(near: SocketStream) -> None:
            try:
                async with near, dial(engine, upstream, port) as far:
                    await pump(near, far)
            except OSError:
                pass  # the service is gone, and with it the connection

        await listener.serve(lead)

    async with anyio.create_task_group() as group:
        for listener, port in listeners:
            group.start_soon(serve, listener, port)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def dial(engine: Engine, running: Running, port: int) -> AsyncIterator[ByteStream]:
    """A connection to a port of a running service."""
    if engine.routed or running.container is None:
        async with await anyio.connect_tcp(running.address, port) as stream:
            yield stream
        return
    try:
        async with running.container.connect(port, host=running.address) as stream:
            yield stream
    except BuildkitError as error:
        raise OSError(str(error)) from error


@asynccontextmanager
async def nearby(engine: Engine, running: Running, port: int) -> AsyncIterator[tuple[str, int]]:
    """The address by which programs of this machine reach a port of a running service."""
    if engine.routed:
        yield running.address, port
        return
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as opened:
        [listener] = opened.listeners
        leading = asyncio.create_task(_lead(engine, running, [(listener, port)]))
        try:
            yield "127.0.0.1", listener.extra(SocketAttribute.local_port)  # noqa: S610
        finally:
            await _end(leading)


async def pump(one: ByteStream, other: ByteStream) -> None:
    """Carry bytes both ways until both ends have closed."""

    async def carry(source: ByteStream, sink: ByteStream) -> None:
        try:
            async for data in source:
                await sink.send(data)
            await sink.send_eof()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass

    async with anyio.create_task_group() as group:
        group.start_soon(carry, one, other)
        group.start_soon(carry, other, one)
