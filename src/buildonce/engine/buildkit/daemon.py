"""A buildkitd of our own, shared by all who use the same folder.

    async with daemon.start(buildkitd, cache / "buildkit", config=config) as running:
        async with Client.connect(running.address) as client:
            ...

The first to come starts it, later ones find it, the last to leave stops it and waits until it is
gone. A user that is killed leaves too: `watcher` says how.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from buildonce.engine.buildkit import network, watcher
from buildonce.engine.buildkit.client import Client
from buildonce.engine.buildkit.errors import BuildkitError

START = 30.0  # seconds until a new daemon must answer
STOP = 30.0  # seconds until the last user stops waiting for the daemon to be gone
POLL = 0.02
SOCKET_LENGTH = 100  # the kernel takes 107
SPECIFICATION = "watcher.json"
LOG_SIZE = 10 << 20
ROOM = 16 << 20  # bytes free that a daemon needs to start and to tidy up


class CannotStart(BuildkitError):
    """There is no daemon, and none can be started."""


@dataclass(frozen=True, slots=True)
class Registry:
    """How to speak with one registry.

    Attributes:
        http: without TLS.
        insecure: with TLS, but any certificate will do.
        mirrors: hosts to ask first.
        ca: files with certificates to trust.
    """

    http: bool = False
    insecure: bool = False
    mirrors: Sequence[str] = ()
    ca: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """What a daemon is started with.

    Attributes:
        registries: by host, such as "127.0.0.1:5000".
        runc: the program; found on the PATH when None.
        isolate: give containers networks of their own where that is possible.
        pool: networks kept ready, so that a container need not wait for one.
        dns: name servers for containers; this machine's when empty.
        keep_bytes: the cache's size above which what was not used for long is deleted; BuildKit's
            own rule, by the size of the disk, when 0.
        privileged: let steps ask for all privileges and the host's network.
        environment: more variables for the daemon, such as proxies and SSL_CERT_FILE.
    """

    registries: Mapping[str, Registry] = field(default_factory=dict)
    runc: Path | None = None
    isolate: bool = True
    pool: int = 8
    dns: Sequence[str] = ()
    keep_bytes: int = 0
    privileged: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running daemon.

    Attributes:
        address: for `Client.connect`.
        network: "bridge": containers have networks of their own; "host": they share this one's.
        network_reason: why it is "host"; "" for "bridge".
        subnet: of the bridge, with this machine at `gateway`; "" for "host".
        started: whether this user started it.
        note: what the user should know of its start; "" when all is well.
    """

    address: str
    pid: int
    network: str
    network_reason: str
    subnet: str
    gateway: str
    log: Path
    started: bool
    note: str = ""


@asynccontextmanager
async def start(
    buildkitd: Path,
    folder: Path,
    *,
    config: DaemonConfig | None = None,
    log: Path | None = None,
) -> AsyncIterator[Daemon]:
    """Use the daemon of `folder` until the block ends; it is started if it does not run.

    Args:
        log: where a new daemon writes its messages; `folder`/buildkitd.log when None.

    Raises:
        CannotStart: says why, with the end of the daemon's log.
    """
    config = config or DaemonConfig()
    await anyio.to_thread.run_sync(_make_folder, folder)
    place = _Place(folder.resolve(), log)
    users = await _hold(place.users)
    process: subprocess.Popen[bytes] | None = None
    note = ""
    try:
        starting = await _hold(place.lock, exclusive=True)
        try:
            about = await _running(place)
            if about is None:
                await anyio.to_thread.run_sync(_clean, place)
                note = await anyio.to_thread.run_sync(_make_room, place)
                process, about = await _launch(buildkitd, place, config)
            elif about["config"] != config.digest:
                raise CannotStart(
                    f"another run uses the daemon of {folder} with another configuration",
                    remedy="wait until that run has ended, or give this one another cache "
                    "with BUILDONCE_CACHE=/another/folder",
                )
        finally:
            os.close(starting)
        yield Daemon(
            address=about["address"],
            pid=about["pid"],
            network=about["network"],
            network_reason=about["reason"],
            subnet=about["subnet"],
            gateway=about["gateway"],
            log=place.log,
            started=process is not None,
            note=note,
        )
    finally:
        with anyio.CancelScope(shield=True):
            last = await anyio.to_thread.run_sync(_try_exclusive, users)
            os.close(users)
            if last:
                await _gone(place, process)


