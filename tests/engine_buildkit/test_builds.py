"""Solving on a real daemon: commands, secrets, sockets, failures, cancellation."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from buildonce.engine.buildkit import (
    Build,
    Client,
    DaemonRefused,
    ImageNotFound,
    PathNotFound,
    Session,
    SolveError,
    StatusUpdate,
    pb,
)
from buildonce.engine.buildkit.daemon import Daemon
from tests.loopback import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]
OUT = "/.buildonce/out"


async def output(build: Build, graph: Any, vertex: str, name: str = "stdout") -> str:
    result = await build.solve(graph.definition(vertex, 1))
    return (await build.read_file(result.ref, f"/o/{name}")).decode()


async def test_info(client: Client) -> None:
    info = await client.info()
    assert "linux/amd64" in info.platforms or "linux/arm64" in info.platforms
    assert info.labels["org.mobyproject.buildkit.worker.executor"] == "oci"


async def test_nothing_answers(tmp_path: Path) -> None:
    async with Client.connect(f"unix://{tmp_path}/no.sock") as client:
        with pytest.raises(DaemonRefused) as caught:
            await client.info()
        assert f"{tmp_path}/no.sock" in str(caught.value)
        with pytest.raises(DaemonRefused):
            async with client.session():
                pass
    with pytest.raises(DaemonRefused, match="is not an address"):
        async with Client.connect("/run/buildkit.sock"):
            pass


async def test_files_of_a_result(build: Build, graph: Any) -> None:
    op = graph.files({"/a/f": b"hello", "/a/g": b""})
    result = await build.solve(graph.definition(op))
    assert await build.read_file(result.ref, "/a/f") == b"hello"
    assert await build.read_file(result.ref, "/a/f", 1, 3) == b"ell"
    assert await build.read_file(result.ref, "/a/f", 4, 100) == b"o"
    assert await build.read_file(result.ref, "/a/g") == b""
    assert [s.name for s in await build.read_dir(result.ref, "/a")] == ["f", "g"]
    assert [s.name for s in await build.read_dir(result.ref, "/a", "g*")] == ["g"]
    stat = await build.stat_file(result.ref, "/a/f")
    assert (stat.size, stat.permissions, stat.is_file) == (5, 0o755, True)
    assert (await build.stat_file(result.ref, "/a")).is_dir
    for path in ("/a/none", "/none/f"):
        with pytest.raises(PathNotFound):
            await build.read_file(result.ref, path)
        with pytest.raises(PathNotFound):
            await build.stat_file(result.ref, path)
    with pytest.raises(PathNotFound):
        await build.read_dir(result.ref, "/none")
    # 23 MB, which is more than a message of the daemon's may have.
    numbers = graph.exec("busybox seq 1 3000000 > /whole")
    result = await build.solve(graph.definition(numbers))
    whole = await build.read_file(result.ref, "/whole")
    assert whole == b"".join(b"%d\n" % n for n in range(1, 3_000_001))


async def test_output_is_captured(build: Build, graph: Any) -> None:
    ran = graph.exec("echo out; echo err >&2; exit 0")
    assert await output(build, graph, ran) == "out\n"
    assert await output(build, graph, ran, "stderr") == "err\n"
    assert await output(build, graph, ran, "exit") == "0"


async def test_much_output(build: Build, graph: Any) -> None:
    ran = graph.exec("busybox yes 0123456789 | busybox head -c 50000000")
    result = await build.solve(graph.definition(ran, 1))
    assert (await build.stat_file(result.ref, "/o/stdout")).size == 50_000_000


async def test_a_failing_command_leaves_its_output(build: Build, graph: Any) -> None:
    ran = graph.exec("echo out; echo err >&2; exit 7")
    for _ in range(2):
        with pytest.raises(SolveError) as caught:
            await build.solve(graph.definition(ran))
        error = caught.value
        assert error.exit_status == 7
        assert error.vertex == ran
        assert error.op is not None
        assert len(error.mount_refs) == 3
        files = await build.read_failed(error, OUT, ["o/stdout", "o/stderr", "o/exit", "none"])
        assert files == {"o/stdout": b"out\n", "o/stderr": b"err\n", "o/exit": b"7"}


async def test_a_daemon_that_never_shows_what_is_left(
    build: Build, graph: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one whose disk is full: the command's own failure must still be told."""
    with pytest.raises(SolveError) as caught:
        await build.solve(graph.definition(graph.exec("echo gone; exit 7")))
    monkeypatch.setattr("buildonce.engine.buildkit.build.LEFT", 0.001)
    with pytest.raises(SolveError, match="in time"):
        await build.read_failed(caught.value, OUT, ["o/stdout"])
    monkeypatch.undo()
    assert await build.read_failed(caught.value, OUT, ["o/stdout"]) == {"o/stdout": b"gone\n"}


