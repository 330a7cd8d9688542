"""Directories: immutable trees of files, edited by making new ones."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import replace

from buildonce.engine import inspection
from buildonce.engine.apart import apart
from buildonce.engine.engine import Engine
from buildonce.engine.errors import QueryFailed
from buildonce.engine.fileops import FileActions, Owner
from buildonce.engine.llb import Expected, Output, diff
from buildonce.engine.operations import operation
from buildonce.engine.paths import at_root, parent
from buildonce.engine.states import DirectoryState, FileState, absolute

MAX_NAME = 255  # bytes, on every file system that matters


def inside(directory: DirectoryState, path: str) -> str:
    """`path` of the directory as a path of the output that it is in.

    It may lead above the directory, which is a view of a larger tree, but never above that.
    """
    return absolute(f"{directory.path}/{path}")


def clean(path: str) -> str:
    """`path` on its own: what is absolute begins at the directory, and never leads above it."""
    return absolute(path) if path.startswith("/") else posixpath.normpath(path or ".")


def edited(directory: DirectoryState, actions: FileActions) -> DirectoryState:
    """`directory` after `actions`, which began with it."""
    return DirectoryState(
        actions.done(platform=directory.platform), directory.path, directory.platform
    )


async def present(engine: Engine, thing: DirectoryState | FileState) -> None:
    """Make sure that what was asked for without looking is there."""
    await engine.reference(thing.output)
    if thing.expected is not None:
        await engine.expect(thing.expected)


def copied(
    actions: FileActions,
    at: str,
    source: DirectoryState,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    owner: Owner | None = None,
    mode: int | None = None,
) -> FileActions:
    """Lay the content of `source` over the directory `at`."""
    if source.output is None:
        return actions.mkdir(at, mode=0o755 if mode is None else mode, owner=owner)
    return actions.copy(
        source.output,
        source.path,
        at,
        contents=True,
        include=include,
        exclude=exclude,
        owner=owner,
        mode=mode,
        expected=source.expected,
    )


def written(
    actions: FileActions,
    at: str,
    contents: str,
    *,
    mode: int | None = None,
    owner: Owner | None = None,
) -> FileActions:
    """Write a file at `at`."""
    if at == "/":
        raise QueryFailed("a file cannot be written at /: it is a directory")
    return actions.mkfile(at, contents.encode(), mode=0o644 if mode is None else mode, owner=owner)


@operation("Directory.sync")
async def sync(engine: Engine, self: DirectoryState) -> None:
    await present(engine, self)


@operation("Directory.name")
async def name(engine: Engine, self: DirectoryState) -> str:
    await present(engine, self)
    return f"{self.path.rstrip('/').rsplit('/', 1)[-1]}/"


@operation("Directory.directory")
def directory(engine: Engine, self: DirectoryState, path: str) -> DirectoryState:
    return replace(self, path=inside(self, path), shown=path or "/")


@operation("Directory.file")
async def file(engine: Engine, self: DirectoryState, path: str) -> FileState:
    await present(engine, self)
    await engine.expect(Expected(self.output, inside(self, path), path, directory=False))
    assert self.output is not None
    return FileState(self.output, inside(self, path), self.platform)


@operation("Directory.withDirectory")
async def with_directory(
    engine: Engine,
    self: DirectoryState,
    path: str,
    source: DirectoryState,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    gitignore: bool = False,
    owner: str = "",
    permissions: int | None = None,
) -> DirectoryState:
    if gitignore:
        exclude = [*exclude, *await inspection.ignored(engine, source)]
    actions = copied(
        FileActions(self.output, self.expected),
        inside(self, path),
        source,
        include=include,
        exclude=exclude,
        owner=await engine.owner(self.output, owner),
        mode=permissions,
    )
    return edited(self, actions)


@operation("Directory.filter")
async def filter_(
    engine: Engine,
    self: DirectoryState,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    gitignore: bool = False,
) -> DirectoryState:
    if self.output is None:
        return self
    if gitignore:
        exclude = [*exclude, *await inspection.ignored(engine, self)]
    actions = FileActions(None).copy(
        self.output,
        self.path,
        "/",
        contents=True,
        include=include,
        exclude=exclude,
        expected=self.expected,
    )
    return DirectoryState(actions.done(platform=self.platform), "/", self.platform)


@operation("Directory.withFile")
async def with_file(
    engine: Engine,
    self: DirectoryState,
    path: str,
    source: FileState,
    permissions: int | None = None,
    owner: str = "",
) -> DirectoryState:
    at = inside(self, path)
    if path.endswith("/") or at == self.path:
        at = f"{at.rstrip('/')}/{source.name}"
    actions = FileActions(self.output, self.expected).copy(
        source.output,
        source.path,
        at,
        mode=permissions,
        owner=await engine.owner(self.output, owner),
        expected=source.expected,
    )
    return edited(self, actions)


@operation("Directory.withFiles")
def with_files(
    engine: Engine,
    self: DirectoryState,
    path: str,
    sources: Sequence[FileState],
    permissions: int | None = None,
) -> DirectoryState:
    if not sources:
        return with_new_directory(engine, self, path)
    actions = FileActions(self.output, self.expected)
    folder = inside(self, clean(path)).rstrip("/")
    for source in sources:
        actions = actions.copy(
            source.output,
            source.path,
            f"{folder}/{source.name}",
            mode=permissions,
            expected=source.expected,
        )
    return edited(self, actions)


@operation("Directory.withNewFile")
def with_new_file(
    engine: Engine,
    self: DirectoryState,
    path: str,
    contents: str,
    permissions: int | None = 0o644,
) -> DirectoryState:
    at = inside(self, path)
    if len(at.rpartition("/")[2].encode()) > MAX_NAME:
        raise QueryFailed(f"File name length exceeds the maximum supported {MAX_NAME} characters")
    actions = written(FileActions(self.output, self.expected), at, contents, mode=permissions)
    return edited(self, actions)


@operation("Directory.withNewDirectory")
def with_new_directory(
    engine: Engine, self: DirectoryState, path: str, permissions: int | None = None
) -> DirectoryState:
    path = clean(path)
    if path.startswith("../"):
        raise QueryFailed(f"cannot create directory outside parent: {path}")
    actions = FileActions(self.output, self.expected).mkdir(
        inside(self, path), mode=0o755 if permissions is None else permissions
    )
    return edited(self, actions)


@operation("Directory.withSymlink")
def with_symlink(
    engine: Engine, self: DirectoryState, target: str, link_name: str
) -> DirectoryState:
    at = inside(self, link_name)
    actions = FileActions(self.output, self.expected)
    if parent(at) != "/":
        actions = actions.mkdir(parent(at))
    return edited(self, linked(actions, self.output, target, at))


def linked(actions: FileActions, output: Output | None, target: str, at: str) -> FileActions:
    """A link at `at`, where `output` must have nothing yet."""
    return actions.symlink(target, at, Expected(output, at, f"symlink {target} {at}", None))


@operation("Directory.withTimestamps")
def with_timestamps(engine: Engine, self: DirectoryState, timestamp: int) -> DirectoryState:
    if self.output is None:
        return self
    actions = FileActions(None).copy(
        self.output,
        self.path,
        "/",
        contents=True,
        timestamp=timestamp * 1_000_000_000,
        expected=self.expected,
    )
    return DirectoryState(actions.done(platform=self.platform), "/", self.platform)


@operation("Directory.withoutDirectory", "Directory.withoutFile")
def without_path(engine: Engine, self: DirectoryState, path: str) -> DirectoryState:
    return without_files(engine, self, [path])


@operation("Directory.withoutFiles")
def without_files(engine: Engine, self: DirectoryState, paths: Sequence[str]) -> DirectoryState:
    if self.output is None or not paths:
        return self
    actions = FileActions(self.output, self.expected)
    for path in paths:
        at = inside(self, path)
        if at == "/":
            raise QueryFailed(f"{path} cannot be removed: it is the root")
        actions = actions.remove(at, wildcard="*" in path)
    return edited(self, actions)


@operation("Directory.diff")
def diff_(engine: Engine, self: DirectoryState, other: DirectoryState) -> DirectoryState:
    if other.output is None:
        return DirectoryState(platform=self.platform)
    lower, upper = at_root(self), at_root(other)
    output = diff(lower and apart(lower), upper and apart(upper), platform=self.platform)
    # The daemon's result for no difference is none at all, and it panics where an action on that
    # fails (v0.26): this makes it an empty directory.
    some = FileActions(output).mkdir("/").done(platform=self.platform)
    return DirectoryState(some, "/", self.platform)


@operation("Directory.chown")
async def chown(engine: Engine, self: DirectoryState, path: str, owner: str) -> DirectoryState:
    at = inside(self, path)
    owned = await engine.owner(self.output, owner)
    if at == "/":
        actions = FileActions(None).copy(self.output, at, at, contents=True, owner=owned)
    else:
        # Laid over what is there, a copy would leave the directory itself to its old owner.
        folder = f"{parent(at).rstrip('/')}/"
        actions = (
            FileActions(self.output, self.expected)
            .remove(at)
            .copy(self.output, at, folder, owner=owned)
        )
    return edited(self, actions)


@operation("Directory.withError")
def with_error(engine: Engine, self: DirectoryState, err: str) -> DirectoryState:
    if err:
        raise QueryFailed(err)
    return self


@operation("Directory.export")
async def export(engine: Engine, self: DirectoryState, path: str, wipe: bool = False) -> str:
    await present(engine, self)
    return await engine.exports.directory(at_root(self), path, wipe=wipe)
