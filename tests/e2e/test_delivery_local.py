"""Delivery with the real parts: containers, a registry, a proxy, and processes that are killed."""

from __future__ import annotations

import itertools
import json
import os
import secrets
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from buildonce.config import Config
from buildonce.delivery import ContainerRuntime
from buildonce.delivery.targets import open_leases
from buildonce.ledger import Ledger, new_run_id
from buildonce.release import Release
from tests.delivery.images import EXIT, SERVE, push
from tests.delivery.load import load
from tests.loopback import free_port
from tests.loopback import registry as serving

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a registry of our own."""
    with serving(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(scope="module")
async def runtime() -> ContainerRuntime:
    from buildonce.toolchain import containers

    found = await containers.runtime()
    return ContainerRuntime(found.command, found.env)


@pytest.fixture(scope="module")
def releases(registry: str, runtime: ContainerRuntime) -> Iterator[dict[str, Release]]:
    """Images that no earlier run has left in the runtime's store."""
    scripts = {"1": SERVE, "2": SERVE, "exits": EXIT, "sleeps": "sleep 600"}
    unique = secrets.token_hex(8)
    made = {
        version: Release(
            version=version,
            revision=f"{number:040x}",
            image=push(f"{registry}/service", script, tag=f"{unique}-{version}"),
            created=datetime(2026, 1, 1 + number, tzinfo=UTC),
            configuration=f"sha256:{0:064x}",
        )
        for number, (version, script) in enumerate(scripts.items())
    }
    yield made
    for release in made.values():
        command = [*runtime.command, "rmi", "--force", release.image.reference]
        subprocess.run(command, env={**os.environ, **runtime.env}, capture_output=True)


@dataclass
class Project:
    """A project with a staging and a production environment, used by its command line."""

    name: str
    folder: Path
    config: Config
    env: dict[str, str]
    runtime: list[str]

    @property
    def url(self) -> str:
        return self.config.environments["staging"].url

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "buildonce", *args]

    async def run(self, *args: str, code: int = 0) -> str:
        """Run a command; its stdout, or, when another code than 0 is wanted, its stderr."""
        done = await anyio.run_process(
            self.command(*args), cwd=self.folder, env=self.env, check=False
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr.decode())
        return (done.stderr if code else done.stdout).decode()

    async def json(self, *args: str) -> Any:
        return json.loads(await self.run(*args, "--json"))

    async def version(self, environment: str = "staging") -> str:
        url = self.config.environments[environment].url
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = (await client.get(f"{url}/healthz")).raise_for_status()
            version: str = answer.json()["version"]
            return version

    def podman(self, *args: str) -> str:
        command = [*self.runtime, *args]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=True)
        return done.stdout

    def containers(self, environment: str = "staging") -> list[str]:
        labels = {"project": self.name, "environment": environment}
        filters = [f"--filter=label=buildonce.{key}={value}" for key, value in labels.items()]
        return self.podman("ps", "--all", *filters, "--format={{.Names}}").split()

    async def check_one_release(self, version: str, release: Release) -> None:
        """One container runs, it answers, and runtime, service and ledger name the same digest."""
        assert await self.version() == version
        (container,) = self.containers()
        found = json.loads(self.podman("container", "inspect", container))[0]
        assert found["State"]["Running"]
        image = json.loads(self.podman("image", "inspect", found["Image"]))[0]
        assert release.image.reference in image["RepoDigests"]
        (line,) = [s for s in await self.json("status") if s["environment"] == "staging"]
        assert line["health"] == "healthy", line
        assert line["digest"] == line["recorded_digest"] == release.image.digest
        async with Ledger.open(self.config.ledger_path, read_only=True) as ledger:
            assert all(r.result is not None for r in await ledger.rollouts())


@pytest.fixture
async def project(
    tmp_path: Path,
    releases: dict[str, Release],
    runtime: ContainerRuntime,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Project]:
    monkeypatch.setenv("BUILDONCE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BUILDONCE_PROFILE", raising=False)
    name = f"test-{secrets.token_hex(3)}"
    repository = releases["1"].image.repository
    folder = tmp_path / "checkout"
    (folder / "ci").mkdir(parents=True)
    file = folder / "ci/pipeline.toml"
    file.write_text(
        textwrap.dedent(f"""\
            [project]
            name = "{name}"
            repository = "{repository}"
            [environments.staging]
            port = {free_port()}
            configuration = {{ GREETING = "hello" }}
            policy = "none"
            health_timeout = "5s"
            mount_ledger = true
            [environments.production]
            port = {free_port()}
            configuration = {{ GREETING = "good day" }}
            policy = "none"
            approval = true
            """)
    )
    config = Config.load(file)
    env = {**os.environ, **runtime.env}
    made = Project(name, folder, config, env, list(runtime.command))
    async with Ledger.open(config.ledger_path) as ledger:
        for release in releases.values():
            data = {**release.to_json(), "committed_at": release.created.isoformat()}
            await ledger.append("release.created", run=new_run_id(), data=data)
    yield made
    for environment in config.environments:
        if (tmp_path / "home" / name / "environments" / environment).exists():
            await made.run("environments", "down", environment, "--wait")
        assert made.containers(environment) == []


