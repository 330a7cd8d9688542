"""Files: one path of a tree."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO

from buildonce.engine import inspection
from buildonce.engine.engine import Engine
from buildonce.engine.errors import QueryFailed
from buildonce.engine.fileops import FileActions, Owner
from buildonce.engine.inspection import Found, There
from buildonce.engine.operations import operation
from buildonce.engine.operations.directory import present
from buildonce.engine.states import DirectoryState, FileState

MAX_CONTENTS = 128 << 20  # bytes; as Dagger limits it


@operation("File.sync")
async def sync(engine: Engine, self: FileState) -> None:
    await present(engine, self)


@operation("File.name")
async def name(engine: Engine, self: FileState) -> str:
    await present(engine, self)
    return self.name


@operation("File.size")
async def size(engine: Engine, self: FileState) -> int:
    await present(engine, self)
    return (await engine.stat(self.output, self.path)).size


@operation("File.contents")
async def contents(
    engine: Engine,
    self: FileState,
    offset_lines: int | None = None,
    limit_lines: int | None = None,
) -> str:
    await present(engine, self)
    data = await engine.read(self.output, self.path, limit=MAX_CONTENTS)
    text = data.decode(errors="replace")
    if offset_lines is None and limit_lines is None:
        return text
    lines = _lines(text)[max(0, offset_lines or 0) :]
    return "".join(lines if limit_lines is None else lines[: max(0, limit_lines)])


def _lines(text: str) -> list[str]:
    """The lines of a text, each with the line feed that ends it; nothing else ends one."""
    return StringIO(text, newline="\n").readlines()


def _places(text: str, search: str) -> str:
    """Where `search` is in `text`: `line 1 (1-2), line 4 (0-1)`, in bytes from the line's start."""
    places = []
    for found in re.finditer(re.escape(search), text):
        start = text.rfind("\n", 0, found.start()) + 1
        first = len(text[start : found.start()].encode())
        line = text.count("\n", 0, start) + 1
        places.append(f"line {line} ({first}-{first + len(search.encode())})")
    return ", ".join(places)


@operation("File.digest")
async def digest(engine: Engine, self: FileState, exclude_metadata: bool = False) -> str:
    await present(engine, self)
    return await inspection.digest(engine, self.output, self.path, content_only=exclude_metadata)


@operation("File.stat")
async def stat(engine: Engine, self: FileState) -> There:
    await present(engine, self)
    shown = self.shown or self.name
    return await inspection.there(engine, self.output, self.path, shown, follow=True)


@operation("File.withName")
def with_name(engine: Engine, self: FileState, name: str) -> FileState:
    if "/" in name or name in ("", ".", ".."):
        raise QueryFailed(f"{name!r} is not the name of a file")
    return _copied(self, name)


@operation("File.withTimestamps")
def with_timestamps(engine: Engine, self: FileState, timestamp: int) -> FileState:
    return _copied(self, self.name, timestamp=timestamp * 1_000_000_000)


@operation("File.chown")
async def chown(engine: Engine, self: FileState, owner: str) -> FileState:
    return _copied(self, self.name, owner=await engine.owner(self.output, owner))


def _copied(
    file: FileState, name: str, *, timestamp: int = -1, owner: Owner | None = None
) -> FileState:
    actions = FileActions(None).copy(
        file.output,
        file.path,
        f"/{name}",
        timestamp=timestamp,
        owner=owner,
        expected=file.expected,
    )
    return FileState(actions.done(platform=file.platform), f"/{name}", file.platform)


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
    skipped = "".join(_lines(text)[: max(0, (first_from or 1) - 1)])
    rest = text[len(skipped) :]
    if all and search and search not in rest:
        return self
    if not search or search not in rest:
        raise QueryFailed("search string not found")
    if not all and first_from is None and rest.count(search) > 1:
        raise QueryFailed(f"search string found multiple times: {_places(text, search)}")
    text = skipped + rest.replace(search, replacement, -1 if all else 1)
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
