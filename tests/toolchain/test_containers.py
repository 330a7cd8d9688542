"""What podman needs on a machine, decided by the machine's facts."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest

from buildonce.errors import BuildonceError
from buildonce.toolchain import containers
from buildonce.toolchain.containers import Machine, configuration, environment, podman_problem
from tests.toolchain.conftest import Sandbox

USUAL = Machine(
    root=True,
    may_raise_limits=True,
    cgroup2=True,
    runc=True,
    files=524288,
    processes=63000,
    tun=True,
    subordinate_ids=True,
)


def test_a_usual_machine_needs_nothing() -> None:
    assert configuration(USUAL) is None
    assert podman_problem(replace(USUAL, root=False)) is None


def test_without_cgroup2_runc_takes_cruns_place() -> None:
    content = configuration(replace(USUAL, cgroup2=False))
    assert tomllib.loads(content or "") == {"engine": {"runtime": "runc"}}
    assert configuration(replace(USUAL, cgroup2=False, runc=False)) is None


def test_root_without_the_right_to_raise_limits_stays_within_them() -> None:
    content = configuration(
        replace(USUAL, may_raise_limits=False, files=20000, processes=32768, cgroup2=False)
    )
    assert tomllib.loads(content or "") == {
        "engine": {"runtime": "runc"},
        "containers": {"default_ulimits": ["nofile=20000:20000", "nproc=32768:32768"]},
    }
    assert configuration(replace(USUAL, root=False, may_raise_limits=False)) is None


def test_this_machine_can_be_read() -> None:
    machine = Machine.this()
    assert machine.files > 0
    assert 0 < machine.processes <= 4194304


@pytest.mark.parametrize(
    ("machine", "remedy"),
    [
        (replace(USUAL, root=False, subordinate_ids=False), "usermod"),
        (replace(USUAL, root=False, tun=False), "chmod 0666 /dev/net/tun"),
    ],
)
def test_what_keeps_an_ordinary_user_from_it_is_named(machine: Machine, remedy: str) -> None:
    problem = podman_problem(machine)
    assert problem is not None
    assert remedy in problem[1]


def test_a_configuration_of_the_users_own_stands(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.program("podman", "exit 0")
    monkeypatch.setenv("CONTAINERS_CONF", "/etc/mine.conf")
    assert environment() == {}


@pytest.mark.anyio
async def test_neither_docker_nor_podman_says_why_not(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(sandbox.path))
    sandbox.program("docker", "echo 'permission denied: docker.sock' >&2; exit 1")
    with pytest.raises(BuildonceError) as caught:
        await containers.runtime()
    assert "permission denied: docker.sock" in caught.value.message
    assert "podman is not installed" in caught.value.message
    assert caught.value.remedy


@pytest.mark.anyio
async def test_docker_comes_first_where_its_daemon_answers(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{sandbox.path}")
    docker = sandbox.program("docker", "echo 27.1.0")
    sandbox.program("podman", "echo 5.0.0")
    runtime = await containers.runtime()
    assert (runtime.command, runtime.name, runtime.version) == ((str(docker),), "docker", "27.1.0")


@pytest.mark.anyio
async def test_podman_under_dockers_name_is_not_docker(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{sandbox.path}")
    podman = sandbox.program("podman", "echo 5.0.0")
    (sandbox.path / "docker").symlink_to(podman)
    monkeypatch.setattr(containers, "podman_problem", lambda _machine: None)
    assert (await containers.runtime()).name == "podman"
