"""The network of the containers of a daemon that is not root: a bridge of their own, in a network
namespace that no packet leaves. A process of ours carries their connections out of it, see
`engine/shim/hub.go`; addresses of containers are not reached from this machine.

    hub = choose(shim, folder)
    command = [*rootlesskit, *hub.command, "buildkitd", …]
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from buildonce.engine.buildkit.network import PROGRAMS, NoNetwork, free_subnet, gateway_of

_BRIDGE = "hub"
_NEEDED = ("ip", "iptables")
_PLUGINS = ("buildonce-hub", "loopback")  # names under which the shim is a CNI plugin
_TRYING = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Hub:
    """A network for containers.

    Attributes:
        shim: the program that makes it.
        folder: of the daemon.
        subnet: such as "10.208.16.0/20".
    """

    shim: Path
    folder: Path
    subnet: str

    @property
    def plugins(self) -> Path:
        """Folder of the CNI plugins."""
        return self.folder / "plugins"

    @property
    def settings(self) -> dict[str, str]:
        """What the shim needs to know."""
        size = self.subnet.partition("/")[2]
        return {
            "namespace": str(self.folder / "hub.netns"),
            "bridge": _BRIDGE,
            "gateway": f"{gateway_of(self.subnet)}/{size}",
        }

    @property
    def command(self) -> list[str]:
        """What runs the command that comes after it, with the network made."""
        return [str(self.shim), "hub", json.dumps(self.settings)]

    def configuration(self, addresses: Path) -> str:
        """The CNI configuration list; its plugins are put into their folder.

        Args:
            addresses: folder where reservations of addresses are kept.
        """
        shutil.rmtree(addresses, ignore_errors=True)
        self.plugins.mkdir(exist_ok=True)
        for name in _PLUGINS:
            plugin = self.plugins / name
            plugin.unlink(missing_ok=True)
            plugin.symlink_to(self.shim)
        hub = {"type": _PLUGINS[0], **self.settings, "addresses": str(addresses)}
        return json.dumps({"cniVersion": "0.4.0", "name": _BRIDGE, "plugins": [hub]})


def choose(shim: Path | None, folder: Path) -> Hub:
    """A network for the daemon of `folder`, tried out.

    Raises:
        NoNetwork: says what is missing.
    """
    if shim is None:
        raise NoNetwork("only root can make networks")
    path = ":".join([os.environ.get("PATH", ""), *PROGRAMS])
    missing = [name for name in _NEEDED if shutil.which(name, path=path) is None]
    if missing:
        raise NoNetwork(f"networks without root need {' and '.join(missing)}, not installed here")
    hub = Hub(shim, folder, free_subnet(str(folder)))
    command = [str(shim), "hub-probe", json.dumps(hub.settings)]
    try:
        tried = subprocess.run(
            command,
            capture_output=True,
            check=False,
            text=True,
            timeout=_TRYING,
            env={"PATH": path},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoNetwork(f"networks without root: {error}") from None
    if tried.returncode != 0:
        said = (tried.stderr.strip().splitlines() or ["no message"])[0]
        raise NoNetwork(f"networks without root: {said.removeprefix('buildonce: ')}")
    return hub
