"""Containers that are not build steps: services, and looking at what a failed step has left.

    async with build.container([pb.Mount(dest="/", resultID=result.ref)]) as container:
        async with container.start(["cat"], env={}, cwd="/") as process:
            await process.send(b"hello")
            await process.send_eof()
            assert await process.receive() == b"hello"
            assert await process.wait() == 0

The first process of a container is its init: when it ends, the others are killed with it. BuildKit
ends the container also when any other process fails, so what may fail there should say so otherwise
than by its exit code.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import anyio
import grpc.aio
from anyio.abc import ByteStream

from buildonce.engine.buildkit import shim
from buildonce.engine.buildkit.calls import BRIDGE, Caller, Duplex
from buildonce.engine.buildkit.errors import BuildkitError, SolveError, from_status, translate
from buildonce.engine.buildkit.names import new_id
from buildonce.engine.buildkit.proto import gateway_pb2, ops_pb2

Stream = Duplex[gateway_pb2.ExecMessage, gateway_pb2.ExecMessage]
OnOutput = Callable[[int, bytes], None]
STDIN, STDOUT, STDERR = 0, 1, 2
HIGH_WATER = 4 << 20  # bytes of output kept for a reader before the daemon has to wait
PART = 1 << 20  # bytes of input a message
FAREWELL = 5.0  # seconds
GRACE = 1.0  # seconds between the end of a process's input and a signal
LINGER = 5.0  # seconds of silence after which a process that has exited counts as done


class Container:
    """See the module; made by `Build.container`."""

    def __init__(self, caller: Caller, container_id: str) -> None:
        self._caller = caller
        self.id = container_id
        self._first: Process | None = None
        self._over = False

    @classmethod
    @asynccontextmanager
    async def create(
        cls, caller: Caller, request: gateway_pb2.NewContainerRequest
    ) -> AsyncIterator[Container]:
        request.ContainerID = new_id()
        await caller.call(BRIDGE + "NewContainer", request, gateway_pb2.NewContainerResponse)
        container = cls(caller, request.ContainerID)
        try:
            yield container
        finally:
            container._over = True
            with anyio.CancelScope(shield=True), anyio.move_on_after(FAREWELL):
                release = gateway_pb2.ReleaseContainerRequest(ContainerID=request.ContainerID)
                # If the build has ended, the container has with it.
                with suppress(BuildkitError):
                    await caller.call(
                        BRIDGE + "ReleaseContainer", release, gateway_pb2.ReleaseContainerResponse
                    )

    @asynccontextmanager
    async def start(
        self,
        args: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        user: str = "",
        stdin: bool = False,
        tty: bool = False,
        privileged: bool = False,
        secret_env: Mapping[str, str] | None = None,
        on_output: OnOutput | None = None,
    ) -> AsyncIterator[Process]:
        """Start a process; it is killed when the block ends.

        Args:
            stdin: whether there is an input; without, the process reads nothing at once.
            secret_env: ids of secrets by variable.
            on_output: called with (1 or 2, bytes) as output comes, in place of the streams.

        Raises:
            SolveError: it could not be started.
        """
        if self._over:
            # The daemon would never answer.
            raise SolveError("the container has ended, so nothing can be started in it")
        init = gateway_pb2.InitMessage(
            ContainerID=self.id,
            Meta=ops_pb2.Meta(
                args=args,
                env=[f"{key}={value}" for key, value in (env or {}).items()],
                cwd=cwd,
                user=user,
            ),
            Fds=[STDIN, STDOUT, STDERR] if stdin else [STDOUT, STDERR],
            Tty=tty,
            Security=ops_pb2.INSECURE if privileged else ops_pb2.SANDBOX,
            secretenv=[
                ops_pb2.SecretEnv(ID=secret, name=name)
                for name, secret in (secret_env or {}).items()
            ],
        )
        stream = Duplex(
            self._caller.channel,
            BRIDGE + "ExecProcess",
            gateway_pb2.ExecMessage,
            gateway_pb2.ExecMessage,
            self._caller.metadata,
        )
        process = Process(stream, self._caller.address, on_output, self._left)
        self._first = self._first or process
        try:
            await process.begin(init)
            yield process
        finally:
            with anyio.CancelScope(shield=True):
                await process.end()

    def _left(self, process: Process, code: int | None) -> None:
        if process is self._first or code != 0:
            self._over = True

    @asynccontextmanager
    async def connect(self, port: int, *, host: str = "127.0.0.1") -> AsyncIterator[Process]:
        """A TCP connection from within the container, as a byte stream.

        The container must have the shim, and a process that keeps it running.
        """
        arguments = [shim.PATH, "connect", f"{host}:{port}"]
        async with self.start(arguments, stdin=True) as process:

            async def closed() -> None:
                # The shim says so when the far end has closed, and ends once its input has.
                with suppress(anyio.EndOfStream, anyio.BrokenResourceError, BuildkitError):
                    await process.receive_error()
                    await process.send_eof()

            watch = asyncio.create_task(closed())
            try:
                yield process
            finally:
                watch.cancel()
                with anyio.CancelScope(shield=True):
                    await asyncio.gather(watch, return_exceptions=True)
                    await process.dismiss()


class _Output:
    """The bytes of one output stream, waiting for their reader."""

    def __init__(self) -> None:
        self.parts: deque[bytes] = deque()
        self.size = 0
        self.ended = False
        self.arrived = asyncio.Event()

    def add(self, data: bytes) -> None:
        self.parts.append(data)
        self.size += len(data)
        self.arrived.set()

    def end(self) -> None:
        self.ended = True
        self.arrived.set()

    async def take(self) -> bytes:
        while not self.parts:
            if self.ended:
                raise anyio.EndOfStream
            self.arrived.clear()
            await self.arrived.wait()
        part = self.parts.popleft()
        self.size -= len(part)
        return part


class Process(ByteStream):
    """A process in a container. Its stdin and stdout together are one anyio byte stream."""

    def __init__(
        self,
        stream: Stream,
        address: str,
        on_output: OnOutput | None,
        on_exit: Callable[[Process, int | None], None],
    ) -> None:
        self._on_exit = on_exit
        self._stream = stream
        self._address = address
        self._on_output = on_output
        self._outputs = {STDOUT: _Output(), STDERR: _Output()}
        self._room = asyncio.Event()
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pump: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self._eof = False

    async def begin(self, init: gateway_pb2.InitMessage) -> None:
        self._pump = asyncio.create_task(self._receive())
        await self._send(gateway_pb2.ExecMessage(Init=init))
        await self._started

    async def end(self) -> None:
        """Stop it, if it has not ended."""
        if not self._exit.done():
            try:
                await asyncio.wait_for(self.signal("KILL"), FAREWELL)
                await asyncio.wait([self._exit], timeout=FAREWELL)
            except (BuildkitError, anyio.BrokenResourceError, TimeoutError):
                pass  # gone already, or going with its container
        self._stream.cancel()
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        for future in (self._exit, self._started):
            if not future.done():
                future.set_exception(BuildkitError("the process was stopped"))
            future.exception()  # whoever waits gets it; nobody waiting is no warning

    async def dismiss(self) -> None:
        """Ask it to end: a process that is killed takes its container with it.

        By the end of its input; most servers close then too. A signal comes only when it has been
        there for a while, for it must have seen to what signals do to it.
        """
        with suppress(BuildkitError, anyio.BrokenResourceError, TimeoutError):
            await asyncio.wait_for(self.send_eof(), FAREWELL)
            await asyncio.wait([self._exit], timeout=GRACE)
            if not self._exit.done():
                await asyncio.wait_for(self.signal("TERM"), FAREWELL)
                await asyncio.wait([self._exit], timeout=FAREWELL)

    async def wait(self) -> int:
        """The exit code, 128 + the signal's number if a signal ended it.

        Raises:
            BuildkitError: it ended otherwise, such as with the daemon.
        """
        return await asyncio.shield(self._exit)

    async def signal(self, name: str) -> None:
        """Send a signal, named without SIG: "TERM", "INT", "HUP", "KILL"."""
        message = gateway_pb2.SignalMessage(Name=name)
        await self._send(gateway_pb2.ExecMessage(Signal=message))

    async def resize(self, rows: int, columns: int) -> None:
        """Tell the process's terminal its size."""
        message = gateway_pb2.ResizeMessage(Rows=rows, Cols=columns)
        await self._send(gateway_pb2.ExecMessage(Resize=message))

    async def communicate(self, data: bytes = b"") -> tuple[bytes, bytes]:
        """Give it `data` as its whole input and collect stdout and stderr until it ends."""
        if data:
            await self.send(data)
            await self.send_eof()
        output, problems = await asyncio.gather(self._collect(STDOUT), self._collect(STDERR))
        return output, problems

    async def _collect(self, number: int) -> bytes:
        parts = []
        try:
            while True:
                parts.append(await self._take(number))
        except anyio.EndOfStream:
            return b"".join(parts)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Some of its stdout; raises anyio.EndOfStream at the end."""
        return await self._take(STDOUT, max_bytes)

    async def receive_error(self, max_bytes: int = 65536) -> bytes:
        """Some of its stderr; raises anyio.EndOfStream at the end."""
        return await self._take(STDERR, max_bytes)

    async def send(self, item: bytes) -> None:
        """Write to its stdin."""
        for position in range(0, len(item), PART):
            part = gateway_pb2.FdMessage(Fd=STDIN, Data=item[position : position + PART])
            await self._send(gateway_pb2.ExecMessage(File=part))

    async def send_eof(self) -> None:
        """Close its stdin."""
        if not self._eof:
            self._eof = True
            end = gateway_pb2.FdMessage(Fd=STDIN, EOF=True)
            await self._send(gateway_pb2.ExecMessage(File=end))

    async def aclose(self) -> None:
        """Stop it."""
        await self.end()

    # -- the daemon's stream --------------------------------------------------------------------

    async def _take(self, number: int, limit: int = 0) -> bytes:
        output = self._outputs[number]
        data = await output.take()
        if limit and len(data) > limit:
            output.parts.appendleft(data[limit:])
            output.size += len(data) - limit
            data = data[:limit]
        self._room.set()
        return data

    async def _send(self, message: gateway_pb2.ExecMessage) -> None:
        message.ProcessID = "process"
        try:
            async with self._writing:
                await self._stream.write(message)
        except grpc.aio.AioRpcError as error:
            raise translate(error, self._address) from None
        except asyncio.InvalidStateError:
            raise anyio.BrokenResourceError from None

    async def _receive(self) -> None:
        code: int | None = None
        failure: BaseException | None = None
        exited = False
        try:
            while (message := await self._next(exited)) is not None:
                kind = message.WhichOneof("Input")
                if kind == "Started":
                    self._started.set_result(None)
                elif kind == "File":
                    await self._output(message.File)
                elif kind == "Exit":
                    exited = True
                    code = message.Exit.Code
                    if message.Exit.HasField("Error") and code in (0, 255):
                        failure = self._judge(message.Exit)
                        code = None if failure is not None else code
                elif kind == "Done":
                    break
        except grpc.aio.AioRpcError as error:
            failure = translate(error, self._address)
        self._on_exit(self, code)
        for output in self._outputs.values():
            output.end()
        self._ended(code, failure)

    async def _next(self, exited: bool) -> gateway_pb2.ExecMessage | None:
        """The next message; None at the end.

        The daemon forgets an output of a process that ends as it starts, and then never says that
        it is done: it walks a map that another goroutine empties (seen with v0.26, a full disk).
        """
        try:
            async with asyncio.timeout(LINGER if exited else None):
                return await self._stream.read()
        except TimeoutError:
            return None

    def _ended(self, code: int | None, failure: BaseException | None) -> None:
        """Tell whoever waits for its start or its end."""
        if failure is None and code is None:
            failure = BuildkitError("the process ended without an exit code")
        if not self._started.done():
            self._started.set_exception(failure or BuildkitError("the process did not start"))
        if not self._exit.done():
            if failure is not None:
                self._exit.set_exception(failure)
                self._exit.exception()  # whoever waits gets it; nobody waiting is no warning
            else:
                self._exit.set_result(code or 0)

    @staticmethod
    def _judge(message: gateway_pb2.ExitMessage) -> BuildkitError | None:
        # 255 is a command's own exit code, or stands for "could not run at all".
        error = from_status(message.Error)
        return None if error.exit_status is not None else error

    async def _output(self, message: gateway_pb2.FdMessage) -> None:
        output = self._outputs[message.Fd]
        if message.EOF:
            output.end()
        elif self._on_output is not None:
            self._on_output(message.Fd, message.Data)
        else:
            output.add(message.Data)
            while output.size > HIGH_WATER:
                self._room.clear()
                await self._room.wait()
