"""Directories: what is in them, found and searched."""

from __future__ import annotations

from collections.abc import Sequence

from buildonce.engine import inspection
from buildonce.engine.engine import Engine
from buildonce.engine.errors import QueryFailed
from buildonce.engine.inspection import Found, There
from buildonce.engine.llb import Expected
from buildonce.engine.operations import operation
from buildonce.engine.operations.directory import inside, present
from buildonce.engine.paths import parent
from buildonce.engine.states import DirectoryState, absolute


@operation("Directory.entries")
async def entries(engine: Engine, self: DirectoryState, path: str | None = None) -> list[str]:
    await present(engine, self)
    at = inside(self, path or ".")
    if path:
        await engine.expect(Expected(self.output, at, path, directory=True))
    found = await engine.entries(self.output, at)
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


@operation("Directory.stat")
async def stat(
    engine: Engine, self: DirectoryState, path: str, do_not_follow_symlinks: bool = False
) -> There:
    await present(engine, self)
    if not path:
        raise QueryFailed("stat : no such file or directory")
    at = inside(self, path)
    return await inspection.there(engine, self.output, at, path, follow=not do_not_follow_symlinks)


@operation("Directory.glob")
async def glob(engine: Engine, self: DirectoryState, pattern: str) -> list[str]:
    await present(engine, self)
    return await inspection.glob(engine, self, pattern)


@operation("Directory.digest")
async def digest(engine: Engine, self: DirectoryState) -> str:
    await present(engine, self)
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
    await present(engine, self)
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
