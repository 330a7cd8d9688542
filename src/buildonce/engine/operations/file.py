"""Files: one path of a tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from buildonce.engine import inspection
from buildonce.engine.engine import Engine
from buildonce.engine.errors import QueryFailed
from buildonce.engine.inspection import Found
from buildonce.engine.llb import FileActions
from buildonce.engine.operations import operation
from buildonce.engine.paths import owner_of
from buildonce.engine.states import DirectoryState, FileState

MAX_CONTENTS = 128 << 20  # bytes; as Dagger limits it


@operation("File.sync")
async def sync(engine: Engine, self: FileState) -> None:
    await engine.stat(self.output, self.path)


@operation("File.name")
async def name(engine: Engine, self: FileState) -> str:
    return self.name


@operation("File.size")
async def size(engine: Engine, self: FileState) -> int:
    return (await engine.stat(self.output, self.path)).size


@operation("File.contents")
async def contents(
    engine: Engine,
    self: FileState,
    offset_lines: int | None = None,
    limit_lines: int | None = None,
) -> str:
    data = await engine.read(self.output, self.path, limit=MAX_CONTENTS)
    text = data.decode(errors="replace")
    if offset_lines is None and limit_lines is None:
        return text
    lines = text.splitlines(keepends=True)[max(0, offset_lines or 0) :]
    return "".join(lines if limit_lines is None else lines[: max(0, limit_lines)])


@operation("File.digest")
async def digest(engine: Engine, self: FileState, exclude_metadata: bool = False) -> str:
    return await inspection.digest(engine, self.output, self.path, content_only=exclude_metadata)


@operation("File.withName")
def with_name(engine: Engine, self: FileState, name: str) -> FileState:
    if "/" in name or name in ("", ".", ".."):
        raise QueryFailed(f"{name!r} is not a file name: it must not hold a slash")
    return _copied(self, name)


@operation("File.withTimestamps")
def with_timestamps(engine: Engine, self: FileState, timestamp: int) -> FileState:
    return _copied(self, self.name, timestamp=timestamp * 1_000_000_000)


@operation("File.chown")
def chown(engine: Engine, self: FileState, owner: str) -> FileState:
    return _copied(self, self.name, owner=owner)


def _copied(file: FileState, name: str, *, timestamp: int = -1, owner: str = "") -> FileState:
    actions = FileActions(None).copy(
        file.output, file.path, f"/{name}", timestamp=timestamp, owner=owner_of(owner, None)
    )
    return replace(file, output=actions.done(platform=file.platform), path=f"/{name}")


@operation("File.withReplaced")
async def with_replaced(
    engine: Engine,
    self: FileState,
    search: str,
    replacement: str,
    all: bool = False,
    first_from: int | None = None,
) -> FileState:
    stat = await engine.stat(self.output, self.path)
    text = (await engine.read(self.output, self.path, limit=MAX_CONTENTS)).decode()
    count = text.count(search) if search else 0
    if all:
        text = text.replace(search, replacement)
    else:
        lines = text.splitlines(keepends=True)
        skipped = "".join(lines[: max(0, (first_from or 1) - 1)])
        rest = text[len(skipped) :]
        if first_from is None and count > 1:
            raise QueryFailed(f"search string found {count} times; replace all or say from where")
        if search not in rest or not search:
            raise QueryFailed("search string not found")
        text = skipped + rest.replace(search, replacement, 1)
    actions = FileActions(None).mkfile(f"/{self.name}", text.encode(), mode=stat.mode & 0o7777)
    return replace(self, output=actions.done(platform=self.platform), path=f"/{self.name}")


@operation("File.search")
async def search(
    engine: Engine,
    self: FileState,
    pattern: str,
    literal: bool = False,
    multiline: bool = False,
    dotall: bool = False,
    insensitive: bool = False,
    skip_ignored: bool = False,
    skip_hidden: bool = False,
    files_only: bool = False,
    limit: int | None = None,
    paths: Sequence[str] = (),
    globs: Sequence[str] = (),
) -> list[Found]:
    folder = self.path.rsplit("/", 1)[0] or "/"
    return await inspection.search(
        engine,
        DirectoryState(self.output, folder, self.platform),
        pattern,
        paths=[self.name],
        globs=[],
        literal=literal,
        multiline=multiline,
        dotall=dotall,
        insensitive=insensitive,
        skip_ignored=False,
        skip_hidden=False,
        files_only=files_only,
        limit=limit,
    )


@operation("File.export")
async def export(
    engine: Engine, self: FileState, path: str, allow_parent_dir_path: bool = False
) -> str:
    return await engine.exports.file(self, path, into_folder=allow_parent_dir_path)
