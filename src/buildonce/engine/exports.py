"""Results written to the client's machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from buildonce.engine.buildkit import Export
from buildonce.engine.errors import QueryFailed
from buildonce.engine.fileops import FileActions
from buildonce.engine.llb import Output
from buildonce.engine.states import FileState

if TYPE_CHECKING:
    from buildonce.engine.engine import Engine


class Exports:
    """Writes what the graph made to where the client asked for it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def target(self, path: str) -> Path:
        """`path` as the client means it, seen from where it was started."""
        if not path or "\0" in path:
            raise QueryFailed(f"{path!r} is not a path to export to")
        return Path(os.path.normpath(self._engine.options.workdir / Path(path).expanduser()))

    async def directory(self, output: Output | None, path: str, *, wipe: bool = False) -> str:
        """Write a tree into the folder `path`, over what is there; `wipe` leaves nothing else.

        Nothing there is touched before the tree is complete.
        """
        target = self.target(path)
        if target.exists() and not target.is_dir():
            raise QueryFailed(f"cannot export to {path}: it is a file")
        await self._engine.reference(output)
        await anyio.to_thread.run_sync(_make_folder, target)
        if output is None and not wipe:
            return str(target)
        if not wipe:
            await self.write(output, target)
            return str(target)
        fresh = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            if output is not None:
                await self.write(output, fresh)
            await anyio.to_thread.run_sync(lambda: _replace(target, fresh))
        finally:
            await anyio.to_thread.run_sync(lambda: shutil.rmtree(fresh, ignore_errors=True))
        return str(target)

    async def write(self, output: Output | None, target: Path) -> None:
        """Write a tree into a folder that is there, over what it holds."""
        engine = self._engine
        await engine.client.solve(
            engine.as_run(output), engine.session, exports=[Export.local(target)]
        )

    async def file(self, file: FileState, path: str, *, into_folder: bool = False) -> str:
        """Write a file to `path`, whole or not at all."""
        target = self.target(path)
        if target.is_dir():
            if not (into_folder or path.endswith("/")):
                raise QueryFailed(
                    f"cannot export the file {file.name} to {path}: it is a directory "
                    "(allowParentDirPath puts it inside)"
                )
            target /= file.name
        await self._engine.stat(file.output, file.path)
        await anyio.to_thread.run_sync(_make_folder, target.parent)
        fresh = Path(tempfile.mkdtemp(dir=target.parent, prefix=".buildonce."))
        try:
            actions = FileActions(None).copy(file.output, file.path, "/file")
            await self.write(actions.done(platform=file.platform), fresh)
            await anyio.to_thread.run_sync(lambda: (fresh / "file").replace(target))
        finally:
            await anyio.to_thread.run_sync(lambda: shutil.rmtree(fresh, ignore_errors=True))
        return str(self.target(path))


def _make_folder(path: Path) -> None:
    """Make a folder, and those above it, for nobody but their owner."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)


def _replace(target: Path, fresh: Path) -> None:
    """Make `target` hold what `fresh` holds, keeping the folder itself (it may be a mount)."""
    for old in target.iterdir():
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        else:
            old.unlink()
    for item in fresh.iterdir():
        item.rename(target / item.name)