class _Place:
    """The files of one daemon."""

    def __init__(self, folder: Path, log: Path | None) -> None:
        self.folder = folder
        self.users = folder / "users"
        self.lock = folder / "lock"
        self.alive = folder / "alive"
        self.state = folder / "daemon.json"
        self.log = log or folder / "buildkitd.log"
        self.tag = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
        # The daemon's own temporary folder: it mounts things there, which are to be found again,
        # and makes sockets, for which a path must be short.
        self.temporary = Path(tempfile.gettempdir(), f"buildonce-{os.getuid()}-{self.tag}")
        socket = folder / "buildkitd.sock"
        if len(str(socket)) > SOCKET_LENGTH:
            socket = self.temporary / "buildkitd.sock"
        self.socket = socket
        self.address = f"unix://{socket}"

    def is_watched(self) -> bool:
        """Whether a watcher lives, which holds this lock."""
        number = os.open(self.alive, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            return not _try_exclusive(number)
        finally:
            os.close(number)

    def read_state(self) -> dict[str, Any] | None:
        try:
            state: dict[str, Any] = json.loads(self.state.read_text())
        except (OSError, ValueError):
            return None
        return state


def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.lstat()
    if found.st_uid != os.geteuid():
        raise CannotStart(
            f"{folder} belongs to another user",
            remedy="use a folder of your own: set BUILDONCE_CACHE",
        )
    folder.chmod(0o700)


async def _hold(path: Path, *, exclusive: bool = False) -> int:
    """A locked file; closing the number that is returned unlocks it."""
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        while True:
            # Not in a thread: one that waits for a lock cannot be cancelled.
            try:
                fcntl.flock(number, kind | fcntl.LOCK_NB)
                return number
            except BlockingIOError:
                await anyio.sleep(POLL)
    except BaseException:
        os.close(number)
        raise


def _try_exclusive(number: int) -> bool:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


async def _running(place: _Place) -> dict[str, Any] | None:
    """What the daemon's watcher says about it; None when there is no daemon.

    Raises:
        CannotStart: there is one, but it does not answer.
    """
    deadline = time.monotonic() + START
    while await anyio.to_thread.run_sync(place.is_watched):
        state = await anyio.to_thread.run_sync(place.read_state)
        if state is not None and "address" in state and await _answers(state["address"]):
            return state
        if time.monotonic() > deadline:
            raise CannotStart(
                f"the daemon of {place.folder} runs, but does not answer",
                remedy=f"end it (its process is in {place.state}), then run the command again",
            )
        await anyio.sleep(POLL)
    return None


async def _answers(address: str) -> bool:
    try:
        async with Client.connect(address) as client:
            with anyio.fail_after(5):
                await client.info()
    except (BuildkitError, TimeoutError):
        return False
    return True


async def _launch(
    buildkitd: Path, place: _Place, config: DaemonConfig
) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    specification = await anyio.to_thread.run_sync(_specify, buildkitd, place, config)
    before = place.log.stat().st_size if place.log.exists() else 0
    process = await anyio.to_thread.run_sync(_spawn, place, specification)
    try:
        deadline = time.monotonic() + START
        while time.monotonic() < deadline and process.poll() is None:
            if place.socket.exists() and await _answers(place.address):
                state = await anyio.to_thread.run_sync(place.read_state)
                if state is not None and "address" in state:
                    return process, state
            await anyio.sleep(POLL)
        text = await anyio.to_thread.run_sync(_tail, place.log, before)
        raise CannotStart(
            f"buildkitd did not start; the end of {place.log}:\n{text}",
            remedy="run `buildonce doctor` to see what this machine lacks",
        )
    except BaseException:
        process.terminate()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(process.wait)
        raise


def _clean(place: _Place) -> None:
    """Remove what an earlier daemon has left whose watcher could not."""
    try:
        earlier = json.loads((place.folder / SPECIFICATION).read_text())
    except (OSError, ValueError):
        return
    place.state.unlink(missing_ok=True)
    with suppress(KeyError):  # it was written by another version
        watcher.clean(earlier)


def _make_room(place: _Place) -> str:
    """Drop the cache when the disk is full, and say so.

    BuildKit cannot do it: deleting anything needs room for writing down that it is deleted.

    Raises:
        CannotStart: there is no room even without the cache.
    """
    state = place.folder / "state"
    if shutil.disk_usage(place.folder).free >= ROOM:
        return ""
    if os.geteuid() == 0:
        shutil.rmtree(state, ignore_errors=True)
    else:  # much of it belongs to users of our user namespace
        subprocess.run(["rootlesskit", "rm", "-rf", str(state)], capture_output=True, check=False)
    free = shutil.disk_usage(place.folder).free >> 20
    if free < ROOM >> 20:
        raise CannotStart(
            f"no space left on device: buildkitd needs {ROOM >> 20} MiB of the disk of "
            f"{place.folder} to start, and {free} MiB are free",
            remedy=f"make room there (df -h {place.folder}), or set BUILDONCE_CACHE to a folder "
            "on another disk",
        )
    return f"the disk of {place.folder} was full; the cache there is dropped, {free} MiB are free"


def _spawn(place: _Place, specification: dict[str, Any]) -> subprocess.Popen[bytes]:
    path = place.folder / SPECIFICATION
    path.write_text(json.dumps(specification))
    with place.log.open("ab", buffering=0) as log:
        # -I and -S: the user's Python settings and packages are no concern of the watcher's.
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(watcher.__file__)), str(path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=specification["environment"],
            start_new_session=True,
        )


