"""A cache that outlives the machine: a runner that starts empty finds what an earlier one made."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import anyio
import pytest

from buildonce.toolchain import ensure
from tests import loopback

pytestmark = [pytest.mark.embedded_only, pytest.mark.e2e]

PROGRAM = """
import anyio, dagger, sys
from dagger import dag

async def main():
    async with dagger.connection():
        root = dag.host().directory(sys.argv[1])
        base = dag.container().with_rootfs(root).with_env_variable("PATH", "/bin")
        made = base.with_exec(["sh", "-c", f"echo {sys.argv[2]}; cat /proc/sys/kernel/random/uuid"])
        print(await made.stdout())

anyio.run(main)
"""


def run(cache: Path, configuration: str, rootfs: Path, salt: str) -> str:
    """What the program prints on a machine whose own cache is `cache`."""
    cache.mkdir(exist_ok=True)
    program = cache / "program.py"
    program.write_text(PROGRAM)
    (cache / "pipeline.toml").write_text(configuration)
    environment = dict(os.environ, BUILDONCE_CONFIG=str(cache / "pipeline.toml"))
    for name in ("buildkitd", "shim"):
        environment[f"BUILDONCE_{name.upper()}"] = str(anyio.run(ensure, name).path)
    environment["BUILDONCE_CACHE"] = str(cache / "own")
    command = [str(Path(sys.executable).parent / "buildonce"), "run", "--progress", "quiet"]
    done = subprocess.run(
        [*command, sys.executable, str(program), str(rootfs), salt],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ["registry", "folder"])
def test_a_fresh_machine_starts_warm(kind: str, rootfs: Path, tmp_path: Path) -> None:
    salt = uuid.uuid4().hex
    with loopback.registry(tmp_path / "registry") as host:
        place = f'registry = "{host}/cache"' if kind == "registry" else f'folder = "{tmp_path}/c"'
        configuration = f"[engine.cache]\n{place}\n"
        first = run(tmp_path / "one", configuration, rootfs, salt)
        second = run(tmp_path / "two", configuration, rootfs, salt)
        # The identifier is random: the same again means that the command did not run again. (Of
        # commands on commands BuildKit does not always export every link, seen under load.)
        assert second == first
        third = run(tmp_path / "three", "", rootfs, salt)
        assert third != first


def test_pull_requests_only_read(rootfs: Path, tmp_path: Path) -> None:
    salt = uuid.uuid4().hex
    configuration = f'[engine.cache]\nfolder = "{tmp_path}/c"\nexport = false\n'
    run(tmp_path / "one", configuration, rootfs, salt)
    assert not (tmp_path / "c" / "index.json").exists()
