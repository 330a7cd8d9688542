"""The process that keeps a shared buildkitd: starts it, waits until nobody uses it, cleans up.

Run as a program of its own (`python watcher.py SPECIFICATION.json`), with nothing but the standard
library, so that it starts fast and depends on nothing that a user of the daemon could take away.

Every user of the daemon holds a shared lock on one file, which the kernel takes away when the user
ends, however it ends. The watcher waits for an exclusive lock on it: having it means that nobody
is left. It keeps it until the daemon is gone, so whoever comes meanwhile waits and starts anew.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

GRACE = 10.0  # seconds for the daemon to end by itself
PR_SET_PDEATHSIG = 1
MNT_DETACH = 2
# The daemon has ended, or somebody wants us to.
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCBRDELBR, IFF_UP = 0x8913, 0x8914, 0x89A1, 0x1


def main(path: str) -> int:
    """Keep one daemon from its start to its end."""
    os.umask(0o077)
    specification: dict[str, Any] = json.loads(Path(path).read_text())
    # Held for as long as we live: by it others know that somebody looks after the daemon.
    alive = os.open(specification["alive"], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(alive, fcntl.LOCK_EX)
    set_up_network(specification)
    # From here on signals are waited for, and interrupt nothing.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    state = Path(specification["state"])
    daemon: subprocess.Popen[bytes] | None = None
    try:
        daemon = _start(specification)
        _write(state, {**specification["about"], "pid": daemon.pid, "watcher": os.getpid()})
        Thread(target=_outlast_users, args=(specification["users"],), daemon=True).start()
        signal.sigwait(_ENDING)
    finally:
        with suppress(OSError):
            _write(state, {"stopping": True, "watcher": os.getpid()})
        if daemon is not None:
            _stop(daemon)
        clean(specification)
        state.unlink(missing_ok=True)
    return 0


def _outlast_users(path: str) -> None:
    """Tell the main thread when nobody is left; the lock is ours until the process ends."""
    fcntl.flock(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), fcntl.LOCK_EX)
    os.kill(os.getpid(), signal.SIGTERM)


def _write(path: Path, value: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value))
    part.replace(path)


def _start(specification: dict[str, Any]) -> subprocess.Popen[bytes]:
    with Path(specification["log"]).open("ab", buffering=0) as log:
        return subprocess.Popen(
            specification["command"],
            env=specification["environment"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )


def _die_with_parent() -> None:
    os.umask(0o022)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    # Not SIGTERM: it would wait for its builds, and nobody would be there to end it then.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _stop(daemon: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        daemon.terminate()
    with suppress(subprocess.TimeoutExpired):
        daemon.wait(GRACE)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(daemon.pid, signal.SIGKILL)
    daemon.wait()


# -- what a daemon leaves behind ------------------------------------------------------------------


def clean(specification: dict[str, Any]) -> None:
    """Remove what a daemon that did not end well has left: processes, mounts, network."""
    _kill_daemon(specification["command"])
    _kill_containers(specification["cgroup"])
    for folder in specification["folders"]:
        unmount(folder)
    tear_down_network(specification)
    for name in specification["leftovers"]:
        with suppress(OSError):
            Path(name).unlink()
    shutil.rmtree(specification["temporary"], ignore_errors=True)


def _kill_daemon(command: list[str]) -> None:
    """End a daemon that has lost its watcher."""
    wanted = b"\0".join(os.fsencode(item) for item in command) + b"\0"
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "cmdline").read_bytes() == wanted:
                os.kill(int(folder.name), signal.SIGKILL)
                for _ in range(500):
                    if not folder.exists():
                        break
                    time.sleep(0.01)


def _kill_containers(name: str) -> None:
    """End every process in our control group, and remove the group."""
    top = Path("/sys/fs/cgroup")
    groups = [group for group in (top / name, *top.glob(f"*/{name}")) if group.is_dir()]
    for _ in range(50):
        alive = False
        for group in groups:
            for folder, _, _ in os.walk(group, topdown=False):
                with suppress(OSError):
                    for number in Path(folder, "cgroup.procs").read_text().split():
                        alive = True
                        with suppress(ProcessLookupError, PermissionError):
                            os.kill(int(number), signal.SIGKILL)
                with suppress(OSError):
                    Path(folder).rmdir()
        if not alive:
            return
        time.sleep(0.02)


def unmount(folder: str) -> None:
    """Unmount everything below a folder, the innermost first."""
    libc = ctypes.CDLL(None, use_errno=True)
    prefix = folder.rstrip("/") + "/"
    points = []
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
            point = line.split(" ")[4].encode().decode("unicode_escape")
            if point.startswith(prefix):
                points.append(point)
    for point in reversed(points):
        libc.umount2(os.fsencode(point), MNT_DETACH)


# -- the network of the containers ----------------------------------------------------------------


def rules(specification: dict[str, Any]) -> list[list[str]]:
    """The iptables rules of our bridge: let its traffic pass, and hide it behind this machine."""
    network = specification["network"]
    bridge, subnet = network["bridge"], network["subnet"]
    mark = ["-m", "comment", "--comment", f"buildonce {bridge}"]
    established = ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"]
    return [
        ["-t", "nat", "POSTROUTING", "-s", subnet, "!", "-d", subnet, *mark, "-j", "MASQUERADE"],
        ["-t", "filter", "FORWARD", "-i", bridge, *mark, "-j", "ACCEPT"],
        ["-t", "filter", "FORWARD", "-o", bridge, *established, *mark, "-j", "ACCEPT"],
    ]


def _iptables(specification: dict[str, Any], action: str, rule: list[str]) -> bool:
    command = [specification["network"]["iptables"], "-w", "10", *rule[:2], action, *rule[2:]]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def set_up_network(specification: dict[str, Any]) -> None:
    """Add the rules; the bridge itself is made by the CNI plugin."""
    if specification["network"] is None:
        return
    for rule in rules(specification):
        if not _iptables(specification, "-I", rule):
            print(f"iptables refused {' '.join(rule)}", file=sys.stderr)


def tear_down_network(specification: dict[str, Any]) -> None:
    """Remove rules, bridge and address reservations."""
    network = specification["network"]
    if network is None:
        return
    for rule in rules(specification):
        for _ in range(10):
            if not _iptables(specification, "-D", rule):
                break
    delete_bridge(network["bridge"])
    with suppress(OSError):
        for path in Path(network["addresses"]).rglob("*"):
            if path.is_file():
                path.unlink()


def delete_bridge(name: str) -> None:
    """Delete a bridge, if there is one of that name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh", name.encode(), 0)
        try:
            answer = fcntl.ioctl(control, SIOCGIFFLAGS, request + bytes(22))
            (flags,) = struct.unpack_from("h", answer, 16)
            down = struct.pack("16sh", name.encode(), flags & ~IFF_UP)
            fcntl.ioctl(control, SIOCSIFFLAGS, down + bytes(22))
            fcntl.ioctl(control, SIOCBRDELBR, name.encode() + b"\0")
        except OSError:
            return  # there is none


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
