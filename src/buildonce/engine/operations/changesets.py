"""Changes between two directories: told, applied, merged; and patches."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import anyio

from buildonce.engine.engine import Engine
from buildonce.engine.errors import QueryFailed
from buildonce.engine.fileops import FileActions
from buildonce.engine.merging import merged
from buildonce.engine.operations import operation
from buildonce.engine.operations.directory import diff_, edited, present
from buildonce.engine.states import ChangesetState, DirectoryState, FileState
from buildonce.engine.worktrees import Difference, difference, git, outermost, sent, written
from buildonce.engine.worktrees import edited as worked_on
from buildonce.engine.worktrees import patch as patch_of

PATCH = "diff.patch"


@dataclass(frozen=True, slots=True)
class DiffStatState:
    """What has become of one path.

    Attributes:
        kind: `ADDED`, `MODIFIED`, `REMOVED` or `RENAMED`, the last from `old_path`.
    """

    path: str
    kind: str
    old_path: str | None = None
    lines: tuple[int, int] = (0, 0)


async def compared(engine: Engine, changes: ChangesetState) -> tuple[Path, Difference]:
    """The folder in which `a` and `b` are the two directories, and what is different."""

    async def compare() -> tuple[Path, Difference]:
        root = engine.scratch_folder()
        await written(engine, changes.before, root / "a")
        await written(engine, changes.after, root / "b")
        return root, await difference(root)

    return await engine.remember(changes, compare)


async def _difference(engine: Engine, changes: ChangesetState) -> Difference:
    if changes.before == changes.after:
        return Difference()
    return (await compared(engine, changes))[1]


@operation("Directory.changes")
def changes(engine: Engine, self: DirectoryState, from_: DirectoryState) -> ChangesetState:
    return ChangesetState(from_, self)


@operation("Query.changeset")
def no_changes(engine: Engine, self: None) -> ChangesetState:
    nothing = DirectoryState(platform=engine.platform)
    return ChangesetState(nothing, nothing)


@operation("Changeset.before")
def before(engine: Engine, self: ChangesetState) -> DirectoryState:
    return self.before


@operation("Changeset.after")
def after(engine: Engine, self: ChangesetState) -> DirectoryState:
    return self.after


@operation("Changeset.sync")
async def sync(engine: Engine, self: ChangesetState) -> None:
    await present(engine, self.before)
    await present(engine, self.after)


@operation("Changeset.isEmpty")
async def is_empty(engine: Engine, self: ChangesetState) -> bool:
    found = await _difference(engine, self)
    return not (found.added or found.modified or found.removed)


@operation("Changeset.addedPaths")
async def added(engine: Engine, self: ChangesetState) -> list[str]:
    return list((await _difference(engine, self)).added)


@operation("Changeset.modifiedPaths")
async def modified(engine: Engine, self: ChangesetState) -> list[str]:
    return list((await _difference(engine, self)).modified)


@operation("Changeset.removedPaths")
async def removed(engine: Engine, self: ChangesetState) -> list[str]:
    return outermost((await _difference(engine, self)).removed)


@operation("Changeset.diffStats")
async def diff_stats(engine: Engine, self: ChangesetState) -> list[DiffStatState]:
    found = await _difference(engine, self)
    lines, renamed = found.lines or {}, found.renamed or {}
    olds = set(renamed.values())
    stats = [
        *((path, "RENAMED" if path in renamed else "ADDED") for path in found.added),
        *((path, "MODIFIED") for path in found.modified),
        *((path, "REMOVED") for path in found.removed if path not in olds),
    ]
    return [
        DiffStatState(path, kind, renamed.get(path), lines.get(path, (0, 0)))
        for path, kind in sorted(stats)
    ]


@operation("DiffStat.path")
async def stat_path(engine: Engine, self: DiffStatState) -> str:
    return self.path


@operation("DiffStat.oldPath")
async def stat_old_path(engine: Engine, self: DiffStatState) -> str | None:
    return self.old_path


@operation("DiffStat.kind")
async def stat_kind(engine: Engine, self: DiffStatState) -> str:
    return self.kind


@operation("DiffStat.addedLines")
async def stat_added(engine: Engine, self: DiffStatState) -> int:
    return self.lines[0]


@operation("DiffStat.removedLines")
async def stat_removed(engine: Engine, self: DiffStatState) -> int:
    return self.lines[1]


@operation("Changeset.layer")
def layer(engine: Engine, self: ChangesetState) -> DirectoryState:
    return diff_(engine, self.before, self.after)


@operation("Changeset.asPatch")
async def as_patch(engine: Engine, self: ChangesetState) -> FileState:
    root, _ = await compared(engine, self)
    folder = engine.scratch_folder()
    (folder / PATCH).write_bytes(await patch_of(root))
    made = await sent(engine, folder)
    assert made.output is not None
    return FileState(made.output, f"/{PATCH}", engine.platform)


@operation("Changeset.export")
async def export(engine: Engine, self: ChangesetState, path: str) -> str:
    found = await _difference(engine, self)
    written_to = await engine.exports.directory(layer(engine, self).output, path)
    gone = outermost(found.removed)
    await anyio.to_thread.run_sync(lambda: _remove(Path(written_to), gone))
    return written_to


def _remove(root: Path, paths: Sequence[str]) -> None:
    for path in paths:
        _remove_one(root, path)


def _remove_one(root: Path, path: str) -> None:
    """Remove a path below `root`; a link on the way there is not followed."""
    *above, name = path.rstrip("/").split("/")
    numbers = [os.open(root, os.O_RDONLY | os.O_DIRECTORY)]
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            for folder in above:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                numbers.append(os.open(folder, flags, dir_fd=numbers[-1]))
            about = os.stat(name, dir_fd=numbers[-1], follow_symlinks=False)
            if stat.S_ISDIR(about.st_mode):
                shutil.rmtree(name, dir_fd=numbers[-1])
            else:
                os.unlink(name, dir_fd=numbers[-1])
    finally:
        for number in numbers:
            os.close(number)


@operation("Directory.withChanges")
async def with_changes(
    engine: Engine, self: DirectoryState, changes: ChangesetState
) -> DirectoryState:
    actions = FileActions(self.output, self.expected)
    base = self.path.rstrip("/")
    for path in outermost((await _difference(engine, changes)).removed):
        actions = actions.remove(f"{base}/{path.rstrip('/')}")
    new = layer(engine, changes)
    actions = actions.copy(new.output, "/", self.path, contents=True)
    return edited(self, actions)


@operation("Changeset.withChangeset")
async def with_changeset(
    engine: Engine, self: ChangesetState, changes: ChangesetState, on_conflict: str = "FAIL"
) -> ChangesetState:
    return await merged(engine, self, [changes], on_conflict)


@operation("Changeset.withChangesets")
async def with_changesets(
    engine: Engine,
    self: ChangesetState,
    changes: Sequence[ChangesetState],
    on_conflict: str = "FAIL",
) -> ChangesetState:
    return await merged(engine, self, changes, on_conflict) if changes else self


@operation("Directory.withPatchFile")
async def with_patch_file(engine: Engine, self: DirectoryState, patch: FileState) -> DirectoryState:
    await present(engine, patch)
    return await _patched(engine, self, await engine.read(patch.output, patch.path))


@operation("Directory.withPatch")
async def with_patch(engine: Engine, self: DirectoryState, patch: str) -> DirectoryState:
    return await _patched(engine, self, patch.encode(errors="surrogateescape"))


async def _patched(engine: Engine, self: DirectoryState, data: bytes) -> DirectoryState:
    if not data:
        return self
    touched = await _touched(engine, data)

    async def work(folder: Path) -> None:
        await git(folder, "apply", "--allow-empty", "-", stdin=data)

    await present(engine, self)
    return await worked_on(engine, self, work, touches=touched) if touched else self


async def _touched(engine: Engine, patch: bytes) -> list[str]:
    """The paths that a patch is about, the old names of renamed ones too."""
    folder = engine.scratch_folder()
    paths: set[str] = set()
    for direction in ([], ["--reverse"]):
        words = ["apply", "--allow-empty", "--numstat", "-z", *direction, "-"]
        listed = await git(folder, *words, stdin=patch)
        for line in listed.split(b"\0"):
            path = os.fsdecode(line.split(b"\t", 2)[-1])
            if path:
                paths.add(path)
    if any(path.startswith("/") or ".." in path.split("/") for path in paths):
        raise QueryFailed("git apply: the patch leads out of the directory")
    return sorted(paths)