async def test_first_to_last_by_the_command_line(
    project: Project, releases: dict[str, Release]
) -> None:
    assert "staging runs 1" in await project.run("deploy", "staging", "--release", "1")
    await project.check_one_release("1", releases["1"])

    async with load(f"{project.url}/healthz", rate=100) as seen:
        rollout = await project.json("deploy", "staging", "--release", releases["2"].image.digest)
        await project.check_one_release("2", releases["2"])
        again = await project.json("deploy", "staging", "--release", "2")
        back = await project.json("rollback", "staging")
    assert seen.failures == []
    assert seen.requests > 200
    assert set(seen.digests) == {releases["1"].image.digest, releases["2"].image.digest}
    await project.check_one_release("1", releases["1"])
    assert (rollout["result"], back["reason"]) == ("succeeded", "rollback")
    assert [step["name"] for step in again["steps"]][-1] == "unchanged"
    assert [r["version"] for r in await project.json("history", "staging")] == ["1", "2", "2", "1"]
    assert "no earlier good release" in await project.run("rollback", "staging", code=2)


async def test_environments_share_the_image_and_nothing_else(
    project: Project, releases: dict[str, Release]
) -> None:
    await project.run("approve", "production", "--release", "1")
    await project.run("deploy", "staging", "--release", "1")
    await project.run("deploy", "production", "--release", "1")
    seen = {}
    for name, environment in project.config.environments.items():
        (container,) = project.containers(name)
        found = json.loads(project.podman("container", "inspect", container))[0]
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = (await client.get(f"{environment.url}/healthz")).json()
        seen[name] = (list(found["NetworkSettings"]["Networks"]), answer["greeting"])
        assert answer["digest"] == releases["1"].image.digest
        assert found["Config"]["User"].startswith("65532")
        (published,) = found["NetworkSettings"]["Ports"].values()
        assert {port["HostIp"] for port in published} == {"127.0.0.1"}
    assert [greeting for _, greeting in seen.values()] == ["hello", "good day"]
    for name, (networks, _) in seen.items():
        (network,) = networks
        assert network.startswith(f"buildonce-{project.name}-{name}-")


@pytest.mark.parametrize(
    ("version", "message"),
    [("exits", "cannot find the flux capacitor"), ("sleeps", "not healthy within 5 s")],
)
async def test_a_bad_release_is_rolled_back_and_its_last_words_are_shown(
    project: Project, releases: dict[str, Release], version: str, message: str
) -> None:
    await project.run("deploy", "staging", "--release", "1")
    async with load(f"{project.url}/healthz", rate=50) as seen:
        said = await project.run("deploy", "staging", "--release", version, code=3)
    assert message in said
    assert "Traceback" not in said
    assert seen.failures == []
    assert set(seen.digests) == {releases["1"].image.digest}
    await project.check_one_release("1", releases["1"])
    assert (await project.json("history", "staging"))[0]["result"] == "rolled-back"


async def test_an_image_that_the_registry_does_not_have(
    project: Project, releases: dict[str, Release]
) -> None:
    missing = releases["1"].to_json() | {"version": "9", "digest": f"sha256:{9:064x}"}
    async with Ledger.open(project.config.ledger_path) as ledger:
        data = {**missing, "committed_at": missing["created"]}
        await ledger.append("release.created", run=new_run_id(), data=data)
    said = await project.run("deploy", "staging", "--release", "9", code=3)
    assert "could not pull the image" in said
    assert project.containers() == []


KILLED = """
import os, signal, sys
import anyio
from pathlib import Path
from buildonce.config import Config
from buildonce.delivery import ContainerRuntime
from buildonce.delivery import deploy
from buildonce.ledger import Ledger, new_run_id
from buildonce.release import Release

async def main(config, release, at):
    config = Config.load(config)
    ledger = Ledger.open(config.ledger_path)
    append, count = ledger.append, 0
    async def counting(kind, *, run, data):
        nonlocal count
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        return await append(kind, run=run, data=data)
    ledger.append = counting
    release = Release.from_json(dict(await ledger.release(release)))
    await deploy(release, config.environments["staging"], project=config.project.name,
                 ledger=ledger, run=new_run_id())
    print(count)

anyio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
"""


# Before which of a deployment's events it is killed. Each costs ten seconds, and every one of them
# is tried in memory by tests/delivery/test_faults.py: here a few, or all with BUILDONCE_KILLS=all.
KILLS = (3, 4, 9, 14)


