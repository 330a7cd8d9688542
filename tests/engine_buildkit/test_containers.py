"""Containers that are not build steps."""

from __future__ import annotations

import os
from typing import Any

import anyio
import pytest

from buildonce.engine.buildkit import Build, Container, Session, SolveError, pb
from buildonce.engine.buildkit.daemon import Daemon

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
    async with build.container(mounts) as container:
        with pytest.raises(SolveError, match="spam"):
            async with container.start(["spam"], env=ENV) as process:
                await process.wait()


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
    serve = "busybox ip -4 -o addr show scope global; exec busybox nc -lk -p 8000 -e busybox cat"
    args = ["busybox", "sh", "-c", serve]
    async with (
        build.container(mounts) as service,
        service.start(args, env=ENV) as server,
    ):
        address = (await server.receive()).split()[3].split(b"/")[0].decode()
        # The shim's `wait`, in the service's own network, says when it listens.
        wait = ["/.buildonce/shim", "wait", "--timeout", "20s", "8000/tcp"]
        async with service.start(wait, env=ENV) as waiting:
            assert await waiting.wait() == 0
        async with build.container(mounts, extra_hosts={"web": address}) as client:
            assert await run(client, "echo hello | busybox nc web 8000") == (b"hello\n", b"", 0)
        # And from here: a tunnel through the shim's `connect` within the service's container.
        connect = ["/.buildonce/shim", "connect", "127.0.0.1:8000"]
        async with service.start(connect, env=ENV, stdin=True) as tunnel:
            await tunnel.send(b"through")
            assert await tunnel.receive() == b"through"
            await tunnel.send_eof()


async def test_nothing_listens(build: Build, mounts: list[pb.Mount]) -> None:
    args = ["/.buildonce/shim", "wait", "--timeout", "100ms", "1234"]
    async with build.container(mounts) as container, container.start(args, env=ENV) as process:
        _, problems = await process.communicate()
        assert await process.wait() != 0
    assert b"nothing listens on 1234 after 100ms" in problems


async def test_a_container_ends_with_its_block(build: Build, mounts: list[pb.Mount]) -> None:
    async with build.container(mounts) as container:
        for _ in range(3):  # one after the other
            assert (await run(container, "exit 0"))[2] == 0
    with pytest.raises(SolveError, match="previously released"):
        await run(container, "exit 0")
