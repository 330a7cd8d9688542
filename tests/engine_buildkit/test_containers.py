"""Containers that are not build steps."""

from __future__ import annotations

import os
from typing import Any

import anyio
import pytest

from buildonce.engine.buildkit import Build, Container, Session, SolveError, pb
from buildonce.engine.buildkit.container import Process
from buildonce.engine.buildkit.daemon import Daemon
from buildonce.engine.buildkit.proto import gateway_pb2

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]
ENV = {"PATH": "/bin"}


@pytest.fixture
async def mounts(build: Build, graph: Any) -> list[pb.Mount]:
    root = await build.solve(graph.definition(graph.root))
    shim = await build.solve(graph.definition(graph.shim))
    return [
        pb.Mount(dest="/", resultID=root.ref),
        pb.Mount(dest="/.buildonce/shim", resultID=shim.ref, selector="/shim", readonly=True),
    ]


async def run(container: Container, script: str, **options: Any) -> tuple[bytes, bytes, int]:
    args = ["busybox", "sh", "-c", script]
    async with container.start(args, env=ENV, **options) as process:
        output, problems = await process.communicate()
        return output, problems, await process.wait()


async def test_streams_and_exit_code(build: Build, mounts: list[pb.Mount]) -> None:
    async with build.container(mounts, hostname="box") as container:
        result = await run(container, "busybox hostname; pwd; echo err >&2; exit 42", cwd="/bin")
    assert result == (b"box\n/bin\n", b"err\n", 42)


async def test_input(build: Build, mounts: list[pb.Mount]) -> None:
    data = os.urandom(3 << 20)
    async with (
        build.container(mounts) as container,
        container.start(["busybox", "cat"], env=ENV, stdin=True) as process,
    ):
        received = bytearray()
        async with anyio.create_task_group() as group:

            async def write() -> None:
                await process.send(data)
                await process.send_eof()

            group.start_soon(write)
            with pytest.raises(anyio.EndOfStream):
                while True:
                    received += await process.receive()
        assert bytes(received) == data
        assert await process.wait() == 0


async def test_signals(build: Build, mounts: list[pb.Mount]) -> None:
    script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do busybox sleep 0.05; done"
    async with (
        build.container(mounts) as container,
        container.start(["busybox", "sh", "-c", script], env=ENV) as process,
    ):
        assert await process.receive() == b"ready\n"
        await process.signal("TERM")
        assert await process.receive() == b"bye\n"
        assert await process.wait() == 3


async def test_output_as_it_comes(build: Build, mounts: list[pb.Mount]) -> None:
    seen: list[tuple[int, bytes]] = []
    async with build.container(mounts) as container:
        args = ["busybox", "sh", "-c", "echo one; echo two >&2"]
        async with container.start(
            args, env=ENV, on_output=lambda number, data: seen.append((number, data))
        ) as process:
            assert await process.wait() == 0
    assert sorted(seen) == [(1, b"one\n"), (2, b"two\n")]


async def test_what_cannot_be_started(build: Build, mounts: list[pb.Mount]) -> None:
    async with build.container(mounts) as container, container.start(["spam"], env=ENV) as process:
        _, problems = await process.communicate()
        assert await process.wait() != 0
    assert b'exec: "spam": executable file not found' in problems


async def test_a_secret(build: Build, session: Session, mounts: list[pb.Mount]) -> None:
    async def secrets(name: str) -> bytes | None:
        return b"hunter2" if name == "token" else None

    session.secrets = secrets
    async with build.container(mounts) as container:
        output, _, _ = await run(container, "echo $TOKEN", secret_env={"TOKEN": "token"})
    assert output == b"hunter2\n"


