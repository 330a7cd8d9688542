"""The network of the containers: a bridge with addresses that nothing else on this machine uses."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import socket
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

CNI_FOLDERS = (Path("/opt/cni/bin"), Path("/usr/lib/cni"), Path("/usr/libexec/cni"))
PLUGINS = ("bridge", "host-local", "loopback")
PROGRAMS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin")

# Of the private ranges the one that is in use least; each daemon takes one /20 of it.
RANGE = ipaddress.IPv4Network("10.208.0.0/12")
SIZE = 20


class NoNetwork(Exception):
    """Containers cannot have networks of their own here; says why."""


@dataclass(frozen=True, slots=True)
class Bridge:
    """A network for containers.

    Attributes:
        name: of the bridge's interface.
        subnet: such as "10.208.16.0/20".
        plugins: folder of the CNI plugins.
        iptables: the program.
    """

    name: str
    subnet: str
    plugins: Path
    iptables: str

    @property
    def gateway(self) -> str:
        """This machine's address on the bridge, as containers reach it."""
        return gateway_of(self.subnet)

    def configuration(self, addresses: Path) -> str:
        """The CNI configuration list.

        Args:
            addresses: folder where reservations of addresses are kept.
        """
        bridge = {
            "type": "bridge",
            "bridge": self.name,
            "isGateway": True,
            "ipMasq": False,  # one rule of our own for all, see `watcher`
            "hairpinMode": True,
            "mtu": _mtu(),
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": self.subnet, "gateway": self.gateway}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": str(addresses),
            },
        }
        return json.dumps({"cniVersion": "0.4.0", "name": self.name, "plugins": [bridge]})


def choose(seed: str) -> Bridge:
    """A bridge for the daemon of the folder `seed`.

    Raises:
        NoNetwork: says what is missing.
    """
    if os.geteuid() != 0:
        raise NoNetwork("only root can make networks")
    folder = next((f for f in CNI_FOLDERS if all((f / p).exists() for p in PLUGINS)), None)
    if folder is None:
        raise NoNetwork(f"the CNI plugins {', '.join(PLUGINS)} are not installed")
    iptables = shutil.which("iptables") or next(
        (f"{p}/iptables" for p in PROGRAMS if Path(p, "iptables").exists()), None
    )
    if iptables is None:
        raise NoNetwork("iptables is not installed")
    return Bridge(f"bo{_number(seed):08x}", free_subnet(seed), folder, iptables)


def gateway_of(subnet: str) -> str:
    """The address in a subnet by which its containers reach what is outside."""
    return str(next(ipaddress.IPv4Network(subnet).hosts()))


def free_subnet(seed: str) -> str:
    """A subnet that overlaps with no route and no address of this machine; for the same seed the
    same one, while it is free.

    Raises:
        NoNetwork: there is none.
    """
    start = _number(seed)
    used = [*_routes(), *_addresses()]
    candidates = list(RANGE.subnets(new_prefix=SIZE))
    for offset in range(len(candidates)):
        candidate = candidates[(start + offset) % len(candidates)]
        if not any(candidate.overlaps(other) for other in used):
            return str(candidate)
    raise NoNetwork(f"no free subnet in {RANGE}")


def _number(seed: str) -> int:
    return zlib.crc32(seed.encode())


def _mtu() -> int:
    """The packet size of the way out of this machine: larger ones would be lost behind a bridge."""
    default = 1500
    try:
        for line in Path("/proc/net/route").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1] == "00000000":
                return min(default, int(Path(f"/sys/class/net/{fields[0]}/mtu").read_text()))
    except (OSError, ValueError):
        pass
    return default


def _routes() -> Iterator[ipaddress.IPv4Network]:
    try:
        lines = Path("/proc/net/route").read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        address = struct.pack("<I", int(fields[1], 16))
        mask = struct.pack("<I", int(fields[7], 16))
        if mask != bytes(4):
            text = f"{socket.inet_ntoa(address)}/{socket.inet_ntoa(mask)}"
            yield ipaddress.IPv4Network(text, strict=False)


def _addresses() -> Iterator[ipaddress.IPv4Network]:
    # Local addresses, of interfaces that are down too.
    try:
        lines = Path("/proc/net/fib_trie").read_text().splitlines()
    except OSError:
        return
    for line, following in pairwise(lines):
        if "host LOCAL" in following and "|--" in line:
            yield ipaddress.IPv4Network(line.split("|--")[1].strip())
