"""A copy of this project that ships for itself: its own registry, environments and ledger.

    with opened_shop(folder) as shop:
        shop.commit("src/buildonce/dashboard/pages.py", "# a line")
        ran = shop.run().must(ExitCode.PASSED)      # buildonce run python ci/main.py

Everything is in its folder but for the engine's programs and cache. For the tests of this
project's pipeline, and for benchmarks/commit_stage.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx

from buildonce.ledger import Event, Ledger
from buildonce.toolchain import base_image
from buildonce.toolchain.tool_images import tool_images
from tests.loopback import free_port

ROOT = Path(__file__).parents[2]
BUILDONCE = [str(Path(sys.executable).parent / "buildonce")]
PIPELINE = [*BUILDONCE, "run", "--progress=plain", sys.executable, "ci/main.py"]


@dataclass
class Ran:
    """A run of the pipeline: exit code, last screen, progress, seconds, and summary.json."""

    code: int
    screen: str
    progress: str
    seconds: float
    summary: dict[str, Any]

    @property
    def executed(self) -> list[str]:
        """The commands that containers ran."""
        return re.findall(r"(?:exec|] RUN) (.*?)(?:: done|: failed|$)", self.progress, re.MULTILINE)

    @property
    def installed(self) -> list[str]:
        """Those of them that install packages, for a check or in the image."""
        return [command for command in self.executed if "install" in command]

    @property
    def cached(self) -> dict[str, bool | None]:
        """For each check, whether it was cached."""
        stages = self.summary["stages"]
        return {check["check"]: check["cached"] for stage in stages for check in stage["checks"]}

    def must(self, code: int) -> Ran:
        assert self.code == code, f"{self.screen}\n{self.progress[-4000:]}"
        return self


@dataclass
class Shop:
    """A copy of this project with a registry and environments of its own."""

    root: Path
    home: Path
    registry: str
    ports: dict[str, int]
    variables: dict[str, str]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*PIPELINE, *arguments],
            cwd=self.root,
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, process: subprocess.Popen[str], began: float) -> Ran:
        screen, progress = process.communicate(timeout=1200)
        file = self.root / "out/summary.json"
        summary = json.loads(file.read_text()) if file.exists() else {}
        return Ran(process.returncode, screen, progress, time.monotonic() - began, summary)

    def run(self, *arguments: str) -> Ran:
        return self.end(self.start(*arguments), time.monotonic())

    def call(self, *arguments: str, check: bool = True) -> None:
        subprocess.run(
            [*BUILDONCE, *arguments], cwd=self.root, env=self.variables, check=check,
            capture_output=True,
        )  # fmt: skip

    def commit(self, file: str, text: str, replacing: str | None = None) -> None:
        """Append to a file, or replace a text in it, and commit."""
        path = self.root / file
        old = path.read_text()
        assert replacing is None or replacing in old
        path.write_text(old + text if replacing is None else old.replace(replacing, text, 1))
        self.git("commit", "--quiet", "--all", "--message=change")

    def git(self, *arguments: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.test"]
        subprocess.run(["git", *identity, *arguments], cwd=self.root, check=True)

    def url(self, environment: str) -> str:
        return f"http://127.0.0.1:{self.ports[environment]}"

    def digest(self, environment: str) -> str:
        """The digest that answers there."""
        health = httpx.get(f"{self.url(environment)}/healthz", trust_env=False)
        return str(health.raise_for_status().json()["digest"])

    def tags(self) -> set[str]:
        """What was ever pushed."""
        answer = httpx.get(f"http://{self.registry}/v2/dashboard/tags/list", trust_env=False)
        return set(answer.json().get("tags") or ())

    def events(self) -> list[Event]:
        async def read() -> list[Event]:
            path = self.home / "dashboard" / "ledger.sqlite"
            async with Ledger.open(path, read_only=True) as ledger:
                return await ledger.events()

        return anyio.run(read)

    def runs(self) -> int:
        """How many runs the ledger knows."""
        return sum(event.kind == "run.started" for event in self.events())


@contextmanager
def opened_shop(
    folder: Path,
    *,
    configured: Callable[[str], str] = str,
    history: bool = False,
    variables: Mapping[str, str] | None = None,
) -> Iterator[Shop]:
    """A shop in an empty folder, until the body ends.

    Args:
        folder: all that it keeps is below.
        configured: gets the text of ci/pipeline.toml, and gives the one to use.
        history: a clone of the last commit with all before it; else the files as they are now.
        variables: more of the environment.
    """
    root, home = folder / "project", folder / "home"
    home.mkdir(mode=0o755)  # the dashboard's container reads the ledger as another user
    for above in (folder, folder.parent):
        above.chmod(above.stat().st_mode | 0o011)
    port = free_port()
    registry = f"127.0.0.1:{port}"
    offline = base_image.made() is not None or os.environ.get("BUILDONCE_PROFILE") == "offline"
    environment = {
        **os.environ,
        "BUILDONCE_HOME": str(home),
        "BUILDONCE_REGISTRY_PORT": str(port),
        **({"BUILDONCE_PROFILE": "offline"} if offline else {}),
        **(variables or {}),
    }
    _copy(root, history)
    file = root / "ci/pipeline.toml"
    text, ports = _with_own_places(file.read_text(), registry)
    file.write_text(configured(text))
    shop = Shop(root, home, registry, ports, environment)
    shop.git("add", "--all")
    shop.git("commit", "--quiet", "--message=places of its own")
    shop.call("registry", "up")
    try:
        if offline:
            anyio.run(base_image.publish, f"{registry}/base/python:bookworm")
            for image in tool_images(registry):
                anyio.run(image.publish)
        yield shop
    finally:
        for name in ports:
            shop.call("environments", "down", name, check=False)
        shop.call("registry", "down")


def _copy(target: Path, history: bool) -> None:
    if history:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(target)], check=True)
        return
    subprocess.run(["git", "init", "--quiet", str(target)], check=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def _with_own_places(text: str, registry: str) -> tuple[str, dict[str, int]]:
    """The configuration with another registry and free ports."""
    table = re.compile(r"^(\[environments\.(\w+)\]\nport = )\d+$", re.MULTILINE)
    names = [found[2] for found in table.finditer(text)]
    assert names and text.count("\nport = ") == len(names), "the form of [environments] has changed"
    ports = {name: free_port() for name in names}
    text = table.sub(lambda found: f"{found[1]}{ports[found[2]]}", text)
    return text.replace("127.0.0.1:5080", registry), ports
