"""What is laid over a container's paths while its commands run, and is no part of its image."""

from __future__ import annotations

from dataclasses import replace

from buildonce.engine.engine import Engine
from buildonce.engine.errors import QueryFailed
from buildonce.engine.fileops import FileActions, Owner
from buildonce.engine.llb import Output
from buildonce.engine.operations import operation
from buildonce.engine.paths import at_root, is_part, owner_of, resolve
from buildonce.engine.states import (
    CacheState,
    ContainerState,
    DirectoryState,
    FileState,
    Mount,
    MountKind,
    SecretState,
    SocketState,
)


def mounted(container: ContainerState, mount: Mount) -> ContainerState:
    """`container` with `mount`, instead of one that was at the same path, or hidden below it."""
    below = f"{mount.target.rstrip('/')}/"
    kept = tuple(
        m
        for m in container.mounts
        if m.target != mount.target
        and not (is_part(m) and is_part(mount) and m.target.startswith(below))
    )
    return replace(container, mounts=(*kept, mount), address=None)


@operation("Container.mounts")
async def mounts(engine: Engine, self: ContainerState) -> list[str]:
    return [mount.target for mount in self.mounts if is_part(mount)]


@operation("Container.withMountedDirectory")
async def with_mounted_directory(
    engine: Engine,
    self: ContainerState,
    path: str,
    source: DirectoryState,
    owner: str = "",
    read_only: bool = False,
    expand: bool = False,
) -> ContainerState:
    output, inside = source.output, source.path
    if owner or (inside != "/" and not read_only):
        # A part is copied out of its whole: BuildKit knows what a command may write to by the graph
        # it came from, so any other change in the whole would run the command again.
        given = await engine.owner(self.rootfs, owner) if owner else None
        output, inside = _owned(source, given), "/mounted"
    target = resolve(self, path, expand)
    return mounted(self, Mount(target, MountKind.DIRECTORY, output, inside, read_only=read_only))


def _owned(source: DirectoryState, owner: Owner | None) -> Output:
    """`/mounted`: the directory, with its mode, and all in it, belonging to `owner`."""
    actions = FileActions(None)
    if source.output is None:
        actions = actions.mkdir("/mounted", owner=owner)
    else:
        actions = actions.copy(
            source.output, source.path, "/mounted", owner=owner, expected=source.expected
        )
    return actions.done(platform=source.platform)


@operation("Container.withMountedFile")
async def with_mounted_file(
    engine: Engine,
    self: ContainerState,
    path: str,
    source: FileState,
    owner: str = "",
    expand: bool = False,
) -> ContainerState:
    # Copied out of its tree for the same reason as a part of a directory is.
    inside = f"/{source.name}"
    actions = FileActions(None).copy(
        source.output,
        source.path,
        inside,
        owner=await engine.owner(self.rootfs, owner) if owner else None,
        expected=source.expected,
    )
    output = actions.done(platform=self.platform)
    return mounted(self, Mount(resolve(self, path, expand), MountKind.FILE, output, inside))


@operation("Container.withMountedCache")
async def with_mounted_cache(
    engine: Engine,
    self: ContainerState,
    path: str,
    cache: CacheState,
    source: DirectoryState | None = None,
    sharing: str = "SHARED",
    owner: str = "",
    expand: bool = False,
) -> ContainerState:
    source = source or cache.source
    owner = owner or cache.owner
    chosen = sharing if sharing != "SHARED" else cache.sharing
    mount = Mount(resolve(self, path, expand), MountKind.CACHE, cache=cache, sharing=chosen)
    if owner:
        # It starts as a directory that belongs to them, and is kept apart from others' by that.
        numbers = await engine.numeric_owner(self.rootfs, owner)
        base = _owned(source or DirectoryState(platform=self.platform), owner_of(numbers, None))
        key = f"{cache.key}:{numbers}"
        mount = replace(mount, output=base, path="/mounted", cache=replace(cache, key=key))
    elif source is not None:
        mount = replace(mount, output=at_root(source))
    return mounted(self, mount)


@operation("Container.withMountedTemp")
def with_mounted_temp(
    engine: Engine,
    self: ContainerState,
    path: str,
    size: int | None = None,
    expand: bool = False,
) -> ContainerState:
    if size is not None and size < 0:
        raise QueryFailed(f"the size of a temporary mount cannot be {size} bytes")
    target = resolve(self, path, expand)
    return mounted(self, Mount(target, MountKind.TEMPORARY, size=size or 0))


@operation("Container.withMountedSecret")
async def with_mounted_secret(
    engine: Engine,
    self: ContainerState,
    path: str,
    source: SecretState,
    owner: str = "",
    mode: int | None = 0o400,
    expand: bool = False,
) -> ContainerState:
    numbers = await engine.numeric_owner(self.rootfs, owner)
    mount = Mount(
        resolve(self, path, expand), MountKind.SECRET, secret=source, owner=numbers, mode=mode
    )
    return mounted(self, mount)


@operation("Container.withUnixSocket")
async def with_unix_socket(
    engine: Engine,
    self: ContainerState,
    path: str,
    source: SocketState,
    owner: str = "",
    expand: bool = False,
) -> ContainerState:
    numbers = await engine.numeric_owner(self.rootfs, owner)
    target = resolve(self, path, expand)
    return mounted(self, Mount(target, MountKind.SOCKET, socket=source, owner=numbers))


@operation("Container.withoutMount", "Container.withoutUnixSocket")
def without_mount(
    engine: Engine, self: ContainerState, path: str, expand: bool = False
) -> ContainerState:
    target = resolve(self, path, expand)
    return replace(self, mounts=tuple(m for m in self.mounts if m.target != target))