async def test_a_service_is_reached_from_another_container(
    build: Build, mounts: list[pb.Mount], running: Daemon
) -> None:
    if running.network != "bridge":
        pytest.skip(f"containers share this machine's network: {running.network_reason}")
    serve = (
        "echo hello > /page; busybox ip -4 -o addr show scope global;"
        "busybox nc -ll -p 8002 -e busybox sleep 1000 &"
        "exec busybox httpd -f -p 8000 -h /"
    )
    args = ["busybox", "sh", "-c", serve]
    async with (
        build.container(mounts) as service,
        service.start(args, env=ENV) as server,
    ):
        address = (await server.receive()).split()[3].split(b"/")[0].decode()
        # The shim's `wait`, in the service's own network, says when it listens.
        wait = ["/.buildonce/shim", "wait", "--timeout", "20s", "8000/tcp", "8002/tcp"]
        async with service.start(wait, env=ENV) as waiting:
            assert await waiting.wait() == 0
        async with build.container(mounts, extra_hosts={"web": address}) as client:
            assert await run(client, "busybox wget -qO- web:8000/page") == (b"hello\n", b"", 0)
        # And from here, through the shim within the service's container.
        async with service.connect(8000) as tunnel:
            await tunnel.send(b"GET /page HTTP/1.0\r\n\r\n")
            answer, _ = await tunnel.communicate()
            assert answer.endswith(b"\r\n\r\nhello\n")
            assert await tunnel.wait() == 0
        async with service.connect(8001) as tunnel:
            with pytest.raises(anyio.EndOfStream):
                await tunnel.receive()
        # One that is given up while it is open takes nothing with it.
        async with service.connect(8000) as tunnel:
            await tunnel.send(b"GET /page HTTP/1.0\r\n")
        for port in (8000, 8002):  # the second does not mind the end of its input
            with anyio.move_on_after(0.5):
                async with service.connect(port) as tunnel:
                    await tunnel.receive()
        assert (await run(service, "echo still here"))[0] == b"still here\n"


async def test_nothing_listens(build: Build, mounts: list[pb.Mount]) -> None:
    args = ["/.buildonce/shim", "wait", "--timeout", "100ms", "1234"]
    async with build.container(mounts) as container, container.start(args, env=ENV) as process:
        _, problems = await process.communicate()
        assert await process.wait() != 0
    assert b"nothing listens on 1234 after 100ms" in problems


async def test_the_first_process_is_the_container(build: Build, mounts: list[pb.Mount]) -> None:
    first = ["busybox", "sleep", "1000"]
    async with build.container(mounts) as container:
        async with container.start(first, env=ENV) as process:
            for number in range(5):
                assert await run(container, f"echo {number}") == (b"%d\n" % number, b"", 0)
            await process.signal("KILL")
            assert await process.wait() == 137
        with pytest.raises(SolveError, match="has ended"):
            await run(container, "exit 0")


async def test_another_process_that_fails_ends_it_too(build: Build, mounts: list[pb.Mount]) -> None:
    # Not what one would choose, but what BuildKit does.
    async with (
        build.container(mounts) as container,
        container.start(["busybox", "sleep", "1000"], env=ENV) as process,
    ):
        assert (await run(container, "exit 3"))[2] == 3
        assert await process.wait() != 0
        with pytest.raises(SolveError, match="has ended"):
            await run(container, "exit 0")


async def test_a_container_ends_with_its_block(build: Build, mounts: list[pb.Mount]) -> None:
    async with build.container(mounts) as container:
        assert (await run(container, "exit 0"))[2] == 0
    with pytest.raises(SolveError, match="has ended"):
        await run(container, "exit 0")


class Silent:
    """The daemon's stream of a process that has ended with one of its outputs forgotten."""

    def __init__(self, *messages: gateway_pb2.ExecMessage) -> None:
        self.messages = list(messages)

    async def write(self, message: gateway_pb2.ExecMessage) -> None:
        pass

    async def read(self) -> gateway_pb2.ExecMessage | None:
        if not self.messages:
            await anyio.sleep_forever()
        return self.messages.pop(0)

    def cancel(self) -> None:
        pass


async def test_an_output_that_the_daemon_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("buildonce.engine.buildkit.container.LINGER", 0.01)
    stream: Any = Silent(
        gateway_pb2.ExecMessage(Started=gateway_pb2.StartedMessage()),
        gateway_pb2.ExecMessage(File=gateway_pb2.FdMessage(Fd=1, Data=b"said")),
        gateway_pb2.ExecMessage(File=gateway_pb2.FdMessage(Fd=1, EOF=True)),
        gateway_pb2.ExecMessage(Exit=gateway_pb2.ExitMessage(Code=3)),
    )
    process = Process(stream, "unix:///nowhere", None, lambda process, code: None)
    with anyio.fail_after(60):
        await process.begin(gateway_pb2.InitMessage())
        assert await process.communicate() == (b"said", b"")
        assert await process.wait() == 3
    await process.end()
