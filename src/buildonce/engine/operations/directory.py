"""Directories: immutable trees of files, edited by making new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from buildonce.engine import inspection
from buildonce.engine.engine import Engine
from buildonce.engine.errors import QueryFailed
from buildonce.engine.inspection import Found, Match
from buildonce.engine.llb import FileActions, Owner, diff
from buildonce.engine.operations import operation
from buildonce.engine.paths import at_root, owner_of, parent
from buildonce.engine.states import DirectoryState, FileState, absolute


def inside(directory: DirectoryState, path: str) -> str:
    """`path` of the directory as a path of the output that it is in; never above it."""
    return absolute(directory.path + "/" + absolute(path).lstrip("/"))


def rooted(directory: DirectoryState, path: str) -> DirectoryState:
    """`directory` seen from `path`."""
    return replace(directory, path=path)


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
    )


def written(
    actions: FileActions,
    at: str,
    contents: str,
    *,
    mode: int | None = None,
    owner: Owner | None = None,
) -> FileActions:
    """Write a file at `at`, making the folders above it."""
    if parent(at) != "/":
        actions = actions.mkdir(parent(at))
    return actions.mkfile(at, contents.encode(), mode=0o644 if mode is None else mode, owner=owner)


@operation("Directory.sync")
async def sync(engine: Engine, self: DirectoryState) -> None:
    await engine.expect_kind(self.output, self.path, self.path, directory=True)


@operation("Directory.name")
async def name(engine: Engine, self: DirectoryState) -> str:
    return f"{self.path.rstrip('/').rsplit('/', 1)[-1]}/"


@operation("Directory.directory")
async def directory(engine: Engine, self: DirectoryState, path: str) -> DirectoryState:
    at = inside(self, path)
    await engine.expect_kind(self.output, at, path, directory=True)
    return replace(self, path=at)


@operation("Directory.file")
async def file(engine: Engine, self: DirectoryState, path: str) -> FileState:
    at = inside(self, path)
    await engine.expect_kind(self.output, at, path, directory=False)
    assert self.output is not None
    return FileState(self.output, at, self.platform)


@operation("Directory.entries")
async def entries(engine: Engine, self: DirectoryState, path: str | None = None) -> list[str]:
    found = await engine.entries(self.output, inside(self, path or "."))
    return [f"{item.name}/" if item.is_dir else item.name for item in found]


@operation("Directory.exists")
async def exists(
    engine: Engine,
    self: DirectoryState,
    path: str,
    expected_type: str | None = None,
    do_not_follow_symlinks: bool = False,
) -> bool:
    return await engine.exists(
        self.output, inside(self, path), expected_type, follow=not do_not_follow_symlinks
    )


@operation("Directory.glob")
async def glob(engine: Engine, self: DirectoryState, pattern: str) -> list[str]:
    return await inspection.glob(engine, self, pattern)


@operation("Directory.digest")
async def digest(engine: Engine, self: DirectoryState) -> str:
    return await inspection.digest(engine, self.output, self.path)


@operation("Directory.search")
async def search(
    engine: Engine,
    self: DirectoryState,
    pattern: str,
    paths: Sequence[str] = (),
    globs: Sequence[str] = (),
    literal: bool = False,
    multiline: bool = False,
    dotall: bool = False,
    insensitive: bool = False,
    skip_ignored: bool = False,
    skip_hidden: bool = False,
    files_only: bool = False,
    limit: int | None = None,
) -> list[Found]:
    return await inspection.search(
        engine,
        self,
        pattern,
        paths=list(paths),
        globs=list(globs),
        literal=literal,
        multiline=multiline,
        dotall=dotall,
        insensitive=insensitive,
        skip_ignored=skip_ignored,
        skip_hidden=skip_hidden,
        files_only=files_only,
        limit=limit,
    )


@operation("Directory.withDirectory")
def with_directory(
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
    actions = copied(
        FileActions(self.output),
        inside(self, path),
        source,
        include=include,
        exclude=exclude,
        owner=owner_of(owner, None),
        mode=permissions,
    )
    return replace(self, output=actions.done(platform=self.platform))


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
        self.output, self.path, "/", contents=True, include=include, exclude=exclude
    )
    return replace(self, output=actions.done(platform=self.platform), path="/")


@operation("Directory.withFile")
def with_file(
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
    actions = FileActions(self.output).copy(
        source.output, source.path, at, mode=permissions, owner=owner_of(owner, None)
    )
    return replace(self, output=actions.done(platform=self.platform))


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
    actions = FileActions(self.output)
    folder = inside(self, path).rstrip("/")
    for source in sources:
        actions = actions.copy(
            source.output, source.path, f"{folder}/{source.name}", mode=permissions
        )
    return replace(self, output=actions.done(platform=self.platform))


@operation("Directory.withNewFile")
def with_new_file(
    engine: Engine,
    self: DirectoryState,
    path: str,
    contents: str,
    permissions: int | None = 0o644,
) -> DirectoryState:
    actions = written(FileActions(self.output), inside(self, path), contents, mode=permissions)
    return replace(self, output=actions.done(platform=self.platform))


@operation("Directory.withNewDirectory")
def with_new_directory(
    engine: Engine, self: DirectoryState, path: str, permissions: int | None = None
) -> DirectoryState:
    if ".." in path.split("/"):
        raise QueryFailed(f"cannot create directory outside parent: {path}")
    actions = FileActions(self.output).mkdir(
        inside(self, path), mode=0o755 if permissions is None else permissions
    )
    return replace(self, output=actions.done(platform=self.platform))


@operation("Directory.withSymlink")
def with_symlink(
    engine: Engine, self: DirectoryState, target: str, link_name: str
) -> DirectoryState:
    at = inside(self, link_name)
    actions = FileActions(self.output)
    if parent(at) != "/":
        actions = actions.mkdir(parent(at))
    return replace(self, output=actions.symlink(target, at).done(platform=self.platform))


@operation("Directory.withTimestamps")
def with_timestamps(engine: Engine, self: DirectoryState, timestamp: int) -> DirectoryState:
    if self.output is None:
        return self
    actions = FileActions(None).copy(
        self.output, self.path, "/", contents=True, timestamp=timestamp * 1_000_000_000
    )
    return replace(self, output=actions.done(platform=self.platform), path="/")


@operation("Directory.withoutDirectory", "Directory.withoutFile")
def without_path(engine: Engine, self: DirectoryState, path: str) -> DirectoryState:
    return without_files(engine, self, [path])


@operation("Directory.withoutFiles")
def without_files(engine: Engine, self: DirectoryState, paths: Sequence[str]) -> DirectoryState:
    if self.output is None or not paths:
        return self
    actions = FileActions(self.output)
    for path in paths:
        actions = actions.remove(inside(self, path), wildcard=True)
    return replace(self, output=actions.done(platform=self.platform))


@operation("Directory.diff")
def diff_(engine: Engine, self: DirectoryState, other: DirectoryState) -> DirectoryState:
    if other.output is None:
        return DirectoryState(platform=self.platform)
    return replace(
        self, output=diff(at_root(self), at_root(other), platform=self.platform), path="/"
    )


@operation("Directory.export")
async def export(engine: Engine, self: DirectoryState, path: str, wipe: bool = False) -> str:
    await engine.expect_kind(self.output, self.path, self.path, directory=True)
    return await engine.exports.directory(at_root(self), path, wipe=wipe)


@operation("Directory.findUp")
async def find_up(engine: Engine, self: DirectoryState, name: str, start: str) -> str | None:
    at = absolute(start)
    while True:
        candidate = absolute(f"{at}/{name}")
        if await engine.exists(self.output, inside(self, candidate), None, follow=True):
            return candidate.lstrip("/")
        if at == "/":
            return None
        at = parent(at)


# -- what a search found ----------------------------------------------------------------------


@operation("SearchResult.filePath")
async def found_path(engine: Engine, self: Found) -> str:
    return self.path


@operation("SearchResult.lineNumber")
async def found_line(engine: Engine, self: Found) -> int:
    return self.line


@operation("SearchResult.absoluteOffset")
async def found_offset(engine: Engine, self: Found) -> int:
    return self.offset


@operation("SearchResult.matchedLines")
async def found_text(engine: Engine, self: Found) -> str:
    return self.text


@operation("SearchResult.submatches")
async def found_matches(engine: Engine, self: Found) -> list[Match]:
    return list(self.matches)


@operation("SearchSubmatch.text")
async def match_text(engine: Engine, self: Match) -> str:
    return self.text


@operation("SearchSubmatch.start")
async def match_start(engine: Engine, self: Match) -> int:
    return self.start


@operation("SearchSubmatch.end")
async def match_end(engine: Engine, self: Match) -> int:
    return self.end
