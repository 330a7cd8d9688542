"""Building a program: once, whole or not at all, whoever asks and whatever interrupts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from buildonce.errors import BuildonceError
from buildonce.toolchain import binaries, ensure, find, golang
from buildonce.toolchain.table import OwnModule
from tests.toolchain.conftest import Sandbox

pytestmark = pytest.mark.anyio

# A `go` that takes its time and leaves a count of its calls: what is tested is what we do around
# it. The real one is in `test_building_for_real`.
SLOW_GO = """
echo . >> {calls}
while [ "$1" != -o ]; do shift; done
echo half > "$2"
sleep {seconds}
echo whole > "$2"
"""


@pytest.fixture
def shim(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> OwnModule:
    folder = sandbox.path / "sources"
    folder.mkdir()
    (folder / "go.mod").write_text("module example.invalid/shim\n\ngo 1.22\n", "utf-8")
    (folder / "main.go").write_text("package main\n\nfunc main() {}\n", "utf-8")
    module = OwnModule("shim", folder)
    monkeypatch.setattr(binaries, "OWN_MODULES", (module,))
    return module


def slow_go(sandbox: Sandbox, seconds: float) -> Path:
    """Put a Go with a VERSION file on the PATH, as an installed Go has it."""
    root = sandbox.path / "go-root"
    (root / "bin").mkdir(parents=True)
    (root / "VERSION").write_text("go1.25.3\ntime 2026-01-01T00:00:00Z\n", "utf-8")
    calls = sandbox.path / "calls"
    go = root / "bin" / "go"
    go.write_text("#!/bin/sh\n" + SLOW_GO.format(calls=calls, seconds=seconds), "utf-8")
    go.chmod(0o755)
    (sandbox.path / "go").symlink_to(go)
    return calls


def leftovers(sandbox: Sandbox) -> list[Path]:
    return list((sandbox.cache / "bin").glob(".making-*"))


async def test_it_is_built_and_then_found(sandbox: Sandbox, shim: OwnModule) -> None:
    calls = slow_go(sandbox, 0)
    built = await ensure("shim")
    assert built.origin == "built"
    assert built.path.read_text("utf-8") == "whole\n"
    again = find("shim")
    assert again is not None
    assert (again.path, again.origin) == (built.path, "cache")
    assert calls.read_text("utf-8").split() == ["."]


async def test_other_sources_another_architecture_another_go_are_other_programs(
    sandbox: Sandbox, shim: OwnModule
) -> None:
    slow_go(sandbox, 0)
    paths = {
        (await ensure("shim", goarch="amd64")).path,
        (await ensure("shim", goarch="arm64")).path,
    }
    (shim.folder / "main.go").write_text("package main\n\nfunc main() { println(1) }\n", "utf-8")
    paths.add((await ensure("shim", goarch="amd64")).path)
    (sandbox.path / "go-root" / "VERSION").write_text("go1.26.0\n", "utf-8")
    paths.add((await ensure("shim", goarch="amd64")).path)
    assert len(paths) == 4
    (shim.folder / "main_test.go").write_text("package main\n", "utf-8")
    assert (await ensure("shim", goarch="amd64")).path in paths


async def test_two_who_ask_at_once_get_one_build(sandbox: Sandbox, shim: OwnModule) -> None:
    calls = slow_go(sandbox, 0.3)
    said: list[str] = []
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(lambda: ensure("shim", progress=said.append))
    assert calls.read_text("utf-8").split() == ["."]
    assert any("waiting" in line for line in said)


async def test_a_cancelled_build_leaves_nothing_and_no_process(
    sandbox: Sandbox, shim: OwnModule
) -> None:
    calls = slow_go(sandbox, 60)
    with anyio.move_on_after(30) as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(ensure, "shim")
            while not calls.exists():
                await anyio.sleep(0.02)
            group.cancel_scope.cancel()
    assert not scope.cancelled_caught
    assert find("shim") is None
    assert leftovers(sandbox) == []
    assert not running(sandbox)


def running(sandbox: Sandbox) -> bool:
    """Whether any process on the machine has the test's folder in its command line."""
    return bool(processes(sandbox))


def processes(sandbox: Sandbox) -> list[int]:
    found = []
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(sandbox.path) in cmdline.read_text("utf-8", "replace"):
                found.append(int(cmdline.parent.name))
        except OSError:  # it has ended
            continue
    return found


async def test_a_killed_build_is_made_anew(sandbox: Sandbox, shim: OwnModule) -> None:
    calls = slow_go(sandbox, 60)
    program = (
        "import anyio, sys\n"
        "from pathlib import Path\n"
        "from buildonce.toolchain import binaries\n"
        "from buildonce.toolchain.table import OwnModule\n"
        "binaries.OWN_MODULES = (OwnModule('shim', Path(sys.argv[1])),)\n"
        "anyio.run(binaries.ensure, 'shim')\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(shim.folder)]) as process:
        deadline = time.monotonic() + 30
        while not leftovers(sandbox) or not calls.exists():
            assert time.monotonic() < deadline
            await anyio.sleep(0.02)
        process.kill()
    # The build itself outlives the SIGKILL of its parent; a test must not leave it.
    for number in processes(sandbox):
        os.kill(number, signal.SIGKILL)
    assert find("shim") is None
    go = sandbox.path / "go-root" / "bin" / "go"
    go.write_text(go.read_text("utf-8").replace("sleep 60", ""), "utf-8")
    assert (await ensure("shim")).path.read_text("utf-8") == "whole\n"
    assert leftovers(sandbox) == []


async def test_a_failed_build_tells_the_compilers_words(sandbox: Sandbox, shim: OwnModule) -> None:
    slow_go(sandbox, 0)
    go = sandbox.path / "go-root" / "bin" / "go"
    go.write_text("#!/bin/sh\necho ./main.go:3:1: undefined: nonsense >&2\nexit 1\n", "utf-8")
    with pytest.raises(BuildonceError, match="undefined: nonsense"):
        await ensure("shim")
    assert leftovers(sandbox) == []


def test_a_go_that_is_too_old_is_passed_over(sandbox: Sandbox) -> None:
    slow_go(sandbox, 0)
    assert golang.find_go((1, 25)) is not None
    (sandbox.path / "go-root" / "VERSION").write_text("go1.19.8", "utf-8")
    assert golang.find_go((1, 22)) is None


@pytest.mark.e2e
async def test_building_for_real(
    sandbox: Sandbox, shim: OwnModule, go_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A static program for another architecture, by whatever Go there is (or is fetched)."""
    monkeypatch.setenv("GOCACHE", str(go_cache))
    built = await ensure("shim", goarch="arm64")
    header = built.path.read_bytes()[:20]
    assert header[:4] == b"\x7fELF"
    assert int.from_bytes(header[18:20], "little") == 183  # EM_AARCH64


async def test_caches_are_out_of_the_way_at_once_and_deleted_behind_us(sandbox: Sandbox) -> None:
    go = sandbox.cache / "go"
    for name in ("mod", "build", ".forgotten-mod-cut-short", "toolchain-1"):
        (go / name / "deep").mkdir(parents=True)
    await golang.forget_caches()
    assert not (go / "mod").exists()
    assert not (go / "build").exists()
    with anyio.fail_after(60):
        while [path.name for path in go.iterdir()] != ["toolchain-1"]:
            await anyio.sleep(0.02)
