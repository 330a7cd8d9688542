"""Sets of changes merged into one, by git: each is a branch of what they start from."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from buildonce.engine.errors import QueryFailed
from buildonce.engine.fileops import FileActions
from buildonce.engine.states import ChangesetState, DirectoryState
from buildonce.engine.worktrees import Difference, difference, edited, git, patch, written

if TYPE_CHECKING:
    from buildonce.engine.engine import Engine

_TWICE = "path added in both changesets"
_MODIFIED = "path modified in both changesets"
_REMOVED = "path modified in one changeset and removed in the other"
_SIDE = {"PREFER_OURS": "ours", "PREFER_THEIRS": "theirs"}


async def merged(
    engine: Engine, ours: ChangesetState, others: Sequence[ChangesetState], on_conflict: str
) -> ChangesetState:
    """`ours` and all `others` as one set of changes.

    Args:
        on_conflict: `FAIL_EARLY`: no path may be changed by two; `FAIL`: no line may;
            `LEAVE_CONFLICT_MARKERS`, `PREFER_OURS`, `PREFER_THEIRS`: with one other, how to settle
            it.

    Raises:
        QueryFailed: they contradict each other; names the paths.
    """
    root = engine.scratch_folder()
    sides = [ours, *others]
    found: list[Difference] = []
    patches: list[bytes] = []
    for number, side in enumerate(sides):
        folder = root / str(number)
        await written(engine, side.before, folder / "a")
        await written(engine, side.after, folder / "b")
        found.append(await difference(folder))
        patches.append(await patch(folder))
    conflicts = _conflicts(found)
    if conflicts and on_conflict == "FAIL_EARLY":
        told = (f'conflict between changesets at path "{path}": {why}' for path, why in conflicts)
        raise QueryFailed("\n".join(told))

    async def work(folder: Path) -> None:
        names = ["ours", *(["theirs"] if len(patches) == 2 else _numbered(len(patches) - 1))]
        await _branches(folder, dict(zip(names, patches, strict=True)))
        side = _SIDE.get(on_conflict)
        strategy = ["-X", side] if side else []
        lenient = on_conflict not in ("FAIL", "FAIL_EARLY")
        fine = range(256) if lenient else (0,)
        await git(folder, "merge", "--no-edit", "--no-commit", *strategy, *names[1:], fine=fine)
        if lenient:
            await _settle(folder, conflicts, found[0], found[1], on_conflict)
        await anyio.to_thread.run_sync(lambda: shutil.rmtree(folder / ".git"))

    before = _together(engine, sides)
    return ChangesetState(before, await edited(engine, before, work))


def _together(engine: Engine, sides: Sequence[ChangesetState]) -> DirectoryState:
    """What all of them start from; git's own folder is not part of it."""
    actions = FileActions(None).mkdir("/")
    for side in sides:
        if side.before.output is not None:
            actions = actions.copy(side.before.output, side.before.path, "/", contents=True)
    return DirectoryState(
        actions.remove("/.git").done(platform=engine.platform), "/", engine.platform
    )


def _numbered(count: int) -> list[str]:
    return [f"branch_{number}" for number in range(count)]


async def _branches(folder: Path, patches: Mapping[str, bytes]) -> None:
    """Make a repository of the folder, with a branch for each patch; check the first out."""
    await git(folder, "init", "--quiet", "--initial-branch=base", "--template=")
    await git(folder, "add", "--all")
    await git(folder, "commit", "--quiet", "--allow-empty", "-m", "base")
    for name, changes in patches.items():
        await git(folder, "checkout", "--quiet", "-b", name, "base")
        if changes:
            await git(folder, "apply", "--allow-empty", "-", stdin=changes)
        await git(folder, "add", "--all")
        await git(folder, "commit", "--quiet", "--allow-empty", "-m", name)
    await git(folder, "checkout", "--quiet", "ours")


def _conflicts(found: Sequence[Difference]) -> list[tuple[str, str]]:
    conflicts: dict[tuple[str, str], None] = {}
    for number, one in enumerate(found):
        for other in found[number + 1 :]:
            pairs = [(path, _TWICE) for path in one.added if path in other.added]
            for path in one.modified:
                if path in other.modified:
                    pairs.append((path, _MODIFIED))
                elif path in other.removed:
                    pairs.append((path, _REMOVED))
            pairs += [(path, _REMOVED) for path in one.removed if path in other.modified]
            conflicts.update(dict.fromkeys(pairs))
    return list(conflicts)


async def _settle(
    folder: Path,
    conflicts: Sequence[tuple[str, str]],
    ours: Difference,
    theirs: Difference,
    on_conflict: str,
) -> None:
    """Keep or remove what one side has changed and the other has removed."""
    for path, why in conflicts:
        if why != _REMOVED:
            continue
        by_us, by_them = path in ours.removed, path in theirs.removed
        use_ours = on_conflict == "PREFER_OURS"
        if on_conflict == "LEAVE_CONFLICT_MARKERS":
            use_ours = by_them and not by_us
        if by_us if use_ours else by_them:
            await git(folder, "rm", "--quiet", "--force", "--", path)
        else:
            side = "--ours" if use_ours else "--theirs"
            await git(folder, "checkout", "--quiet", side, "--", path)
