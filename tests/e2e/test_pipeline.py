"""This project's own pipeline, from a commit to production: engine, registry, containers, proxy.

Each test goes on where the one before it ended, as the days of a project do. Everything is in a
folder of its own but for the engine's binaries and cache.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from buildonce.errors import ExitCode
from buildonce.ledger import Event, Ledger
from buildonce.toolchain import base_image
from buildonce.toolchain.tool_images import tool_images
from tests.delivery.load import load

pytestmark = [pytest.mark.e2e]

ROOT = Path(__file__).parents[2]
BUILDONCE = [str(Path(sys.executable).parent / "buildonce")]
PIPELINE = [*BUILDONCE, "run", "--progress=plain", sys.executable, "ci/main.py"]
ENVIRONMENTS = ("staging", "production")


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for opened in sockets:
        opened.bind(("127.0.0.1", 0))
    ports = [int(opened.getsockname()[1]) for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


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
        return re.findall(r"exec (.*?)(?:: done|: failed|$)", self.progress, re.MULTILINE)

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

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            PIPELINE,
            cwd=self.root,
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, process: subprocess.Popen[str], began: float) -> Ran:
        screen, progress = process.communicate(timeout=400)
        file = self.root / "out/summary.json"
        summary = json.loads(file.read_text()) if file.exists() else {}
        return Ran(process.returncode, screen, progress, time.monotonic() - began, summary)

    def run(self) -> Ran:
        return self.end(self.start(), time.monotonic())

    def call(self, *arguments: str) -> None:
        subprocess.run(
            [*BUILDONCE, *arguments], cwd=self.root, env=self.variables, check=True,
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


def copy_project(target: Path) -> None:
    """The files that Git knows or would add, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def configure(file: Path, registry: str, ports: dict[str, int]) -> None:
    """Ports of our own, and little to check: the waits are to be the pipeline's."""
    text = file.read_text()
    for old, new in (
        ("127.0.0.1:5080", registry),
        ("port = 8101", f"port = {ports['development']}"),
        ("port = 8102", f"port = {ports['staging']}"),
        ("port = 8103", f"port = {ports['production']}"),
        ('["tests/dashboard", "tests/ledger"]', '["tests/dashboard/test_formatting.py"]'),
        ('["buildonce.dashboard", "buildonce.ledger"]', '["buildonce.dashboard.formatting"]'),
    ):
        assert old in text, f"{file} has changed: {old}"
        text = text.replace(old, new)
    for check in ("format_and_lint", "type_check"):
        text += f'\n[checks.{check}]\npaths = ["src/buildonce/dashboard"]\n'
    file.write_text(text)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    root, home = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("home")
    home.chmod(0o755)  # the dashboard's container reads the ledger as another user
    for folder in (home.parent, home.parent.parent):
        folder.chmod(folder.stat().st_mode | 0o011)
    registry, *ports = free_ports(4)
    named = dict(zip(("development", "staging", "production"), ports, strict=True))
    offline = base_image.made() is not None or os.environ.get("BUILDONCE_PROFILE") == "offline"
    variables = {
        **os.environ,
        "BUILDONCE_HOME": str(home),
        "BUILDONCE_REGISTRY_PORT": str(registry),
        **({"BUILDONCE_PROFILE": "offline"} if offline else {}),
    }
    shop = Shop(root, home, f"127.0.0.1:{registry}", named, variables)
    copy_project(root)
    configure(root / "ci/pipeline.toml", shop.registry, named)
    for arguments in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "first"]):
        shop.git(*arguments)
    shop.call("registry", "up")
    try:
        if offline:
            anyio.run(base_image.publish, f"{shop.registry}/base/python:bookworm")
            for image in tool_images(shop.registry):
                anyio.run(image.publish)
        yield shop
    finally:
        for environment in ENVIRONMENTS:
            subprocess.run(
                [*BUILDONCE, "environments", "down", environment], cwd=root, env=variables,
                capture_output=True, check=False,
            )  # fmt: skip
        shop.call("registry", "down")


@pytest.fixture(scope="module")
def shipped(shop: Shop) -> Ran:
    """The first run."""
    return shop.run().must(ExitCode.PASSED)


def test_a_commit_goes_to_production(shop: Shop, shipped: Ran) -> None:
    release = shipped.summary["release"]
    reference = f"http://{shop.registry}/v2/dashboard/manifests/{release['digest']}"
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    held = httpx.head(reference, headers=accept, trust_env=False)
    assert held.headers["docker-content-digest"] == release["digest"]
    for environment in ENVIRONMENTS:
        assert shop.digest(environment) == release["digest"]
        assert f"{shop.url(environment)}  deployed" in shipped.screen
    for stage in shipped.summary["stages"]:
        assert stage["result"] == "passed"
    for file in shipped.summary["files"]:
        assert (shop.root / file).is_file()
    assert "out/unit_tests/coverage.xml" in shipped.summary["files"]
    assert [e.data["result"] for e in shop.events() if e.kind == "run.finished"] == ["passed"]


def test_development_is_never_deployed_by_the_pipeline(shop: Shop, shipped: Ran) -> None:
    touched = {e.data["environment"] for e in shop.events() if e.kind == "rollout.started"}
    assert touched == set(ENVIRONMENTS)


def test_the_same_commit_again_runs_nothing(shop: Shop, shipped: Ran) -> None:
    again = shop.run().must(ExitCode.PASSED)
    assert again.executed == []
    assert set(again.cached.values()) == {True}
    assert again.summary["release"]["digest"] == shipped.summary["release"]["digest"]
    assert not any(rollout["changed"] for rollout in again.summary["rollouts"])


