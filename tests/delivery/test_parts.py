"""The smoke probe, the state file, the runtime's command line, the proxy's socket."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from buildonce.delivery import ContainerRuntime, SmokeFailed, TargetFailed, WrongDigest, http_smoke
from buildonce.delivery import state as states
from buildonce.delivery.containers import (
    ContainerSpec,
    RuntimeContainers,
    _time,
    detect_runtime,
)
from buildonce.delivery.errors import DeliveryError
from buildonce.delivery.proxy_configuration import Slot
from buildonce.delivery.state import Instance, State
from tests.samples import release

from .processes import SERVICE

pytestmark = pytest.mark.anyio

ONE = release("1")


@pytest.fixture
def service(unused_port: int) -> Iterator[str]:
    env = {
        "PORT": str(unused_port),
        "BUILDONCE_DIGEST": ONE.image.digest,
        "BUILDONCE_VERSION": "1",
        "BREAK": "unhealthy",
    }
    process = subprocess.Popen([sys.executable, "-S", str(SERVICE)], env=env)
    yield f"http://127.0.0.1:{unused_port}"
    process.kill()
    process.wait()


async def test_smoke_wants_200_and_the_digest(service: str) -> None:
    await http_smoke("/", attempts=10)(service)
    await http_smoke("/", digest=ONE.image.digest)(service)
    with pytest.raises(SmokeFailed, match="/healthz answered 500, not 200: "):
        await http_smoke("/healthz")(service)
    with pytest.raises(SmokeFailed, match=f"by digest {ONE.image.digest}, not sha256:0000"):
        await http_smoke("/", digest=f"sha256:{0:064x}")(service)


async def test_smoke_of_nobody(unused_port: int) -> None:
    with pytest.raises(SmokeFailed, match="got no answer in 1 attempts"):
        await http_smoke(attempts=1)(f"http://127.0.0.1:{unused_port}")


def instance(port: int) -> Instance:
    return Instance(
        container=f"shop-{port}",
        rollout="r",
        port=port,
        release=ONE,
        fingerprint="f",
        env={"A": "b"},
        mounts={},
        started=datetime(2026, 1, 1, tzinfo=UTC),
    )


def test_state_is_kept_and_moves_from_candidate_to_finished(tmp_path: Path) -> None:
    state = State().with_candidate("a", instance(1)).finished()
    assert state.traffic() == {"a": Slot(1, 100, standby=True), "b": Slot(None)}
    state = state.with_candidate(state.free, instance(2))
    assert state.traffic() == {"a": Slot(1, 100, standby=True), "b": Slot(2, 0)}
    states.write(tmp_path, state)
    assert states.read(tmp_path) == state
    state = state.finished()
    assert state.leftover == "a"
    assert state.traffic() == {"a": Slot(1, 0), "b": Slot(2, 100, standby=True)}
    assert state.traffic(hide="a")["a"] == Slot(None)
    assert state.without("a").leftover is None


@pytest.mark.parametrize("content", ["", "{}", '{"schema": 99}', "[]"])
def test_a_damaged_state_is_named_with_its_remedy(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(DeliveryError, match=r"state\.json cannot be read") as error:
        states.read(tmp_path)
    assert "environments down" in (error.value.remedy or "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-21T09:07:57.824172948Z", datetime(2026, 11, 21, 9, 7, 57, 824172, UTC)),
        ("2026-11-21T10:07:57.5+01:00", datetime(2026, 11, 21, 9, 7, 57, 500000, UTC)),
        ("2026-11-21T09:07:57Z", datetime(2026, 11, 21, 9, 7, 57, tzinfo=UTC)),
        ("never", datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_times_of_the_runtime(text: str, expected: datetime) -> None:
    assert _time(text) == expected


FAKE = """\
#!{python} -S
import json, os, sys
with open({log!r}, "a") as log:
    log.write(json.dumps([sys.argv[1:], os.environ.get("TOKEN")]) + "\\n")
if sys.argv[1] in ("ps", "version"):
    sys.exit({works})
