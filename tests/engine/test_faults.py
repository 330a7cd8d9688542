"""What breaks around the engine: each is one clear error, nothing hangs, and the next run works."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.engine.faulty import answering, cut_off, small_disk
from tests.engine.private import HELLO, PRELUDE, Private, children, process_with, until
from tests.loopback import registry as real_registry

pytestmark = [pytest.mark.embedded_only, pytest.mark.e2e]

SLEEPING = (
    PRELUDE + "async def main(): await ask(sh('exec sleep ' + sys.argv[2]).stdout())\nrun(main)"
)


@pytest.fixture
def private(tmp_path: Path, rootfs: Path) -> Iterator[Private]:
    one = Private(tmp_path / "cache", rootfs)
    yield one
    one.close()
    assert one.leftovers() == []


def asleep() -> str:
    """A time to sleep that no other process sleeps for: it finds the command among all others."""
    return f"{1000 + secrets.randbelow(9000)}.{100000 + secrets.randbelow(900000)}"


def works(private: Private) -> None:
    assert private.ask(HELLO) == [{"answer": "hello\n"}]


def is_clear(error: dict[str, Any], *words: str) -> None:
    """One error of the API, of a few lines, that says these things and nothing of our insides."""
    assert error["error"] == "QueryError", error
    message = error["message"]
    for word in words:
        assert word in message, message
    for inside in ("Traceback", "rpc error", "AioRpcError", "internal error", 'File "'):
        assert inside not in message, message
    assert len(message) < 1500, message


# -- what is killed ---------------------------------------------------------------------------


def test_the_daemon_is_killed_in_the_middle_of_a_command(private: Private) -> None:
    mark = asleep()
    running = private.start(
        PRELUDE
        + "async def main():\n"
        + "    await ask(sh('exec sleep ' + sys.argv[2]).stdout())\n"
        + "    await ask(sh('echo later').stdout())\n"
        + "run(main)",
        mark,
    )
    until(lambda: process_with("sleep", mark))
    os.kill(private.daemon, signal.SIGKILL)
    first, second = running.wait(30)
    is_clear(first, "buildkitd", "went away", "try:")
    is_clear(second, "buildkitd", "went away", "try:")
    assert "Traceback" not in running.errors
    assert process_with("sleep", mark) is None
    works(private)


def test_the_daemons_keeper_is_killed(private: Private) -> None:
    mark = asleep()
    running = private.start(SLEEPING, mark)
    until(lambda: process_with("sleep", mark))
    os.kill(private.watcher, signal.SIGKILL)
    [error] = running.wait(30)
    is_clear(error, "buildkitd", "try:")
    works(private)


def test_the_program_is_killed(private: Private) -> None:
    mark = asleep()
    running = private.start(SLEEPING, mark)
    until(lambda: process_with("sleep", mark))
    [program] = children(running.process.pid)
    os.kill(program, signal.SIGKILL)
    assert running.wait(30) == []
    assert running.status == 128 + signal.SIGKILL
    assert private.leftovers() == []
    works(private)


@pytest.mark.parametrize("asks", [True, False])
def test_buildonce_itself_is_killed(private: Private, asks: bool) -> None:
    mark = asleep()
    running = private.start(
        SLEEPING if asks else PRELUDE + "import time\ndag.version\nsay(answer=1)\ntime.sleep(3600)",
        mark,
    )
    if asks:
        until(lambda: process_with("sleep", mark))
    else:
        assert running.process.stdout
        running.process.stdout.readline()
    running.process.kill()
    running.process.wait()
    assert private.leftovers() == []
    assert process_with("sleep", mark) is None
    works(private)


# -- the registry -----------------------------------------------------------------------------

PUSH = (
    PRELUDE
    + """
async def main():
    made = sh("dd if=/dev/urandom of=/noise bs=1M count=8 2>/dev/null; echo " + sys.argv[3])
    await ask(made.publish(sys.argv[2]))
run(main)
"""
)
PULL = (
    PRELUDE
    + """
async def main():
    await ask(dag.container().from_(sys.argv[2]).rootfs().entries())
