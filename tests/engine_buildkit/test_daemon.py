"""One daemon for all, gone without a trace when nobody uses it."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from buildonce.engine.buildkit import Client, DaemonGone, SolveError, daemon, network
from buildonce.engine.buildkit.daemon import Daemon
from buildonce.engine.buildkit.daemon_setup import CannotStart, DaemonConfig, Place

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

USER = """
import anyio, pathlib, sys
from buildonce.engine.buildkit import daemon
async def main():
    async with daemon.start(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])) as running:
        print(running.pid, flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "daemon"
    assert not traces(tmp_path / "daemon")


def processes(folder: Path) -> list[int]:
    """Daemons, watchers, runc: all that work for a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_text()
        except OSError:
            continue
        if str(folder) in text and USER not in text:
            found.append(int(path.parent.name))
    return found


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()[1])


def traces(folder: Path) -> list[str]:
    """What a daemon of `folder` has left on this machine."""
    bridge = Place(folder, None).tag if folder.exists() else "none"
    left = [f"process {number}" for number in processes(folder)]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    left += [line for line in mounts if str(folder) in line or f"-{bridge}/" in line]
    left += [str(p) for p in Path(tempfile.gettempdir()).glob(f"buildonce-*-{bridge}")]
    left += [str(p) for p in Path("/sys/fs/cgroup").glob(f"*/buildonce-{bridge}")]
    left += [str(p) for p in Path("/sys/fs/cgroup").glob(f"buildonce-{bridge}")]
    return left


async def until(condition: Callable[[], object], seconds: float = 60) -> None:
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.02)


def start_user(buildkitd: Path, folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    user = subprocess.Popen(
        [sys.executable, "-c", USER, str(buildkitd), str(folder)], stdout=subprocess.PIPE
    )
    assert user.stdout is not None
    line = user.stdout.readline()
    if not line:
        pytest.fail("the user of a daemon has failed")
    return user, int(line)


async def test_start_and_stop(buildkitd: Path, folder: Path) -> None:
    async with daemon.start(buildkitd, folder) as running:
        assert running.started
        assert running.log.exists()
        async with Client.connect(running.address) as client:
            assert (await client.info()).workers
        if running.network == "bridge":
            bridge = Path("/sys/class/net", network.choose(str(folder)).name)
            assert bridge.exists()
    assert not traces(folder)
    assert running.network != "bridge" or not bridge.exists()
    # And once more in the same place.
    async with daemon.start(buildkitd, folder) as running:
        assert running.started


async def test_shared_by_processes(buildkitd: Path, folder: Path) -> None:
    one, first = start_user(buildkitd, folder)
    two, second = start_user(buildkitd, folder)
    assert first == second
    one.kill()
    one.wait()
    await anyio.sleep(0.3)
    async with daemon.start(buildkitd, folder) as running:
        assert running.pid == first
        assert not running.started
    two.kill()
    two.wait()
    await until(lambda: not traces(folder))


async def test_many_start_at_once(buildkitd: Path, folder: Path) -> None:
    async def use() -> int:
        async with daemon.start(buildkitd, folder) as running:
            await anyio.sleep(0.5)
            return running.pid

    assert len(set(await asyncio.gather(*(use() for _ in range(5))))) == 1


async def test_daemons_of_several_folders_share_nothing(buildkitd: Path, folder: Path) -> None:
    async def use(name: str) -> set[str]:
        place = folder / name
        async with daemon.start(buildkitd, place) as running:
            return sockets(running.pid) - {str(place / "buildkitd.sock")}

    first, second = await asyncio.gather(use("a"), use("b"))
    assert first
    assert not first & second


def sockets(pid: int) -> set[str]:
    """Paths of the sockets that a process has made."""
    own = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed
            own.add(str(entry.readlink()))
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return {line[7] for line in lines if len(line) > 7 and f"socket:[{line[6]}]" in own}


@pytest.mark.parametrize("victim", ["user", "daemon", "watcher and user"])
async def test_whoever_is_killed_nothing_is_left(
    buildkitd: Path, folder: Path, graph: Any, victim: str
) -> None:
    user, pid = start_user(buildkitd, folder)
    watcher = parent_of(pid)
    address = f"unix://{folder}/buildkitd.sock"
    ran = graph.exec(["busybox", "sleep", "1000"])

    idle = len(processes(folder))

    def working() -> bool:
        return len(processes(folder)) > idle  # runc works for the command

    async with (
        Client.connect(address) as client,
        client.session() as session,
    ):

        async def solve() -> BaseException | None:
            try:
                async with client.build(session) as build:
                    await build.solve(graph.definition(ran))
            except Exception as error:
                return error
            return None

        task = asyncio.create_task(solve())
        await until(working)
        if victim == "daemon":
            os.kill(pid, signal.SIGKILL)
        elif victim == "user":
            user.kill()
        else:
            os.kill(watcher, signal.SIGKILL)
            user.kill()
            await until(lambda: pid not in processes(folder))  # who comes sooner may still meet it
            # The next one to come cleans up: the old daemon waits for its step, which we keep.
            async with daemon.start(buildkitd, folder) as running:
                assert running.started
                assert running.pid != pid
        error = await asyncio.wait_for(task, 30)
        assert isinstance(error, DaemonGone | SolveError), repr(error)
        if victim != "user":
            assert isinstance(error, DaemonGone)
            assert "went away" in str(error)
    user.kill()
    user.wait()
    await until(lambda: not traces(folder))


async def test_whatever_ends_it_meanwhile_it_cleans_up(buildkitd: Path, folder: Path) -> None:
    for _ in range(3):
        user, pid = start_user(buildkitd, folder)
        watcher = parent_of(pid)
        # All that ends a watcher at one time: signals, the daemon's end and that of the last user.
        os.kill(pid, signal.SIGKILL)
        user.kill()
        with suppress(ProcessLookupError):
            for _ in range(2000):
                os.kill(watcher, signal.SIGTERM)
                os.sched_yield()
        user.wait()
        await until(lambda: not traces(folder), 30)


async def test_a_daemon_that_cannot_start(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'this is the reason' >&2\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(CannotStart) as caught:
        with anyio.fail_after(20):  # sooner than a silent one is given up
            async with daemon.start(broken, folder):
                pass
    assert "this is the reason" in str(caught.value)
    assert "buildonce doctor" in str(caught.value)


async def test_another_configuration(buildkitd: Path, folder: Path) -> None:
    async with daemon.start(buildkitd, folder):
        with pytest.raises(CannotStart, match="another configuration"):
            async with daemon.start(buildkitd, folder, config=DaemonConfig(keep_bytes=10**9)):
                pass


async def test_on_the_host_s_network(buildkitd: Path, folder: Path, graph: Any) -> None:
    config = DaemonConfig(isolate=False)
    async with daemon.start(buildkitd, folder, config=config) as running:
        assert running.network == "host"
        assert running.network_reason
        async with (
            Client.connect(running.address) as client,
            client.session() as session,
            client.build(session) as build,
        ):
            result = await build.solve(graph.definition(graph.exec("echo fine"), 1))
            assert await build.read_file(result.ref, "/o/stdout") == b"fine\n"


async def test_a_deep_folder(buildkitd: Path, tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 60) / ("y" * 60)
    async with daemon.start(buildkitd, deep) as running:
        assert len(running.address) < 120


async def test_commands_have_a_network_of_their_own(
    running: Daemon, build: Any, graph: Any
) -> None:
    if running.network != "bridge":
        pytest.skip(f"containers share this machine's network: {running.network_reason}")
    script = "busybox ip -4 -o addr; busybox ip route; busybox cat /etc/resolv.conf"
    result = await build.solve(graph.definition(graph.exec(script), 1))
    text = (await build.read_file(result.ref, "/o/stdout")).decode()
    assert f"default via {running.gateway}" in text
    assert "nameserver" in text
    addresses = [
        word.split("/")[0] for word in text.split() if word.count(".") == 3 and "/" in word
    ]
    assert any(ipaddress.ip_address(a) in ipaddress.ip_network(running.subnet) for a in addresses)


def test_a_subnet_that_nothing_else_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    first = network.free_subnet("one")
    used = [ipaddress.IPv4Network(first)]
    monkeypatch.setattr(network, "_routes", lambda: iter(used))
    second = network.free_subnet("one")
    assert not ipaddress.IPv4Network(first).overlaps(ipaddress.IPv4Network(second))
    everything = [ipaddress.IPv4Network("10.0.0.0/8")]
    monkeypatch.setattr(network, "_routes", lambda: iter(everything))
    with pytest.raises(network.NoNetwork):
        network.free_subnet("one")
