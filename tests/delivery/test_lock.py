from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from buildonce.delivery import EnvironmentBusy
from buildonce.delivery.lock import environment_lock, holder

pytestmark = pytest.mark.anyio

HOLD = """
import sys, anyio
from pathlib import Path
from buildonce.delivery.lock import environment_lock
async def main():
    async with environment_lock(Path(sys.argv[1]), run="theirs"):
        print("held", flush=True)
        await anyio.sleep(60)
anyio.run(main)
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


async def test_the_holder_is_named_and_kill_9_frees_the_lock(tmp_path: Path) -> None:
    folder = tmp_path / "staging"
    process = hold(folder)
    with pytest.raises(EnvironmentBusy, match=f"staging .* run theirs .process {process.pid}, "):
        async with environment_lock(folder, run="mine"):
            raise AssertionError("two hold it")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert holder(folder) is None
    async with environment_lock(folder, run="mine"):
        assert "run mine" in (holder(folder) or "")
    assert holder(folder) is None


async def test_waiting_says_for_whom_and_ends_with_the_holder(tmp_path: Path) -> None:
    process = hold(tmp_path)
    said: list[str] = []

    async def wait() -> None:
        async with environment_lock(tmp_path, run="mine", wait=True, say=said.append):
            said.append("held")

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.sleep(0.5)
        assert len(said) == 1
        assert "run theirs" in said[0]
        process.kill()
    process.communicate()
    assert said[1:] == ["held"]


async def test_looking_who_holds_it_does_not_make_it_busy(tmp_path: Path) -> None:
    async def look() -> None:
        for _ in range(300):
            await anyio.to_thread.run_sync(holder, tmp_path)

    async with environment_lock(tmp_path, run="mine"):
        pass
    async with anyio.create_task_group() as group:
        group.start_soon(look)
        for _ in range(100):
            async with environment_lock(tmp_path, run="mine"):
                await anyio.lowlevel.checkpoint()