if sys.argv[1:3] == ["image", "inspect"]:
    print(json.dumps([{{"RepoDigests": {digests}}}]))
"""


def fake(folder: Path, name: str, *, digests: list[str] | None = None, works: int = 0) -> Path:
    """A runtime that writes down how it was called."""
    program = folder / name
    log = str(folder / f"{name}.log")
    program.write_text(
        FAKE.format(python=sys.executable, log=log, digests=json.dumps(digests or []), works=works)
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def calls(program: Path) -> list[tuple[list[str], str | None]]:
    lines = program.with_name(f"{program.name}.log").read_text().splitlines()
    return [(args, token) for args, token in map(json.loads, lines)]


async def test_configuration_is_not_on_the_command_line(tmp_path: Path) -> None:
    program = fake(tmp_path, "podman")
    spec = ContainerSpec(
        name="shop",
        image=ONE.image,
        network="net",
        port=20001,
        env={"TOKEN": "hush", "PATH": "/bin"},
        labels={},
    )
    await RuntimeContainers(ContainerRuntime((str(program),))).start(spec)
    ((args, token),) = calls(program)
    assert "hush" not in " ".join(args)
    assert token == "hush"
    assert "--env=PATH=/bin" in args, "what the runtime itself heeds must not change it"
    assert args[-1] == ONE.image.reference
    assert "--publish=127.0.0.1:20001:8080" in args


async def test_another_digest_than_asked_for_is_refused(tmp_path: Path) -> None:
    other = f"{ONE.image.repository}@sha256:{0:064x}"
    podman = fake(tmp_path, "podman", digests=[other])
    with pytest.raises(WrongDigest, match="does not hold that digest"):
        await RuntimeContainers(ContainerRuntime((str(podman),))).pull(ONE.image)
    pulls = [args for args, _ in calls(podman) if args[0] == "pull"]
    assert pulls == [["pull", "--quiet", "--tls-verify=false", ONE.image.reference]]
    docker = fake(tmp_path, "docker", digests=[other])
    with pytest.raises(WrongDigest):
        await RuntimeContainers(ContainerRuntime((str(docker),))).pull(ONE.image)
    pulls = [args for args, _ in calls(docker) if args[0] == "pull"]
    assert pulls == [["pull", "--quiet", ONE.image.reference]]


async def test_a_network_is_tried_again_where_others_take_their_interfaces_away(
    tmp_path: Path,
) -> None:
    program = tmp_path / "podman"
    program.write_text(
        f"#!/bin/sh\necho $2 >> {tmp_path}/calls\n"
        '[ "$2" = inspect ] && { echo "no such network" >&2; exit 1; }\n'
        f"[ $(grep -c create {tmp_path}/calls) -gt 2 ] && exit 0\n"
        'echo "Error: route ip+net: no such network interface" >&2; exit 125\n'
    )
    program.chmod(0o755)
    await RuntimeContainers(ContainerRuntime((str(program),))).network("shop")
    tried = (tmp_path / "calls").read_text().split()
    assert tried == ["inspect", "create"] * 3


async def test_a_missing_runtime_is_named(tmp_path: Path) -> None:
    gone = RuntimeContainers(ContainerRuntime((str(tmp_path / "podman"),)))
    with pytest.raises(TargetFailed, match="cannot be run: No such file") as error:
        await gone.pull(ONE.image)
    assert error.value.remedy == "buildonce doctor"


async def test_the_runtime_that_answers_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("BUILDONCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CONTAINERS_CONF", raising=False)
    with pytest.raises(TargetFailed, match=r"docker is not installed; podman is not installed"):
        await detect_runtime()
    fake(tmp_path, "docker", works=1)
    podman = fake(tmp_path, "podman")
    assert await detect_runtime() == ContainerRuntime((str(podman),))
    conf = tmp_path / "cache/containers.conf"
    conf.write_text("")
    assert (await detect_runtime()).env == {"CONTAINERS_CONF": str(conf)}
    docker = fake(tmp_path, "docker")
    assert await detect_runtime() == ContainerRuntime((str(docker),))