def test_a_change_of_no_source_runs_no_check_again(shop: Shop, shipped: Ran) -> None:
    shop.commit("CONTRIBUTING.md", "\nOne more line.\n")
    ran = shop.run().must(ExitCode.PASSED)
    commit = [check["check"] for check in ran.summary["stages"][0]["checks"]]
    commit.remove("secrets")  # a commit is searched, whatever it changes
    assert {name: ran.cached[name] for name in commit} == dict.fromkeys(commit, True)
    assert ran.summary["release"]["digest"] == shipped.summary["release"]["digest"]


def test_one_line_of_the_dashboard_goes_to_production_without_a_failed_request(
    shop: Shop, shipped: Ran
) -> None:
    before = shop.digest("production")
    # A line that this machine's engine has never seen: it keeps what earlier runs have made.
    shop.commit("src/buildonce/dashboard/formatting.py", f"\n\nANSWER = {time.time_ns()}\n")

    async def deliver() -> tuple[Ran, list[str], list[str]]:
        async with load(f"{shop.url('production')}/healthz", rate=50) as seen:
            ran = await anyio.to_thread.run_sync(shop.run)
        return ran, seen.failures, seen.order

    ran, failures, order = anyio.run(deliver)
    ran.must(ExitCode.PASSED)
    after = ran.summary["release"]["digest"]
    assert failures == []
    assert order == [before, after]
    assert shop.digest("staging") == shop.digest("production") == after != before
    # Dependencies are not installed again, neither for the tools nor in the image.
    assert not [command for command in ran.executed if "pip install" in command]
    assert ran.cached["unit_tests"] is False


def test_a_failing_unit_test_is_named_and_nothing_leaves(shop: Shop, shipped: Ran) -> None:
    before = {name: shop.digest(name) for name in ENVIRONMENTS}
    tags, rollouts = shop.tags(), [e for e in shop.events() if e.kind == "rollout.started"]
    test = "\n\ndef test_broken_on_purpose() -> None:\n    assert formatting.duration(1) == ''\n"
    shop.commit("tests/dashboard/test_formatting.py", test)
    ran = shop.run().must(ExitCode.CHECK_FAILED)
    named = "tests/dashboard/test_formatting.py::test_broken_on_purpose"
    assert named in "\n".join(ran.screen.splitlines()[-10:])
    assert "nothing was pushed, nothing was deployed" in ran.screen
    assert "Traceback" not in ran.screen
    assert shop.tags() == tags
    assert [e for e in shop.events() if e.kind == "rollout.started"] == rollouts
    assert {name: shop.digest(name) for name in ENVIRONMENTS} == before
    # The tests alone have changed: types and image are as they were.
    assert ran.cached["type_check"] is True
    # What failed is tried again, although the engine has kept it.
    again = shop.run().must(ExitCode.CHECK_FAILED)
    assert again.cached["unit_tests"] is False
    shop.git("revert", "--no-edit", "HEAD")


def test_a_failing_smoke_test_puts_staging_back_and_leaves_production(
    shop: Shop, shipped: Ran
) -> None:
    before = {name: shop.digest(name) for name in ENVIRONMENTS}
    home = "async def home(request: Request) -> Response:\n    settings = settings_of(request)\n"
    broken = (
        '    if settings.environment == "staging":\n'
        '        raise RuntimeError("broken on purpose")\n'
    )
    shop.commit("src/buildonce/dashboard/pages.py", home + broken, replacing=home)
    ran = shop.run().must(ExitCode.ROLLED_BACK)
    assert "rolled back" in ran.screen
    assert "500" in ran.screen
    assert {name: shop.digest(name) for name in ENVIRONMENTS} == before
    ends = [e.data for e in shop.events() if e.kind == "rollout.finished"]
    assert ends[-1]["result"] == "rolled-back"
    assert ends[-1]["environment"] == "staging"
    assert ends[-1]["digest"] == before["staging"]
    assert shop.events()[-1].data["result"] == "rolled-back"
    shop.git("revert", "--no-edit", "HEAD")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_so_and_the_next_one_passes(
    shop: Shop, shipped: Ran, number: signal.Signals
) -> None:
    shop.commit("tests/dashboard/test_formatting.py", f"\n# {number.name}\n")
    began, runs = time.monotonic(), shop.runs()
    process = shop.start()
    # Before that, Python is loading modules and there is nothing to put back.
    while shop.runs() == runs and process.poll() is None:
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(number)
    ran = shop.end(process, began)
    assert ran.code == ExitCode.INTERRUPTED, ran.screen + ran.progress
    assert "Traceback" not in ran.screen + ran.progress
    assert shop.events()[-1].data["result"] == "interrupted"
    shop.run().must(ExitCode.PASSED)


ALONE = """
import anyio, dagger, sys
from dagger import dag
from buildonce.stages import python_environment, unit_tests

async def main() -> None:
    async with dagger.connection():
        source = dag.host().directory(".", gitignore=True)
        tools = python_environment(
            dag.container().from_(sys.argv[1]), source.file("requirements/dev.txt"))
        tests = ["tests/dashboard/test_formatting.py"]
        print((await unit_tests(source, tools, paths=tests)).summary)

anyio.run(main)
"""


def test_a_stage_is_of_use_alone(shop: Shop, shipped: Ran) -> None:
    from buildonce.config import Config

    config = Config.load(
        shop.root / "ci/pipeline.toml", profile=shop.variables.get("BUILDONCE_PROFILE")
    )
    (shop.root / "alone.py").write_text(ALONE)
    done = subprocess.run(
        [*BUILDONCE, "run", sys.executable, "alone.py", config.image("python")],
        cwd=shop.root, env=shop.variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d+ tests passed, coverage", done.stdout)
