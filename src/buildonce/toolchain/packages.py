"""The distribution's packages: only what is missing is installed, and no service is started.

    missing = needed(offline=True, docker=False)     # -> [Need("haproxy", ...), ...]
    await install(missing, progress=print)

With root, or with sudo. Without either, the error is the command an administrator can type.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from buildonce import places
from buildonce.errors import BuildonceError
from buildonce.toolchain.binaries import find
from buildonce.toolchain.locks import locked
from buildonce.toolchain.processes import Progress, run, silent
from buildonce.toolchain.whole import write_whole

CNI_FOLDERS = (Path("/opt/cni/bin"), Path("/usr/lib/cni"), Path("/usr/libexec/cni"))
_SEARCH = os.pathsep.join(("/usr/local/sbin", "/usr/sbin", "/sbin"))
_POLICY = Path("/usr/sbin/policy-rc.d")
_LISTS = Path("/var/lib/apt/lists")
_LISTS_ARE_OLD_SECONDS = 24 * 3600
_SERVICES = {"docker-registry": "docker-registry.service", "haproxy": "haproxy.service"}


@dataclass(frozen=True)
class Need:
    """Something a package brings: what for, which packages, and whether it is there already."""

    name: str
    packages: tuple[str, ...]
    purpose: str
    present: Callable[[], bool]


def program(name: str) -> str | None:
    """The path of a program on the PATH or among the administrators' ones."""
    return shutil.which(name, path=os.environ.get("PATH", os.defpath) + os.pathsep + _SEARCH)


def cni_plugins() -> Path | None:
    """The folder of the CNI plugins."""
    return next((folder for folder in CNI_FOLDERS if (folder / "bridge").is_file()), None)


_NETWORKS = Need(
    "CNI plugins",
    ("containernetworking-plugins",),
    "the networks of containers",
    lambda: cni_plugins() is not None,
)
_NETWORKS_WITHOUT_ROOT = Need(
    "ip", ("iproute2",), "the networks of containers", lambda: program("ip") is not None
)


def needed(*, offline: bool, docker: bool) -> list[Need]:
    """What is missing on this machine.

    Args:
        offline: no public container registry can be reached.
        docker: a docker daemon answers: it runs the containers, and podman is not wanted.
    """
    needs = [
        Need("runc", ("runc",), "buildkitd's containers", lambda: find("runc") is not None),
        _NETWORKS if os.geteuid() == 0 else _NETWORKS_WITHOUT_ROOT,
        Need(
            "iptables",
            ("iptables",),
            "the networks of containers",
            lambda: program("iptables") is not None,
        ),
        Need(
            "haproxy",
            ("haproxy",),
            "switching traffic between releases",
            lambda: find("haproxy") is not None,
        ),
        Need(
            "busybox",
            ("busybox-static",),
            "the containers of the project's own tests",
            lambda: program("busybox") is not None,
        ),
    ]
    if offline or not docker:
        needs.append(
            Need(
                "docker-registry",
                ("docker-registry",),
                "the loopback registry",
                lambda: find("docker-registry") is not None,
            )
        )
    if os.geteuid() != 0 and not os.environ.get("BUILDKIT_HOST"):
        needs.append(
            Need(
                "rootlesskit",
                ("rootlesskit", "uidmap"),
                "buildkitd without root",
                lambda: program("rootlesskit") is not None and program("newuidmap") is not None,
            )
        )
    if not docker:
        needs.append(
            Need(
                "podman",
                ("podman", "netavark", "aardvark-dns", "uidmap", "slirp4netns"),
                "running releases",
                lambda: program("podman") is not None,
            )
        )
    if offline:
        needs.append(
            Need(
                "mmdebstrap",
                ("mmdebstrap", "debian-archive-keyring"),
                "making the base image",
                lambda: find("mmdebstrap") is not None,
            )
        )
    return [need for need in needs if not need.present()]


def command(needs: Sequence[Need]) -> list[str]:
    """What to type, as root, for `needs`."""
    names = sorted({package for need in needs for package in need.packages})
    return ["apt-get", "install", "--yes", "--no-install-recommends", *names]


