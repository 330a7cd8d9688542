"""The network of containers without root, in a user namespace, whoever runs the tests."""

from __future__ import annotations

import ipaddress
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from buildonce.engine.buildkit import hub
from buildonce.engine.buildkit.network import NoNetwork
from buildonce.toolchain import ensure

pytestmark = pytest.mark.anyio

WORLD = Path(__file__).with_name("hub_world.py")
APART = ["unshare", "--user", "--map-root-user", "--mount", "--net"]


@pytest.fixture
async def shim() -> Path:
    return (await ensure("shim")).path


@pytest.fixture(autouse=True)
def user_namespaces() -> None:
    if subprocess.run([*APART, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine makes no user namespaces")


@pytest.mark.e2e
async def test_what_containers_reach(shim: Path, tmp_path: Path) -> None:
    network = hub.choose(shim, tmp_path)
    [plugin] = json.loads(network.configuration(tmp_path / "addresses"))["plugins"]
    done = subprocess.run(
        [*APART, sys.executable, WORLD, shim, tmp_path, json.dumps(plugin)],
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["outside"] == "hello"
    assert told["name"] == "answer to who"
    assert told["neighbour"] == "from two"
    assert "reset" in told["closed"]
    assert "refused" in told["loopback"]
    assert told["ended"]
    one, two = (told[name]["ips"][0]["address"] for name in ("one", "two"))
    assert one != two
    subnet = ipaddress.IPv4Network(network.subnet)
    assert all(ipaddress.IPv4Interface(address).network == subnet for address in (one, two))
    assert told["before"] == sorted(address.partition("/")[0] for address in (one, two))
    assert told["after"] == [one.partition("/")[0]]
    assert (network.plugins / plugin["type"]).resolve() == shim.resolve()


async def test_what_is_missing_is_named(
    shim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NoNetwork, match="only root"):
        hub.choose(None, tmp_path)
    monkeypatch.setattr(hub, "_NEEDED", ("ip", "no-such-program"))
    with pytest.raises(NoNetwork, match="need no-such-program"):
        hub.choose(shim, tmp_path)


async def test_what_cannot_be_done_is_told(
    shim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the kernel has no module for it."""
    programs = tmp_path / "programs"
    programs.mkdir()
    refusing = programs / "iptables"
    refusing.write_text("#!/bin/sh\necho 'cannot initialize table nat' >&2; exit 3\n")
    refusing.chmod(0o755)
    (programs / "ip").symlink_to(shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin") or "")
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    with pytest.raises(NoNetwork, match=r"iptables.*cannot initialize table nat"):
        hub.choose(shim, tmp_path)