run(main)
"""
)


def test_the_registry_is_cut_in_the_middle_of_a_push(private: Private, tmp_path: Path) -> None:
    mark = asleep()
    with real_registry(tmp_path) as real:
        with cut_off(real, after=3_000_000) as address:
            [error] = private.ask(PUSH, f"{address}/cut:1", mark)
        is_clear(error, f"{address}/cut:1", "push")
        [answer] = private.ask(PUSH, f"{real}/cut:1", mark)
        assert answer["answer"].startswith(f"{real}/cut:1@sha256:")


def test_the_registry_is_cut_in_the_middle_of_a_pull(private: Private, tmp_path: Path) -> None:
    mark = asleep()
    with real_registry(tmp_path) as real:
        private.ask(PUSH, f"{real}/cut:1", mark)
        shutil.rmtree(private.cache)  # it would not have to be pulled
        with cut_off(real, after=3_000_000) as address:
            [error] = private.ask(PULL, f"{address}/cut:1")
        is_clear(error, f"{address}/cut:1")
        [answer] = private.ask(PULL, f"{real}/cut:1")
        assert "noise" in answer["answer"]


@pytest.mark.parametrize(
    ("status", "body", "promised", "words"),
    [
        (500, b"broken inside", None, ["500"]),
        (401, b'{"errors":[{"code":"UNAUTHORIZED"}]}', None, ["401", "with_registry_auth"]),
        (200, b'{"schemaVersion": 2, "con', 4000, []),
        (200, b"<html>a login page</html>", None, []),
    ],
    ids=["500", "401", "half a body", "not a manifest"],
)
def test_the_registry_answers_nonsense(
    private: Private, status: int, body: bytes, promised: int | None, words: list[str]
) -> None:
    with answering(status, body, promised=promised) as address:
        [pulled] = private.ask(PULL, f"{address}/image:1")
        is_clear(pulled, f"{address}/image:1", *words)
        if status != 200:
            [pushed] = private.ask(PUSH, f"{address}/image:1", asleep())
            is_clear(pushed, f"{address}/image:1", "push", *words)
    works(private)


# -- the disk ---------------------------------------------------------------------------------

UPLOAD = (
    PRELUDE + "async def main(): await ask(dag.host().directory(sys.argv[2]).sync())\nrun(main)"
)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk")
def test_the_disk_of_the_state_is_full(private: Private, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.mkdir()
    (large / "file").write_bytes(os.urandom(80 << 20))
    state = private.cache / "buildkit"
    with small_disk(state, 60):
        [uploaded] = private.ask(UPLOAD, str(large))
        is_clear(uploaded, "no space left on device", str(state), "try:")
        works(private)
        [written] = private.ask(
            PRELUDE
            + "async def main(): await ask(sh('dd if=/dev/zero of=/x bs=1M count=80').sync())\n"
            + "run(main)"
        )
        # Whoever meets it first: the command, or the daemon as it writes for it.
        assert "no space left on device" in written["message"].lower(), written
        works(private)
        shutil.rmtree(state / "state")
        filler = state / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        [full] = private.ask(HELLO)
        is_clear(full, "no space left on device", "try:")
        filler.unlink()
        works(private)


# -- signals ----------------------------------------------------------------------------------

BUSY = (
    PRELUDE
    + """
async def main():
    web = (base().with_new_file("/www/index.html", "x").with_exposed_port(8080)
           .with_default_args(["httpd", "-f", "-p", "8080", "-h", "/www"]).as_service())
    bound = base().with_service_binding("web", web).with_env_variable("RUN", sys.argv[4])
    await asyncio.gather(
        ask(sh("sleep 2; echo " + sys.argv[4]).stdout()),
        ask(dag.host().directory(sys.argv[2]).file("file").size()),
        ask(bound.with_exec(["wget", "-qO-", "http://web:8080/"]).stdout()),
        ask(sh("head -c 4000000 /dev/urandom > /noise; echo " + sys.argv[4])
            .publish(sys.argv[3])),
        ask(sh("exec sleep " + sys.argv[4]).stdout()),
        return_exceptions=True,
    )
run(main)
"""
)


def test_a_signal_at_any_moment_leaves_nothing(private: Private, tmp_path: Path) -> None:
    chance = random.Random(int(os.environ.get("BUILDONCE_TEST_SEED", "4")))  # noqa: S311
    with real_registry(tmp_path) as registry:
        # Twenty and more on demand: each takes some seconds.
        for number in range(int(os.environ.get("BUILDONCE_TEST_MOMENTS", "3"))):
            mark = asleep()
            uploaded = tmp_path / f"upload{number}"
            uploaded.mkdir()
            (uploaded / "file").write_bytes(os.urandom(5 << 20))
            running = private.start(BUSY, str(uploaded), f"{registry}/busy:1", mark)
            delay = chance.uniform(0.05, 6)
            time.sleep(delay)
            one = chance.choice([signal.SIGINT, signal.SIGTERM])
            running.process.send_signal(one)
            running.wait(40)
            where = f"{one.name} after {delay:.2f} s"
            assert running.status not in (0, None), where
            assert "Traceback (most recent call last)" not in running.errors or (
                "KeyboardInterrupt" in running.errors
            ), f"{where}: {running.errors}"
            assert private.leftovers() == [], where
            assert process_with("sleep", mark) is None, where
    works(private)
