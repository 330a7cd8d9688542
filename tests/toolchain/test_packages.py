"""Packages: only what is missing, and without the right to install it the command to type."""

from __future__ import annotations

import pytest

from buildonce.errors import BuildonceError
from buildonce.toolchain import packages
from buildonce.toolchain.packages import Need
from tests.toolchain.conftest import Sandbox

HAPROXY = Need("haproxy", ("haproxy",), "switching traffic", lambda: False)


@pytest.fixture
def bare(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    monkeypatch.delenv("BUILDKIT_HOST", raising=False)
    monkeypatch.setenv("PATH", str(sandbox.path))
    monkeypatch.setattr(packages, "_SEARCH", "")
    monkeypatch.setattr(packages, "CNI_FOLDERS", ())
    return sandbox


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)


def names(*, offline: bool, docker: bool) -> set[str]:
    return {need.name for need in packages.needed(offline=offline, docker=docker)}


def test_a_bare_machine_needs_all(bare: Sandbox) -> None:
    assert names(offline=True, docker=False) == {
        "runc",
        "CNI plugins",
        "iptables",
        "haproxy",
        "busybox",
        "docker-registry",
        "podman",
        "mmdebstrap",
    }


def test_docker_needs_no_podman_and_the_network_no_image_maker(bare: Sandbox) -> None:
    without = names(offline=False, docker=True)
    assert without == {"runc", "CNI plugins", "iptables", "haproxy", "busybox"}


def test_an_ordinary_user_needs_user_namespaces_or_a_remote_buildkit(
    bare: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    wanted = names(offline=False, docker=True)
    assert {"rootlesskit", "ip", "iptables"} <= wanted
    assert "CNI plugins" not in wanted
    monkeypatch.setenv("BUILDKIT_HOST", "tcp://buildkit.test:1234")
    assert "rootlesskit" not in names(offline=False, docker=True)


def test_what_is_there_is_not_installed(bare: Sandbox) -> None:
    bare.program("haproxy", "echo HAProxy version 2.6.12")
    bare.program("podman", "exit 1")
    assert not names(offline=True, docker=False) & {"haproxy", "podman"}


@pytest.mark.anyio
async def test_without_rights_the_error_is_what_an_administrator_types(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.program("apt-get", "exit 1")
    monkeypatch.setattr(packages, "_rights", lambda: None)
    with pytest.raises(BuildonceError) as caught:
        await packages.install([HAPROXY])
    assert "haproxy" in caught.value.message
    assert "apt-get install --yes --no-install-recommends haproxy" in (caught.value.remedy or "")


@pytest.mark.anyio
async def test_without_apt_the_programs_are_named(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(sandbox.path))
    with pytest.raises(BuildonceError, match="no apt-get") as caught:
        await packages.install([HAPROXY])
    assert "haproxy (switching traffic)" in (caught.value.remedy or "")


@pytest.mark.anyio
async def test_lists_are_fetched_when_old_and_again_when_an_install_fails(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = sandbox.path / "log"
    sandbox.program("apt-get", f'echo "$@" >> {log}; [ "$(wc -l < {log})" != 2 ]')
    monkeypatch.setattr(packages, "_rights", lambda: ())
    monkeypatch.setattr(packages, "_lists_are_old", lambda: True)
    monkeypatch.setattr(packages, "_POLICY", sandbox.path / "policy-rc.d")
    said = await packages.install([HAPROXY])
    assert said == "installed haproxy"
    verbs = [
        next(word for word in line.split() if word in ("update", "install"))
        for line in log.read_text("utf-8").splitlines()
    ]
    assert verbs == ["update", "install", "update", "install"]
    assert not (sandbox.path / "policy-rc.d").exists()


def test_services_are_forbidden_only_while_we_live(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess

    policy = sandbox.path / "policy-rc.d"
    monkeypatch.setattr(packages, "_POLICY", policy)
    with packages._NoServices(()):
        assert subprocess.run([policy], check=False).returncode == 101
        script = policy.read_text("utf-8")
    assert not policy.exists()
    import os

    policy.write_text(script.replace(str(os.getpid()), "999999999"), "utf-8")
    policy.chmod(0o755)
    assert subprocess.run([policy], check=False).returncode == 0


def test_a_policy_of_the_machines_own_stands(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = sandbox.path / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n", "utf-8")
    monkeypatch.setattr(packages, "_POLICY", policy)
    with packages._NoServices(()):
        pass
    assert policy.read_text("utf-8") == "#!/bin/sh\nexit 101\n"
