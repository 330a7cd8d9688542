"""A container's files: read, written and removed, in its root file system or what is mounted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from buildonce.engine import inspection
from buildonce.engine.engine import Engine
from buildonce.engine.errors import QueryFailed
from buildonce.engine.inspection import There
from buildonce.engine.operations import operation
from buildonce.engine.operations.directory import copied, linked, written
from buildonce.engine.paths import (
    edit,
    expand_variables,
    locate,
    mount_of,
    parent,
    resolve,
)
from buildonce.engine.states import ContainerState, DirectoryState, FileState


@operation("Container.directory")
def directory(
    engine: Engine, self: ContainerState, path: str, expand: bool = False
) -> DirectoryState:
    at = resolve(self, path, expand)
    output, inside = locate(self, at)
    return DirectoryState(output, inside, self.platform, shown=at)


@operation("Container.file")
def file(engine: Engine, self: ContainerState, path: str, expand: bool = False) -> FileState:
    at = resolve(self, path, expand)
    output, inside = locate(self, at)
    if output is None:
        raise QueryFailed(f"stat {at}: no such file or directory")
    return FileState(output, inside, self.platform, shown=at)


@operation("Container.exists")
async def exists(
    engine: Engine,
    self: ContainerState,
    path: str,
    expected_type: str | None = None,
    do_not_follow_symlinks: bool = False,
    expand: bool = False,
) -> bool:
    output, inside = locate(self, resolve(self, path, expand))
    return await engine.exists(output, inside, expected_type, follow=not do_not_follow_symlinks)


@operation("Container.stat")
async def stat(
    engine: Engine,
    self: ContainerState,
    path: str,
    do_not_follow_symlinks: bool = False,
    expand: bool = False,
) -> There:
    at = resolve(self, path, expand)
    output, inside = locate(self, at)
    return await inspection.there(engine, output, inside, at, follow=not do_not_follow_symlinks)


@operation("Container.withDirectory")
async def with_directory(
    engine: Engine,
    self: ContainerState,
    path: str,
    source: DirectoryState,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    gitignore: bool = False,
    owner: str = "",
    expand: bool = False,
    permissions: int | None = None,
) -> ContainerState:
    if gitignore:
        exclude = [*exclude, *await inspection.ignored(engine, source)]
    owned = await engine.owner(self.rootfs, owner)
    return edit(
        self,
        resolve(self, path, expand),
        lambda actions, at: copied(
            actions, at, source, include=include, exclude=exclude, owner=owned
        ),
    )


@operation("Container.withFile")
async def with_file(
    engine: Engine,
    self: ContainerState,
    path: str,
    source: FileState,
    permissions: int | None = None,
    owner: str = "",
    expand: bool = False,
) -> ContainerState:
    target = resolve(self, path, expand)
    if path.endswith("/"):
        target = f"{target.rstrip('/')}/{source.name}"
    owned = await engine.owner(self.rootfs, owner)
    return edit(
        self,
        target,
        lambda actions, at: actions.copy(
            source.output,
            source.path,
            at,
            owner=owned,
            mode=permissions,
            expected=source.expected,
        ),
    )


@operation("Container.withFiles")
async def with_files(
    engine: Engine,
    self: ContainerState,
    path: str,
    sources: Sequence[FileState],
    permissions: int | None = None,
    owner: str = "",
    expand: bool = False,
) -> ContainerState:
    folder = resolve(self, path, expand).rstrip("/")
    for source in sources:
        self = await with_file(engine, self, f"{folder}/{source.name}", source, permissions, owner)
    return self


@operation("Container.withNewFile")
async def with_new_file(
    engine: Engine,
    self: ContainerState,
    path: str,
    contents: str,
    permissions: int | None = 0o644,
    owner: str = "",
    expand: bool = False,
) -> ContainerState:
    owned = await engine.owner(self.rootfs, owner)
    return edit(
        self,
        resolve(self, path, expand),
        lambda actions, at: written(actions, at, contents, mode=permissions, owner=owned),
    )


@operation("Container.withSymlink")
def with_symlink(
    engine: Engine, self: ContainerState, target: str, link_name: str, expand: bool = False
) -> ContainerState:
    target = expand_variables(self, target) if expand else target
    place = resolve(self, link_name, expand)
    output, _ = locate(self, place)
    return edit(
        self,
        place,
        lambda actions, at: linked(actions.mkdir(parent(at)), output, target, at),
    )


@operation("Container.withoutDirectory", "Container.withoutFile")
def without_path(
    engine: Engine, self: ContainerState, path: str, expand: bool = False
) -> ContainerState:
    place = resolve(self, path, expand)
    if (mount := mount_of(self, place)) is not None and mount.target == place:
        self = replace(self, mounts=tuple(m for m in self.mounts if m is not mount))
    return edit(self, place, lambda actions, at: actions.remove(at, wildcard="*" in path))


@operation("Container.withoutFiles")
def without_files(
    engine: Engine, self: ContainerState, paths: Sequence[str], expand: bool = False
) -> ContainerState:
    for path in paths:
        self = without_path(engine, self, path, expand)
    return self