def _tail(path: Path, start: int) -> str:
    try:
        with path.open("rb") as file:
            file.seek(start)
            lines = file.read().decode(errors="replace").splitlines()
    except OSError as error:
        return f"(no log: {error.strerror})"
    # A failure is one line and a trace of Go's stack, which tells nobody anything.
    causes = [line for line in lines if line.startswith("buildkitd: ")]
    return "\n".join(causes or lines[-15:]) or "(empty)"


async def _gone(place: _Place, process: subprocess.Popen[bytes] | None) -> None:
    """Wait until the daemon that nobody uses is gone, or somebody uses it again."""
    deadline = time.monotonic() + STOP
    # Our own lock is free now, so the watcher has it within this time, or somebody else.
    grace = time.monotonic() + 2
    while time.monotonic() < deadline:
        if process is not None:
            process.poll()  # ends the zombie, if it is ours
        if not await anyio.to_thread.run_sync(place.is_watched):
            await _clean_after(place)
            return
        state = await anyio.to_thread.run_sync(place.read_state)
        if state is not None and "stopping" not in state and time.monotonic() > grace:
            return  # somebody came while we left
        await anyio.sleep(POLL)


async def _clean_after(place: _Place) -> None:
    """Remove what a daemon has left whose watcher was killed."""
    starting = await _hold(place.lock, exclusive=True)
    try:
        if place.state.exists() and not await anyio.to_thread.run_sync(place.is_watched):
            await anyio.to_thread.run_sync(_clean, place)
    finally:
        os.close(starting)


# -- what the daemon is started with --------------------------------------------------------------


def _specify(buildkitd: Path, place: _Place, config: DaemonConfig) -> dict[str, Any]:
    root = os.geteuid() == 0
    _make_folder(place.temporary)
    bridge: network.Bridge | None = None
    reason = ""
    try:
        if not config.isolate:
            raise network.NoNetwork("the configuration says so")
        bridge = network.choose(str(place.folder))
    except network.NoNetwork as error:
        reason = str(error)
    state = place.folder / "state"
    addresses = place.folder / "addresses"
    if bridge is not None:
        (place.folder / "network.conflist").write_text(bridge.configuration(addresses))
    cgroup = f"buildonce-{place.tag}"
    text = _toml(place, config, state, bridge, cgroup, rootless=not root)
    configuration = place.folder / "buildkitd.toml"
    configuration.write_text(text)
    command = [str(buildkitd), "--config", str(configuration)]
    environment = {
        **{k: v for k, v in os.environ.items() if k in _PASSED or k.lower().endswith("_proxy")},
        "PATH": os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin",
        "TMPDIR": str(place.temporary),
        "BUILDKIT_STEP_LOG_MAX_SIZE": "-1",
        "BUILDKIT_STEP_LOG_MAX_SPEED": "-1",
        **config.environment,
    }
    if not root:
        run = place.folder / "run"
        run.mkdir(mode=0o700, exist_ok=True)
        environment["XDG_RUNTIME_DIR"] = str(run)
        command = [*_rootlesskit(place), *command, "--rootless"]
    if place.log.exists() and place.log.stat().st_size > LOG_SIZE:
        place.log.replace(place.log.with_suffix(".old.log"))
    return {
        "command": command,
        "environment": environment,
        "log": str(place.log),
        "users": str(place.users),
        "alive": str(place.alive),
        "state": str(place.state),
        "folders": [str(state), str(place.temporary)],
        "temporary": str(place.temporary),
        "cgroup": cgroup,
        "leftovers": [str(place.socket), str(state / "buildkitd.lock")],
        "network": None
        if bridge is None
        else {
            "bridge": bridge.name,
            "subnet": bridge.subnet,
            "iptables": bridge.iptables,
            "addresses": str(addresses),
        },
        "about": {
            "address": place.address,
            "config": config.digest,
            "network": "host" if bridge is None else "bridge",
            "reason": reason,
            "subnet": "" if bridge is None else bridge.subnet,
            "gateway": "" if bridge is None else bridge.gateway,
        },
    }