async def test_kill_9_before_an_event_leaves_one_release_and_no_lock(
    project: Project, releases: dict[str, Release]
) -> None:
    """Also while requests come in all the time: none fails."""
    config = str(project.config.path)

    async def killed(version: str, at: int) -> int:
        done = await anyio.run_process(
            [sys.executable, "-c", KILLED, config, version, str(at)],
            cwd=project.folder,
            env=project.env,
            check=False,
        )
        if done.returncode == 0:
            return int(done.stdout)
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        return -1

    await project.run("deploy", "staging", "--release", "1")
    running, ends = "1", {}
    async with load(f"{project.url}/healthz", rate=50) as seen:
        events = await killed("2", 1_000)  # which is never reached
        running = "2"
        points = range(events) if os.environ.get("BUILDONCE_KILLS") == "all" else KILLS
        for at in points:
            new = "2" if running == "1" else "1"
            assert await killed(new, at) == -1
            if at % 2:  # brought to its end by `resume`, or taken back by the next deployment
                await project.run("resume", "staging")
                version = await project.version()
                ends[at] = "stays" if version == new else "back"
                await project.check_one_release(version, releases[version])
            await project.run("deploy", "staging", "--release", new)
            await project.check_one_release(new, releases[new])
            running = new
    assert seen.failures == []
    assert events == 17
    # What had not been healthy goes, what had been is continued and stays.
    assert ends == {at: "back" if at < 8 else "stays" for at in points if at % 2}


async def test_a_signal_at_any_step_puts_the_previous_release_back(
    project: Project, releases: dict[str, Release]
) -> None:
    steps = ("pulling", "starting", "waiting for", "100 %", "smoke")
    numbers = itertools.cycle((signal.SIGINT, signal.SIGTERM))
    await project.run("deploy", "staging", "--release", "1")
    async with load(f"{project.url}/healthz", rate=50) as seen:
        for step, number in zip(steps, numbers, strict=False):
            process = start(project, "deploy", "staging", "--release", "2")
            await anyio.to_thread.run_sync(until_it_says, process, step)
            process.send_signal(number)
            _, said = await anyio.to_thread.run_sync(process.communicate)
            version = await project.version()
            # A signal may come when the smoke test has just passed: then the release stays.
            assert version == ("2" if "retiring" in said else "1"), said
            assert process.returncode == 130, said
            await project.check_one_release(version, releases[version])
            if version == "2":
                await project.run("deploy", "staging", "--release", "1")
    assert seen.failures == []


async def test_a_second_deployment_is_told_who_is_at_it_or_waits(
    project: Project, releases: dict[str, Release]
) -> None:
    await project.run("deploy", "staging", "--release", "1")
    leases = open_leases(project.config.environments["staging"], project=project.name)
    async with leases.hold("staging", run="20260101T000000Z-000000"):
        said = await project.run("deploy", "staging", "--release", "2", code=70)
        assert "is being deployed to by run 20260101T000000Z-000000" in said
        assert "--wait" in said
        status = await project.json("status")
        assert status[0]["health"] == "deploying"
        process = start(project, "deploy", "staging", "--release", "2", "--wait")
        await anyio.to_thread.run_sync(until_it_says, process, "; waiting")
    await anyio.to_thread.run_sync(process.communicate)
    assert process.returncode == 0
    await project.check_one_release("2", releases["2"])


def start(project: Project, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        project.command(*args),
        cwd=project.folder,
        env=project.env,
        stderr=subprocess.PIPE,
        text=True,
    )


def until_it_says(process: subprocess.Popen[str], words: str) -> None:
    assert process.stderr is not None
    said = ""
    while words not in said:
        line = process.stderr.readline()
        assert line, f"it ended without saying {words!r}: {said}"
        said += line


async def test_after_a_reboot(project: Project, releases: dict[str, Release]) -> None:
    await project.run("deploy", "staging", "--release", "1")
    (container,) = project.containers()
    project.podman("kill", container)
    pids = subprocess.run(
        ["pgrep", "-f", str(project.folder.parent / "home")], capture_output=True, text=True
    ).stdout.split()
    for pid in pids:
        os.kill(int(pid), signal.SIGKILL)
    status = (await project.json("status"))[0]
    assert (status["health"], status["detail"]) == ("unhealthy", "its proxy is not running")
    await project.run("resume", "staging")
    await project.check_one_release("1", releases["1"])


async def test_an_approval_is_waited_for_and_a_refusal_ends_the_deployment(
    project: Project,
) -> None:
    process = await anyio.open_process(
        project.command("deploy", "production", "--release", "1"),
        cwd=project.folder,
        env=project.env,
    )
    async with process:
        assert process.stderr is not None
        told = (await process.stderr.receive()).decode()
        assert "waiting for the approval of 1" in told
        assert "buildonce approve production --release 1" in told
        assert project.containers("production") == []
        await project.run("approve", "production", "--release", "1")
        with anyio.fail_after(60):
            assert await process.wait() == 0
    assert await project.version("production") == "1"
    await project.run("reject", "production", "--release", "2", "--reason", "too soon")
    said = await project.run("deploy", "production", "--release", "2", code=4)
    assert "refused 2 for production: too soon" in said
    assert await project.version("production") == "1"
