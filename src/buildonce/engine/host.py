"""One session of a command: a port with a token, the server behind it, and the engine behind that.

    host = Host(open_engine, model.apply, introspection=folder, log=file)
    environment |= host.environment()        # a program may be started with this at once
    async with host.serving():
        ...

The port accepts from the start and the server and the engine come up behind it, while the program
starts: nobody waits for anybody. A query waits for the engine; if the engine cannot start, the
query's answer says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from buildonce.engine.events import OnEvent
from buildonce.errors import BuildonceError

if TYPE_CHECKING:
    from graphql import DocumentNode, ExecutionResult

    from buildonce.engine.server import QueryContext, Telemetry

_CLOSING_TIMEOUT = 30.0  # seconds that the engine may take to end what it runs
_LARGEST_LOG = 10 << 20
_log = logging.getLogger("buildonce.engine")


class Session(Protocol):
    """What `open_session` gives."""

    async def execute(
        self,
        document: DocumentNode,
        variables: dict[str, Any] | None,
        operation_name: str | None,
        context: QueryContext,
    ) -> ExecutionResult: ...


OpenEngine: TypeAlias = Callable[[OnEvent], AbstractAsyncContextManager[Session]]


class Host:
    """Serves one session.

    Args:
        open_engine: opens the engine; entered while serving.
        on_event: gets what the engine tells.
        introspection: folder for kept answers.
        log: file for what users need not see.
        on_failure: called if the engine cannot be opened.

    Attributes:
        port, token: what a client needs.
    """

    def __init__(
        self,
        open_engine: OpenEngine,
        on_event: OnEvent,
        *,
        introspection: Path | None,
        log: Path,
        on_failure: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self._open_engine = open_engine
        self._on_event = on_event
        self._introspection = introspection
        self._log = log
        self._on_failure = on_failure
        self._listener = listen()
        self._engine: asyncio.Future[Session] | None = None
        self.port: int = self._listener.getsockname()[1]
        self.token = new_token()

    def environment(self) -> dict[str, str]:
        """The variables by which `dagger-io` finds the session."""
        return {"DAGGER_SESSION_PORT": str(self.port), "DAGGER_SESSION_TOKEN": self.token}

    @contextlib.asynccontextmanager
    async def serving(self, telemetry: Telemetry | None = None) -> AsyncIterator[None]:
        """Serve inside the block; the engine is closed when it is left."""
        # Loading these takes as long as the rest of the start; programs that never connect and end
        # at once are not made to wait for it.
        from buildonce.engine.server import Server

        self._engine = asyncio.get_running_loop().create_future()
        self._engine.add_done_callback(lambda done: done.cancelled() or done.exception())
        closing = asyncio.Event()
        opened = asyncio.create_task(self._keep_open(self._engine, closing))
        server = Server(
            self.token,
            self._execute,
            telemetry=telemetry,
            introspection=self._introspection,
            log=self._log,
        )
        try:
            async with server.serving(self._listener):
                try:
                    yield
                finally:
                    closing.set()  # the engine ends while the server does
        finally:
            closing.set()
            if not self._engine.done():
                opened.cancel()
            await asyncio.wait([opened], timeout=_CLOSING_TIMEOUT)
            if not opened.done():
                opened.cancel()
                await asyncio.wait([opened], timeout=5)

    def close(self) -> None:
        """Free the port; needed only if `serving` was never entered."""
        self._listener.close()

    async def ready(self) -> Session:
        """The session, once it is open.

        Raises:
            BuildonceError: it cannot be opened.
        """
        if self._engine is None:
            raise RuntimeError("not serving")
        return await asyncio.shield(self._engine)

    async def _execute(
        self,
        document: DocumentNode,
        variables: dict[str, Any] | None,
        operation_name: str | None,
        context: QueryContext,
    ) -> ExecutionResult:
        session = await self.ready()
        return await session.execute(document, variables, operation_name, context)

    async def _keep_open(self, engine: asyncio.Future[Session], closing: asyncio.Event) -> None:
        try:
            async with self._open_engine(self._on_event) as session:
                gc.freeze()  # what is loaded now stays: never search it for garbage again
                engine.set_result(session)
                await closing.wait()
        except Exception as error:
            if engine.done():
                _log.error("the engine did not close cleanly", exc_info=error)
                return
            if not isinstance(error, BuildonceError):
                _log.error("the engine did not start", exc_info=error)
            engine.set_exception(error)
            self._on_failure(error)
        finally:
            if not engine.done():
                engine.cancel()


def new_token() -> str:
    """A token for one session."""
    return secrets.token_hex(24)


def listen() -> socket.socket:
    """A socket on a free loopback port, already accepting: clients wait, they are not refused."""
    # asyncio turns Nagle off only where it sees that the protocol is TCP; 40 ms a query otherwise.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.bind(("127.0.0.1", 0))
        listener.listen(512)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


@contextlib.contextmanager
def logging_to(file: Path) -> Iterator[None]:
    """Send what the engine logs to `file`, not to the terminal, inside the block."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.stat().st_size > _LARGEST_LOG:
            file.replace(file.with_suffix(".old.log"))
    handler = logging.FileHandler(file, delay=True, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(name)s %(message)s"))
    names = ("buildonce.engine", "uvicorn", "asyncio", "grpc")
    loggers = [logging.getLogger(name) for name in names]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.propagate = True
        handler.close()
