"""What a recipe lowers to: file systems as graph outputs, and the settings around them.

States are immutable values. Nothing in them has run: an `Output` is only a place in the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePosixPath
from typing import Any

from buildonce.engine.llb import Expected, Output

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class DirectoryState:
    """A directory: a path within an output; `None` is the empty file system.

    Attributes:
        shown: what it was asked for as, where nobody has looked yet whether it is there.
    """

    output: Output | None = None
    path: str = "/"
    platform: str = ""
    shown: str = ""

    @property
    def expected(self) -> Expected | None:
        return Expected(self.output, self.path, self.shown, directory=True) if self.shown else None


@dataclass(frozen=True, slots=True)
class ChangesetState:
    """What must be done to one directory to make it another."""

    before: DirectoryState
    after: DirectoryState


@dataclass(frozen=True, slots=True)
class FileState:
    """A file: a path within an output.

    Attributes:
        shown: what it was asked for as, where nobody has looked yet whether it is there.
    """

    output: Output
    path: str
    platform: str = ""
    shown: str = ""

    @property
    def expected(self) -> Expected | None:
        return Expected(self.output, self.path, self.shown, directory=False) if self.shown else None

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name


@dataclass(frozen=True, slots=True)
class SecretState:
    """A secret: never its value, only the name that the session finds it by.

    Attributes:
        identity: what stands for it in the graph and in cache keys. It tells two values apart
            without revealing either.
    """

    name: str
    identity: str
    uri: str = ""


@dataclass(frozen=True, slots=True)
class CacheState:
    """A cache volume, shared by every exec that mounts the same key.

    Attributes:
        source, sharing, owner: what a mount of it uses where it says nothing else.
    """

    key: str
    source: DirectoryState | None = None
    sharing: str = "SHARED"
    owner: str = ""


@dataclass(frozen=True, slots=True)
class SocketState:
    """A socket of the client's machine: `unix:PATH` or `tcp:HOST:PORT`."""

    address: str


@dataclass(frozen=True, slots=True)
class Port:
    """A port that a container listens on."""

    number: int
    protocol: str = "TCP"
    description: str | None = None
    health_check: bool = True

    @property
    def key(self) -> tuple[int, str]:
        """What no two ports of a container have in common."""
        return self.number, self.protocol


class MountKind(Enum):
    DIRECTORY = "directory"
    FILE = "file"
    CACHE = "cache"
    TEMPORARY = "tmpfs"
    SECRET = "secret"  # noqa: S105
    SOCKET = "socket"


@dataclass(frozen=True, slots=True)
class Mount:
    """Something laid over a path of the container while its commands run."""

    target: str
    kind: MountKind
    output: Output | None = None
    path: str = "/"
    read_only: bool = False
    cache: CacheState | None = None
    sharing: str = "SHARED"
    secret: SecretState | None = None
    socket: SocketState | None = None
    owner: str = ""
    mode: int | None = None
    size: int = 0


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """The configuration part of an OCI image, as far as containers use it.

    Attributes:
        rest: the fields of the image's configuration that nothing here changes, kept as found.
    """

    env: tuple[tuple[str, str], ...] = ()
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    ports: tuple[Port, ...] = ()
    rest: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExecState:
    """The last command of a container.

    Attributes:
        output: where the shim left `stdout`, `stderr`, `combined` and `exit`.
    """

    args: tuple[str, ...]
    output: Output


@dataclass(frozen=True, slots=True)
class Binding:
    """A service that a container's commands reach as `alias`."""

    alias: str
    service: ServiceState


@dataclass(frozen=True, slots=True)
class ContainerState:
    """A container: a root file system, what is mounted over it, and how commands run in it.

    Attributes:
        volatile: variables that commands see and no cache key knows of.
        epoch: seconds that every timestamp of a published image is set to; None keeps them.
        base: configuration of the image it was made from, whose layers keep theirs.
        own_command: the default arguments were set here and not by an image.
    """

    platform: str
    rootfs: Output | None = None
    image: ImageSettings = field(default_factory=ImageSettings)
    mounts: tuple[Mount, ...] = ()
    secrets: tuple[tuple[str, SecretState], ...] = ()
    volatile: tuple[tuple[str, str], ...] = ()
    bindings: tuple[Binding, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    credentials: tuple[tuple[str, str, SecretState], ...] = ()
    last: ExecState | None = None
    address: str | None = None
    epoch: int | None = None
    base: bytes = b""
    own_command: bool = False

    @property
    def workdir(self) -> str:
        return self.image.workdir or "/"


@dataclass(frozen=True, slots=True)
class ServiceState:
    """A long-running command, or a tunnel to a port of the client's machine.

    Attributes:
        identity: digest of what it runs; equal services are one.
        container: for a command: the container, with `args` to run in it.
        host: for a tunnel to the host: its address, and per exposed port the host's port.
        upstream: for a tunnel from the host: the service it leads to.
    """

    identity: str
    container: ContainerState | None = field(default=None, compare=False)
    args: tuple[str, ...] = ()
    hostname: str = ""
    host: str = ""
    forwards: tuple[tuple[int, int, str], ...] = ()
    upstream: ServiceState | None = None
    privileged: bool = False

    @property
    def name(self) -> str:
        """What commands reach it by once it has started; on the host: the address."""
        if self.upstream is not None:
            return "127.0.0.1"
        return self.hostname or self.identity[:NAME_LENGTH]


NAME_LENGTH = 13  # of a service's name, as Dagger's


def absolute(path: str, base: str = "/") -> str:
    """`path` seen from `base`, without `.` and `..`, which never lead above the root."""
    parts: list[str] = []
    for part in (path if path.startswith("/") else f"{base}/{path}").split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            if parts:
                parts.pop()
            continue
        parts.append(part)
    return "/" + "/".join(parts)
