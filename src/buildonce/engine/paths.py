"""Where a path of a container or directory really is, and edits at that place."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from buildonce.engine.errors import QueryFailed
from buildonce.engine.fileops import FileActions, Owner
from buildonce.engine.llb import Output
from buildonce.engine.states import ContainerState, DirectoryState, Mount, MountKind, absolute

# As a shell has them, without its operators: `$$` is the variable named `$`, which nobody sets.
# Also what is no variable: "${" that is never closed is dropped.
_VARIABLE = re.compile(r"\$(?:\{([^}]*)\}|\{|([A-Za-z_][A-Za-z0-9_]*|[*#$@!?0-9-]))")


def expand_variables(container: ContainerState, text: str) -> str:
    """`text` with `$NAME` and `${NAME}` replaced from the container's variables; unknown: empty.

    Raises:
        QueryFailed: a variable is a secret, which would get into graphs and logs, or volatile,
            which would get into cache keys.
    """
    env = dict(container.image.env)
    kinds = dict.fromkeys((name for name, _ in container.volatile), "volatile")
    kinds |= dict.fromkeys((name for name, _ in container.secrets), "secret")

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2] or ""
        if name in kinds:
            raise QueryFailed(f'expand cannot be used with {kinds[name]} env variable "{name}"')
        return env.get(name, "")

    return _VARIABLE.sub(value, text)


def resolve(container: ContainerState, path: str, expand: bool = False) -> str:
    """`path` as an absolute path of the container, seen from its working directory."""
    return absolute(expand_variables(container, path) if expand else path, container.workdir)


def is_part(mount: Mount) -> bool:
    """Whether the mount is a part of the file system, and not only there for commands."""
    return mount.kind not in (MountKind.SECRET, MountKind.SOCKET)


def mount_of(container: ContainerState, path: str) -> Mount | None:
    """The mount that `path` lies in: the innermost, and of those at one place the last."""
    found: Mount | None = None
    for mount in container.mounts:
        if not is_part(mount):
            continue
        inside = path == mount.target or path.startswith(mount.target.rstrip("/") + "/")
        if inside and (found is None or len(mount.target) >= len(found.target)):
            found = mount
    return found


def locate(container: ContainerState, path: str) -> tuple[Output | None, str]:
    """The output and the path within it that `path` (absolute) of the container is.

    Raises:
        QueryFailed: the path lies in a mount that exists only while commands run.
    """
    mount = mount_of(container, path)
    if mount is None:
        return container.rootfs, path
    if mount.kind not in (MountKind.DIRECTORY, MountKind.FILE):
        raise QueryFailed(f"{path}: cannot retrieve path from {mount.kind.value}")
    return mount.output, within(mount, path)


def within(mount: Mount, path: str) -> str:
    """`path` of the container as a path in the output of the mount that it lies in."""
    if path == mount.target:
        return mount.path
    return absolute(mount.path.rstrip("/") + "/" + path[len(mount.target.rstrip("/")) + 1 :])


def edit(
    container: ContainerState, path: str, change: Callable[[FileActions, str], FileActions]
) -> ContainerState:
    """`container` with `change` made at `path` (absolute): in the mount there, else the root."""
    mount = mount_of(container, path)
    if mount is None:
        output = change(FileActions(container.rootfs), path).done(platform=container.platform)
        return replace(container, rootfs=output, address=None)
    _, inside = locate(container, path)
    output = change(FileActions(mount.output), inside).done(platform=container.platform)
    changed = replace(mount, output=output)
    return replace(container, mounts=tuple(changed if m is mount else m for m in container.mounts))


def at_root(directory: DirectoryState) -> Output | None:
    """The directory as an output of its own, with its content at the root."""
    if directory.output is None or directory.path == "/":
        return directory.output
    actions = FileActions(None).copy(
        directory.output, directory.path, "/", contents=True, expected=directory.expected
    )
    return actions.done(platform=directory.platform)


def owner_of(text: str, passwd: Output | None) -> Owner | None:
    """`user`, `user:group`, by name or number; names are looked up in `passwd`'s files."""
    if not text:
        return None
    user, _, group = text.partition(":")
    return Owner(_id(user), _id(group) if group else None, passwd)


def _id(text: str) -> str | int:
    return int(text) if text.isdecimal() else text


def literal(path: str) -> str:
    """An include or exclude pattern that matches only `path`."""
    # White space at the ends of a pattern would be dropped, were it not in a class.
    return "".join(f"\\{c}" if c in "*?[]\\!" else f"[{c}]" if c.isspace() else c for c in path)


def check_name(name: str) -> None:
    """Make sure that `name` is that of a file, and no path.

    Raises:
        QueryFailed: it is none.
    """
    if "/" in name or name in ("", ".", ".."):
        raise QueryFailed(f"{name!r} is not a file name: it must not contain a directory")


def parent(path: str) -> str:
    """The folder that `path` is in."""
    return path.rsplit("/", 1)[0] or "/"