async def test_what_failed_may_be_tried_again(build: Build, graph: Any) -> None:
    ran = graph.exec("busybox cat /proc/uptime; busybox sleep 0.02; exit 7")
    seen = set()
    for _ in range(3):
        with pytest.raises(SolveError) as caught:
            await build.solve(graph.definition(ran))
        seen.add((await build.read_failed(caught.value, OUT, ["o/stdout"]))["o/stdout"])
    assert len(seen) == 3, "the daemon answered from memory"


@pytest.mark.parametrize(
    ("expect", "script", "fails"),
    [("any", "exit 3", False), ("failure", "exit 3", False), ("failure", "true", True)],
)
async def test_what_is_expected(
    build: Build, graph: Any, expect: str, script: str, fails: bool
) -> None:
    ran = graph.exec(script, expect=expect)
    if fails:
        with pytest.raises(SolveError):
            await build.solve(graph.definition(ran))
    else:
        assert await output(build, graph, ran, "exit") == "3"


async def test_a_command_that_is_not_there(build: Build, graph: Any) -> None:
    with pytest.raises(SolveError) as caught:
        await build.solve(graph.definition(graph.exec(["spam", "ham"])))
    assert caught.value.exit_status
    files = await build.read_failed(caught.value, OUT, ["o/stderr"])
    assert b'exec: "spam": executable file not found in $PATH' in files["o/stderr"]


async def test_as_another_user(build: Build, graph: Any) -> None:
    ran = graph.exec("busybox id -u; busybox id -g", user="1000:1001")
    assert await output(build, graph, ran) == "1000\n1001\n"


async def test_secrets_reach_the_command_and_are_not_seen(
    build: Build, session: Session, graph: Any
) -> None:
    values = {"token": b"hunter2\n", "key": b"-----BEGIN KEY-----\nAbCdEfGhIjKl\n-----END-----\n"}

    async def secrets(name: str) -> bytes | None:
        return values.get(name)

    session.secrets = secrets
    mount = pb.Mount(
        input=-1,
        dest="/run/key",
        output=-1,
        mountType=pb.SECRET,
        secretOpt=pb.SecretOpt(ID="key", mode=0o400),
    )
    script = (
        "echo token=$TOKEN; busybox cat /run/key; busybox printf %s hunt; busybox sleep 0.2;"
        "busybox printf %s er2; echo; busybox stat -c %a /run/key; busybox wc -c < /run/key"
    )
    ran = graph.exec(
        script, secret_env={"TOKEN": "token"}, secret_files=["/run/key"], mounts=[mount]
    )
    text = await output(build, graph, ran)
    assert "hunter2" not in text
    assert "AbCdEfGhIjKl" not in text
    # Printed as it is, the file is gone with the line feeds around it.
    assert text == f"token=*********400\n{len(values['key'])}\n"


async def test_a_secret_that_is_not_there(build: Build, graph: Any) -> None:
    ran = graph.exec("true", secret_env={"TOKEN": "nothing"})
    with pytest.raises(SolveError, match="secret nothing: not found"):
        await build.solve(graph.definition(ran))


async def test_another_value_of_a_secret_is_no_other_step(
    client: Client, session: Session, graph: Any
) -> None:
    ran = graph.exec("busybox date +%s%N", secret_env={"TOKEN": "token"})
    texts = []
    for value in (b"one", b"two"):

        async def secrets(name: str, value: bytes = value) -> bytes | None:
            return value

        session.secrets = secrets
        async with client.build(session) as build:
            texts.append(await output(build, graph, ran))
    assert texts[0] == texts[1]


async def test_a_forwarded_socket(
    build: Build, session: Session, graph: Any, tmp_path: Path
) -> None:
    async def upper(stream: anyio.abc.ByteStream) -> None:
        async with stream:
            async for data in stream:
                await stream.send(data.upper())

    async def sockets(name: str) -> anyio.abc.ByteStream:
        if name != "upper":
            raise KeyError(name)
        return await anyio.connect_unix(tmp_path / "s")

    session.sockets = sockets
    mount = pb.Mount(
        input=-1,
        dest="/run/s",
        output=-1,
        mountType=pb.SSH,
        SSHOpt=pb.SSHOpt(ID="upper", mode=0o666),
    )
    relays = [{"listen": "127.0.0.1:8099", "socket": "/run/s"}]
    ran = graph.exec(
        "busybox seq 1 20000 > /in; echo hello | busybox nc 127.0.0.1 8099;"
        "busybox nc 127.0.0.1 8099 < /in | busybox cmp - /in && echo same",
        mounts=[mount],
        relays=relays,
    )
    listener = await anyio.create_unix_listener(tmp_path / "s")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, upper)
        assert await output(build, graph, ran) == "HELLO\nsame\n"
        group.cancel_scope.cancel()


