"""What a daemon of our own is started with: its files, its configuration, its command line."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from buildonce.engine.buildkit import hub, network
from buildonce.engine.buildkit.errors import BuildkitError

SOCKET_LENGTH = 100  # the kernel takes 107
LOG_SIZE = 10 << 20


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
        pool: networks kept ready for the first containers; later ones take those of containers that
            have ended. Each costs a twentieth of a second, at the start and again at the end.
        dns: name servers for containers; this machine's when empty.
        keep_bytes: the cache's size above which what was not used for long is deleted; BuildKit's
            own rule, by the size of the disk, when 0.
        privileged: let steps ask for all privileges and the host's network.
        shim: what makes networks for containers where nobody is root.
        environment: more variables for the daemon, such as proxies and SSL_CERT_FILE.
    """

    registries: Mapping[str, Registry] = field(default_factory=dict)
    runc: Path | None = None
    isolate: bool = True
    pool: int = 2
    dns: Sequence[str] = ()
    keep_bytes: int = 0
    privileged: bool = True
    shim: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


class Place:
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
            return not try_exclusive(number)
        finally:
            os.close(number)

    def read_state(self) -> dict[str, Any] | None:
        try:
            state: dict[str, Any] = json.loads(self.state.read_text())
        except (OSError, ValueError):
            return None
        return state


def make_folder(folder: Path) -> None:
    """Make a folder that is nobody else's."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.lstat()
    if found.st_uid != os.geteuid():
        raise CannotStart(
            f"{folder} belongs to another user",
            remedy="use a folder of your own: set BUILDONCE_CACHE",
        )
    folder.chmod(0o700)


def try_exclusive(number: int) -> bool:
    """Lock an open file for oneself; whether nobody else holds it."""
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def specify(buildkitd: Path, place: Place, config: DaemonConfig) -> dict[str, Any]:
    """What the watcher needs to know to start a daemon, look after it, and tidy up after it."""
    root = os.geteuid() == 0
    make_folder(place.temporary)
    bridge: network.Bridge | None = None
    inside: hub.Hub | None = None
    reason = ""
    try:
        if not config.isolate:
            raise network.NoNetwork("the configuration says so")
        if root:
            bridge = network.choose(str(place.folder))
        else:
            inside = hub.choose(config.shim, place.folder)
    except network.NoNetwork as error:
        reason = str(error)
    state = place.folder / "state"
    addresses = place.folder / "addresses"
    plugins: Path | None = None
    if made := bridge or inside:
        plugins = made.plugins
        (place.folder / "network.conflist").write_text(made.configuration(addresses))
    cgroup = f"buildonce-{place.tag}"
    text = _toml(place, config, state, plugins, cgroup, rootless=not root)
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
        networked = inside.command if inside is not None else []
        command = [*_rootlesskit(place), *networked, *command, "--rootless"]
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
            "network": "host" if plugins is None else "bridge",
            "routed": inside is None,
            "reason": reason,
            "subnet": "" if bridge is None else bridge.subnet,
            "gateway": "" if bridge is None else bridge.gateway,
        },
    }


_PASSED = ("HOME", "USER", "LANG", "SSL_CERT_FILE", "SSL_CERT_DIR", "DOCKER_CONFIG")


def _toml(
    place: Place,
    config: DaemonConfig,
    state: Path,
    plugins: Path | None,
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
        f"networkMode = {_quote('host' if plugins is None else 'cni')}",
    ]
    if rootless and not _can_mount_proc():
        lines.append("noProcessSandbox = true")
    if not rootless:
        lines.append(f"defaultCgroupParent = {_quote(cgroup)}")
    if config.keep_bytes:
        lines += ["gc = true", f"maxUsedSpace = {_quote(config.keep_bytes)}"]
    if plugins is not None:
        lines += [
            f"cniConfigPath = {_quote(place.folder / 'network.conflist')}",
            f"cniBinaryPath = {_quote(plugins)}",
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


@cache
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


def _rootlesskit(place: Place) -> list[str]:
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
    folder = place.temporary / "rootlesskit"  # where there is a socket
    shutil.rmtree(folder, ignore_errors=True)
    return [
        "rootlesskit",
        "--net=host",
        "--copy-up=/etc",
        "--copy-up=/run",
        "--copy-up=/var/lib",  # for cniResults in engine/shim/hub.go
        "--disable-host-loopback",
        f"--state-dir={folder}",
        # What runs in a container ends with the daemon, however that ends.
        *(["--pidns"] if _can_mount_proc() else []),
    ]