_PASSED = ("HOME", "USER", "LANG", "SSL_CERT_FILE", "SSL_CERT_DIR", "DOCKER_CONFIG")


def _toml(
    place: _Place,
    config: DaemonConfig,
    state: Path,
    bridge: network.Bridge | None,
    cgroup: str,
    *,
    rootless: bool,
) -> str:
    runc = str(config.runc) if config.runc else _runc()
    lines = [f"root = {_quote(state)}"]
    if config.privileged:
        lines.append('insecure-entitlements = ["security.insecure", "network.host"]')
    lines += [
        "[grpc]",
        f"address = [{_quote(place.address)}]",
        # By default all daemons of a machine make the same socket, and two that start at once fail.
        "[otel]",
        f"socketPath = {_quote(place.temporary / 'otel.sock')}",
        "[worker.containerd]",
        "enabled = false",
        "[worker.oci]",
        "enabled = true",
        f"binary = {_quote(runc)}",
        f"rootless = {str(rootless).lower()}",
        f"networkMode = {_quote('host' if bridge is None else 'cni')}",
    ]
    if rootless and not _can_mount_proc():
        lines.append("noProcessSandbox = true")
    if not rootless:
        lines.append(f"defaultCgroupParent = {_quote(cgroup)}")
    if config.keep_bytes:
        lines += ["gc = true", f"maxUsedSpace = {_quote(config.keep_bytes)}"]
    if bridge is not None:
        lines += [
            f"cniConfigPath = {_quote(place.folder / 'network.conflist')}",
            f"cniBinaryPath = {_quote(bridge.plugins)}",
            f"cniPoolSize = {config.pool}",
        ]
    if config.dns:
        lines += ["[dns]", f"nameservers = [{', '.join(map(_quote, config.dns))}]"]
    for host, registry in config.registries.items():
        lines += [
            f"[registry.{_quote(host)}]",
            f"http = {str(registry.http).lower()}",
            f"insecure = {str(registry.insecure).lower()}",
            f"mirrors = [{', '.join(map(_quote, registry.mirrors))}]",
            f"ca = [{', '.join(map(_quote, registry.ca))}]",
        ]
    return "\n".join(lines) + "\n"


def _quote(value: object) -> str:
    # JSON's strings are TOML's.
    return json.dumps(str(value))


def _runc() -> str:
    for name in ("buildkit-runc", "runc", "crun"):
        if found := shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"):
            return found
    raise CannotStart(
        "buildkitd runs containers with runc, which is not installed",
        remedy="install it: apt-get install runc (or your system's package of that name)",
    )


def _can_mount_proc() -> bool:
    """Whether a new PID namespace can get a /proc: not inside a container that hides parts of its
    own. Commands then share the daemon's PID namespace."""
    command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "true"]
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return True  # the daemon will say


def _expect_subordinate_ids() -> None:
    """Make sure that this user has users of its own to hand out in containers."""
    user = pwd.getpwuid(os.geteuid()).pw_name
    owners = (f"{user}:", f"{os.geteuid()}:")
    missing = [
        file
        for file in (Path("/etc/subuid"), Path("/etc/subgid"))
        if not file.exists()
        or not any(line.startswith(owners) for line in file.read_text().splitlines())
    ]
    if missing:
        raise CannotStart(
            f"without root, containers need users and groups of {user}'s own, and "
            f"{' and '.join(map(str, missing))} give it none",
            remedy=f"ask root to run: usermod --add-subuids 200000-265535 "
            f"--add-subgids 200000-265535 {user}; "
            "or set BUILDKIT_HOST to a daemon that runs elsewhere",
        )


def _rootlesskit(place: _Place) -> list[str]:
    missing = [
        name for name in ("rootlesskit", "newuidmap", "newgidmap") if shutil.which(name) is None
    ]
    if missing:
        raise CannotStart(
            f"without root, buildkitd needs {', '.join(missing)}, which this machine lacks",
            remedy="ask root to run: apt-get install rootlesskit uidmap; "
            "or set BUILDKIT_HOST to a daemon that runs elsewhere",
        )
    _expect_subordinate_ids()
    folder = place.folder / "rootlesskit"
    shutil.rmtree(folder, ignore_errors=True)
    return [
        "rootlesskit",
        "--net=host",
        "--copy-up=/etc",
        "--copy-up=/run",
        "--disable-host-loopback",
        f"--state-dir={folder}",
    ]