async def test_cancelling_ends_the_container(build: Build, graph: Any) -> None:
    mark = f"{os.getpid()}.{time.monotonic_ns()}"

    def runs() -> bool:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if f"sleep\0{mark}" in path.read_text():
                    return True
            except OSError:
                continue
        return False

    task = asyncio.create_task(
        build.solve(graph.definition(graph.exec(["busybox", "sleep", mark])))
    )
    with anyio.fail_after(60):
        while not runs():
            await anyio.sleep(0.05)
    task.cancel()
    with anyio.fail_after(60):
        while runs():
            await anyio.sleep(0.01)
    assert task.cancelled()
    # The build goes on.
    assert await output(build, graph, graph.exec("echo still here")) == "still here\n"


async def test_two_clients_share_a_step_that_runs(
    running: Daemon, graph: Any, tmp_path: Path
) -> None:
    ran = graph.exec("busybox sleep 1; busybox date +%s%N")

    async def one() -> str:
        async with (
            Client.connect(running.address) as client,
            client.session() as session,
            client.build(session) as build,
        ):
            return await output(build, graph, ran)

    first, second = await asyncio.gather(one(), one())
    assert first == second


async def test_many_at_once(build: Build, graph: Any) -> None:
    texts = await asyncio.gather(
        *(output(build, graph, graph.exec(f"echo {n}")) for n in range(20))
    )
    assert texts == [f"{n}\n" for n in range(20)]


async def test_progress(client: Client, session: Session, graph: Any) -> None:
    updates: list[StatusUpdate] = []
    ran = graph.exec("echo seen; echo too >&2")
    async with client.build(session, on_status=updates.append) as build:
        await build.solve(graph.definition(ran))
    vertices = {v.digest: v for u in updates for v in u.vertexes}
    assert vertices[ran].HasField("completed")
    logs = [(log.stream, log.msg) for u in updates for log in u.logs if log.vertex == ran]
    assert sorted(logs) == [(1, b"seen\n"), (2, b"too\n")]


async def test_progress_tells_each_step_once(client: Client, session: Session, graph: Any) -> None:
    logs: list[bytes] = []

    def listen(update: StatusUpdate) -> None:
        logs.extend(entry.msg for entry in update.logs)

    root = graph.root
    async with client.build(session, on_status=listen) as build:
        for number in range(3):
            root = graph.exec(f"echo step {number}; echo {time.time_ns()} > /f", root=root)
            await build.solve(graph.definition(root))
        failing = graph.exec("echo tried; exit 1", root=root)
        for _ in range(2):
            with pytest.raises(SolveError):
                await build.solve(graph.definition(failing))
    assert logs.count(b"tried\n") == 2
    assert [logs.count(b"step %d\n" % number) for number in range(3)] == [1, 1, 1]


async def test_results_of_a_closed_build_are_gone(
    client: Client, session: Session, graph: Any
) -> None:
    async with client.build(session) as build:
        result = await build.solve(graph.definition(graph.root))
    with pytest.raises(Exception, match="ended the build"):
        await build.read_file(result.ref, "/bin/busybox")


async def test_an_image_that_is_not_there(build: Build, unused_port: int) -> None:
    with pytest.raises(SolveError) as caught:
        await build.resolve_image(f"127.0.0.1:{unused_port}/no/such:image")
    assert "127.0.0.1" in caught.value.message
    assert not isinstance(caught.value, ImageNotFound)  # nobody said that it does not exist


async def test_the_dockerfile_frontend(build: Build, graph: Any) -> None:
    files = {"/Dockerfile": b"FROM scratch\nCOPY hello /there\nENV A=b\n", "/hello": b"hi"}
    context = graph.definition(graph.files(files))
    result = await build.solve(
        frontend="dockerfile.v0", frontend_inputs={"context": context, "dockerfile": context}
    )
    assert await build.read_file(result.ref, "/there") == b"hi"
    assert b'"A=b"' in result.metadata["containerimage.config"]
    assert result.definition is not None
    assert len(getattr(result.definition, "def")) > 1


async def test_privileges_have_to_be_given(client: Client, session: Session, graph: Any) -> None:
    def privileged() -> str:
        data = graph._ops[-1]
        op = pb.Op.FromString(data)
        op.exec.security = pb.INSECURE
        return graph.add(op)

    graph.exec("busybox mount -t tmpfs none /bin && echo mounted")
    ran = privileged()
    async with client.build(session) as build:
        with pytest.raises(SolveError, match=r"security\.insecure is not allowed"):
            await build.solve(graph.definition(ran))
    async with client.build(session, entitlements=["security.insecure"]) as build:
        assert await output(build, graph, ran) == "mounted\n"


async def test_disk_usage_and_prune(client: Client, session: Session, graph: Any) -> None:
    async with client.build(session) as build:
        await build.solve(graph.definition(graph.exec("echo to be pruned > /f")))
    before = await client.disk_usage()
    assert sum(u.size for u in before) > 0
    deleted = [record async for record in client.prune(all=True)]
    assert deleted
    assert len(await client.disk_usage()) < len(before)


@pytest.fixture
def unused_port() -> int:
    return free_port()