async def install(needs: Sequence[Need], *, progress: Progress = silent) -> str:
    """Install the packages of `needs`; says what was installed.

    Raises:
        BuildonceError: there is no apt, no right to use it, or it fails.
    """
    if not needs:
        return "nothing was missing"
    typed = " ".join(command(needs))
    if shutil.which("apt-get") is None:
        listed = ", ".join(f"{need.name} ({need.purpose})" for need in needs)
        raise BuildonceError(
            "this machine has no apt-get, so what is missing must be installed by hand",
            remedy=f"install with this machine's package manager: {listed}",
        )
    rights = await anyio.to_thread.run_sync(_rights)
    if rights is None:
        raise BuildonceError(
            f"packages are missing ({', '.join(n.name for n in needs)}) and this user has neither "
            "root nor sudo",
            remedy=f"ask an administrator to type: {typed}",
        )
    async with locked(places.cache() / "locks" / "apt.lock", waiting=progress):
        with _NoServices(rights):
            if _lists_are_old():
                await _apt(rights, ["apt-get", "update"], typed, progress)
            try:
                await _apt(rights, command(needs), typed, progress)
            except BuildonceError:
                # Mirrors drop old versions: fresh lists are the usual cure.
                await _apt(rights, ["apt-get", "update"], typed, progress)
                await _apt(rights, command(needs), typed, progress)
        await _disable_services(rights, needs)
    return f"installed {', '.join(need.name for need in needs)}"


def _rights() -> tuple[str, ...] | None:
    """What to put before a command that needs root: nothing, or sudo; None when there is no way."""
    if os.geteuid() == 0:
        return ()
    sudo = shutil.which("sudo")
    if sudo is None:
        return None
    if subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode == 0:
        return (sudo, "-n")
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    # Ask for the password now, on the terminal; the commands after it have none.
    asked = subprocess.run([sudo, "-p", "password of %u for installing packages: ", "-v"])
    return (sudo, "-n") if asked.returncode == 0 else None


async def _apt(
    rights: tuple[str, ...], words: Sequence[str], typed: str, progress: Progress
) -> None:
    def report(line: str) -> None:
        if line.startswith(("Get:", "Unpacking ", "Setting up ", "Need to get ")):
            progress(line)

    await run(
        [
            *(*rights, "env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"),
            # Another apt may be at work (unattended upgrades): wait for it.
            *(words[0], "-o", "DPkg::Lock::Timeout=300", *words[1:]),
        ],
        what=f"`{' '.join(words[:2])}`",
        remedy=f"as root: {typed}",
        progress=report,
    )


class _NoServices:
    """While it is entered, packages do not start services.

    Debian asks `/usr/sbin/policy-rc.d`. Ours forbids only as long as this process lives, so one
    left behind by a crash forbids nothing.
    """

    def __init__(self, rights: tuple[str, ...]) -> None:
        self._rights = rights
        self._ours = False

    def __enter__(self) -> None:
        if _POLICY.exists() and "buildonce" not in _POLICY.read_text("utf-8", "replace"):
            return  # the machine has a policy of its own, which stands
        script = f"#!/bin/sh\n# buildonce\n[ -d /proc/{os.getpid()} ] && exit 101\nexit 0\n"
        if self._rights:
            with tempfile.NamedTemporaryFile("w", prefix="buildonce-") as file:
                file.write(script)
                file.flush()
                self._sudo("install", "--mode=0755", file.name, str(_POLICY))
        else:
            write_whole(_POLICY, script, mode=0o755)
        self._ours = True

    def __exit__(self, *_: object) -> None:
        if self._ours and self._rights:
            self._sudo("rm", "-f", str(_POLICY))
        elif self._ours:
            _POLICY.unlink(missing_ok=True)

    def _sudo(self, *words: str) -> None:
        subprocess.run([*self._rights, *words], check=False, capture_output=True)


async def _disable_services(rights: tuple[str, ...], needs: Sequence[Need]) -> None:
    """Keep what was just installed from starting with the machine: we run our own, on loopback."""
    if not Path("/run/systemd/system").is_dir():
        return
    installed = {package for need in needs for package in need.packages}
    for package, service in _SERVICES.items():
        if package in installed:
            await anyio.run_process([*rights, "systemctl", "disable", service], check=False)


def _lists_are_old() -> bool:
    times = [file.stat().st_mtime for file in _LISTS.glob("*Packages*")]
    return not times or time.time() - max(times) > _LISTS_ARE_OLD_SECONDS
