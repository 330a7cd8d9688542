"""A container's files: read, written and removed, in its root file system or what is mounted."""

from __future__ import annotations

import stat as modes
from collections.abc import Sequence
from dataclasses import replace

from buildonce.engine.engine import Engine
from buildonce.engine.llb import FileActions
from buildonce.engine.operations import operation
from buildonce.engine.operations.directory import copied, written
from buildonce.engine.paths import edit, locate, owner_of, parent, resolve
from buildonce.engine.states import ContainerState, DirectoryState, FileState


@operation("Container.directory")
async def directory(
    engine: Engine, self: ContainerState, path: str, expand: bool = False
) -> DirectoryState:
    output, inside = locate(self, resolve(self, path, expand))
    await engine.expect_kind(output, inside, path, directory=True)
    return DirectoryState(output, inside, self.platform)


@operation("Container.file")
async def file(engine: Engine, self: ContainerState, path: str, expand: bool = False) -> FileState:
    output, inside = locate(self, resolve(self, path, expand))
    await engine.expect_kind(output, inside, path, directory=False)
    assert output is not None
    return FileState(output, inside, self.platform)


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


@operation("Container.withDirectory")
def with_directory(
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
    owned = owner_of(owner, self.rootfs)
    return edit(
        self,
        resolve(self, path, expand),
        lambda actions, at: copied(
            actions, at, source, include=include, exclude=exclude, owner=owned, mode=permissions
        ),
    )


@operation("Container.withFile")
def with_file(
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
    owned = owner_of(owner, self.rootfs)
    return edit(
        self,
        target,
        lambda actions, at: actions.copy(
            source.output, source.path, at, owner=owned, mode=permissions
        ),
    )


@operation("Container.withFiles")
def with_files(
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
        self = with_file(engine, self, f"{folder}/{source.name}", source, permissions, owner)
    return self


@operation("Container.withNewFile")
def with_new_file(
    engine: Engine,
    self: ContainerState,
    path: str,
    contents: str,
    permissions: int | None = 0o644,
    owner: str = "",
    expand: bool = False,
) -> ContainerState:
    owned = owner_of(owner, self.rootfs)
    return edit(
        self,
        resolve(self, path, expand),
        lambda actions, at: written(actions, at, contents, mode=permissions, owner=owned),
    )


@operation("Container.withSymlink")
def with_symlink(
    engine: Engine, self: ContainerState, target: str, link_name: str, expand: bool = False
) -> ContainerState:
    return edit(
        self,
        resolve(self, link_name, expand),
        lambda actions, at: actions.mkdir(parent(at)).symlink(target, at),
    )


@operation("Container.withoutDirectory", "Container.withoutFile")
def without_path(
    engine: Engine, self: ContainerState, path: str, expand: bool = False
) -> ContainerState:
    return edit(self, resolve(self, path, expand), lambda actions, at: actions.remove(at))


@operation("Container.withoutFiles")
def without_files(
    engine: Engine, self: ContainerState, paths: Sequence[str], expand: bool = False
) -> ContainerState:
    for path in paths:
        self = without_path(engine, self, path, expand)
    return self


@operation("Directory.chown")
async def directory_chown(
    engine: Engine, self: DirectoryState, path: str, owner: str
) -> DirectoryState:
    from buildonce.engine.operations.directory import inside, rooted

    at = inside(self, path)
    kind = await engine.stat(self.output, at)
    actions = FileActions(self.output).copy(
        self.output,
        at,
        at,
        contents=modes.S_ISDIR(kind.mode) or kind.is_dir,
        owner=owner_of(owner, None),
    )
    return rooted(replace(self, output=actions.done(platform=self.platform)), self.path)
