"""Two clean engines build the dashboard from one commit, and get the same digest.

Nothing is shared but the commit, the base image and the engine's programs: each engine begins with
an empty state, in a clone of its own that differs in what must not matter.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from buildonce import places
from buildonce.config import Config
from buildonce.toolchain import base_image
from tests.loopback import registry as serving

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
BUILD = """
import sys, anyio, dagger
from dagger import dag
from buildonce.config import Config
from buildonce.stages import build_image, publish

async def main(python: str, address: str) -> None:
    options = Config.load("ci/pipeline.toml").checks["build_image"]
    async with dagger.connection():
        source = dag.host().directory(".", gitignore=True)
        image = await build_image(source, build_args={"PYTHON_IMAGE": python}, **options)
        print(await publish(image, address))

anyio.run(main, *sys.argv[1:])
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("registry")) as address:
        yield address


@dataclass
class Machine:
    """A clone of this project, and an engine that has kept nothing yet.

    Args:
        clone: where the checkout is.
        cache: where the engine keeps its state.
        umask: of all that is done there.
        variables: more of the environment.
    """

    clone: Path
    cache: Path
    umask: int = 0o022
    variables: Mapping[str, str] = field(default_factory=dict)

    def prepare(self) -> None:
        command = ["git", "clone", "--quiet", "--depth=1", f"file://{ROOT}", str(self.clone)]
        subprocess.run(command, check=True, umask=self.umask)
        (self.clone.parent / "build.py").write_text(BUILD)
        self.cache.mkdir()
        (self.cache / "bin").symlink_to(places.cache() / "bin")

    def start(self, python: str, address: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "buildonce", "run", "--progress=plain"]
        with (self.cache / "progress").open("w") as progress:
            return subprocess.Popen(
                [*command, sys.executable, "../build.py", python, address],
                cwd=self.clone,
                env={**os.environ, "BUILDONCE_CACHE": str(self.cache), **self.variables},
                umask=self.umask,
                stdout=subprocess.PIPE,
                stderr=progress,
                text=True,
            )

    def digest(self, building: subprocess.Popen[str]) -> str:
        out, _ = building.communicate(timeout=400)
        progress = (self.cache / "progress").read_text()
        assert building.returncode == 0, progress
        assert re.search(r"RUN python3 -m pip.*: done", progress), f"it was not clean: {progress}"
        return out.strip().rpartition("@")[2]


def test_two_clean_engines_build_one_commit_alike(registry: str, tmp_path: Path) -> None:
    python = Config.load(ROOT / "ci/pipeline.toml", profile="").image("python")
    if base_image.made() is not None or os.environ.get("BUILDONCE_PROFILE") == "offline":
        python = f"{registry}/base/python:bookworm"
        anyio.run(base_image.publish, python)
    one = Machine(tmp_path / "one/checkout", tmp_path / "cache1")
    other = Machine(
        tmp_path / "a much longer way/to the/çheckout",
        tmp_path / "cache2",
        umask=0o077,
        variables={"TZ": "Asia/Kathmandu", "LC_ALL": "tr_TR.UTF-8", "PYTHONHASHSEED": "7"},
    )
    try:
        one.prepare()
        other.prepare()
        for file in other.clone.rglob("*"):
            os.utime(file, (86_400, 86_400 * 365), follow_symlinks=False)
        modes = [(machine.clone / "Dockerfile").stat().st_mode for machine in (one, other)]
        assert modes[0] != modes[1]
        builds = one.start(python, f"{registry}/app:one"), other.start(python, f"{registry}/app:2")
        digests = one.digest(builds[0]), other.digest(builds[1])
        assert digests[0] == digests[1]
        assert digests[0].startswith("sha256:")
    finally:
        for machine in (one, other):  # gigabytes, which pytest would keep
            shutil.rmtree(machine.cache, ignore_errors=True)
