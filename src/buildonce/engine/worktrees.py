"""Git, run on the client's machine over copies of what the graph holds.

Nothing in BuildKit compares trees by content, applies patches or reads repositories. So a tree is
written to the session's private folder, git works there, and what has become different is sent
back. Trees are hostile: git sees no configuration but its own defaults, no hooks, and no
repository but one that was made here.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import anyio

from buildonce.engine.errors import QueryFailed
from buildonce.engine.fileops import FileActions
from buildonce.engine.paths import at_root, literal
from buildonce.engine.states import DirectoryState

if TYPE_CHECKING:
    from buildonce.engine.engine import Engine

_IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Dagger"), ("EMAIL", "dagger@localhost"))
}
_ALONE = {
    **_IDENTITY,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "HOME": os.devnull,
    "LC_ALL": "C",
}


_LOGIN = re.compile(r"://[^/@\s]+@")

# Without a repository named, git would look for one in what it compares.
NOWHERE = {"GIT_DIR": os.devnull}


async def git(
    folder: Path,
    *args: str,
    environment: Mapping[str, str] | None = None,
    reaching: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    fine: Collection[int] = (0,),
) -> bytes:
    """What git prints, run in `folder`.

    Args:
        environment: more variables; git's own of the user do not count.
        reaching: for a command that goes to another machine: all its variables, those of the
            user's git (logins, certificates) among them.
        fine: the exit codes that are no failure.

    Raises:
        QueryFailed: git is missing, or has failed; with the last of its words.
    """
    outside = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    alone = {**outside, **_ALONE, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    try:
        # From a file: git that ends before it has read all of a pipe would fail the writer.
        with TemporaryFile() as given:
            given.write(stdin)
            given.seek(0)
            done = await anyio.run_process(
                ["git", "-c", "gc.auto=0", "-c", "maintenance.auto=false", *args],
                cwd=folder,
                stdin=given,
                env=reaching or {**alone, **(environment or {})},
                check=False,
            )
    except FileNotFoundError:
        raise QueryFailed("git is not installed on this machine: install it to use this") from None
    if done.returncode not in fine:
        said = (done.stderr.strip() or done.stdout.strip()).decode(errors="replace")
        command = next((arg for arg in args if not arg.startswith("-")), "")
        told = without_login(said) or f"exit code {done.returncode}"
        raise QueryFailed(f"git {command}: {told}")
    return done.stdout


def without_login(text: str) -> str:
    """`https://user:password@host/x` as `https://host/x`, wherever it stands in `text`."""
    return _LOGIN.sub("://", text)


async def written(
    engine: Engine, directory: DirectoryState, folder: Path, *, include: Sequence[str] = ()
) -> Path:
    """Write a directory, or the part of it that `include` names, into the new folder `folder`."""
    root = at_root(directory)
    folder.mkdir(parents=True)
    if root is None:
        return folder
    if include:
        part = FileActions(None).copy(root, "/", "/", contents=True, include=include)
        root = part.done(platform=directory.platform)
    await engine.exports.write(root, folder)
    return folder


async def sent(engine: Engine, folder: Path, *, include: Sequence[str] = ()) -> DirectoryState:
    """A folder of this machine, which must stay as it is, as a directory."""
    output = await engine.uploads.directory(
        folder, include=include, shown="what git made", made_here=True
    )
    return DirectoryState(output, "/", engine.platform)


@dataclass(frozen=True, slots=True)
class Difference:
    """How one folder differs from another: paths, folders with a slash at the end.

    Attributes:
        renamed: old path by new one; both are also in `added` and `removed`.
        lines: added and removed lines by path.
    """

    added: tuple[str, ...] = ()
    modified: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    renamed: Mapping[str, str] | None = None
    lines: Mapping[str, tuple[int, int]] | None = None


async def patch(root: Path) -> bytes:
    """What makes the folder `b` in `root` of `a`, beside it, for `git apply`."""
    # Of names in lines about a renaming, git strips less than of others: it could not apply them.
    words = ["diff", "--binary", "--no-renames", "--no-prefix", "--no-index", "a", "b"]
    return await git(root, *words, environment=NOWHERE, fine=(0, 1))


async def difference(root: Path, *, renames: bool = True) -> Difference:
    """What the folder `b` in `root` has that `a`, beside it, has not, and the reverse."""
    words = ["diff", "--no-index", "-z", *([] if renames else ["--no-renames"])]
    named = await git(root, *words, "--name-status", "a", "b", environment=NOWHERE, fine=(0, 1))
    counted = await git(root, *words, "--numstat", "a", "b", environment=NOWHERE, fine=(0, 1))
    added, modified, removed, renamed = _statuses(named)
    before, after = _folders(root / "a"), _folders(root / "b")
    return Difference(
        tuple(sorted([*added, *renamed, *(after - before)])),
        tuple(sorted(modified)),
        tuple(sorted([*removed, *renamed.values(), *(before - after)])),
        renamed,
        _line_counts(counted),
    )


def _statuses(output: bytes) -> tuple[list[str], list[str], list[str], dict[str, str]]:
    added: list[str] = []
    modified: list[str] = []
    removed: list[str] = []
    renamed: dict[str, str] = {}
    words = iter(_words(output))
    for status in words:
        path = next(words)
        match status[0]:
            case "A":
                added.append(_inner(path))
            case "D":
                removed.append(_inner(path))
            case "R":
                renamed[_inner(next(words))] = _inner(path)
            case "C":
                added.append(_inner(next(words)))
            case _:
                modified.append(_inner(path))
    return added, modified, removed, renamed


def _line_counts(output: bytes) -> dict[str, tuple[int, int]]:
    counts: dict[str, tuple[int, int]] = {}
    words = iter(_words(output))
    for word in words:
        plus, minus, path = word.split("\t", 2)
        if not path:  # the old name and the new one follow
            old, new = next(words), next(words)
            path = old if new == os.devnull else new
        counts[_inner(path)] = _count(plus), _count(minus)
    return counts


def _count(text: str) -> int:
    return int(text) if text.isdecimal() else 0  # of what is no text git counts no lines


def _words(output: bytes) -> list[str]:
    return [os.fsdecode(word) for word in output.split(b"\0") if word]


def _inner(path: str) -> str:
    """A path below `a` or `b`."""
    return path.partition("/")[2]


def _folders(root: Path) -> set[str]:
    found = (Path(above, name) for above, names, _ in os.walk(root) for name in names)
    return {f"{one.relative_to(root)}/" for one in found if not one.is_symlink()}


def outermost(paths: Sequence[str]) -> list[str]:
    """Sorted paths without those that lie in folders among them."""
    kept: list[str] = []
    for path in sorted(paths):
        if not (kept and kept[-1].endswith("/") and path.startswith(kept[-1])):
            kept.append(path)
    return kept


async def edited(
    engine: Engine,
    directory: DirectoryState,
    work: Callable[[Path], Awaitable[None]],
    *,
    touches: Sequence[str] = (),
) -> DirectoryState:
    """`directory` after `work` was done in a folder that holds it.

    Args:
        touches: the paths that `work` looks at and changes, where it is known; empty: any.
    """
    root = engine.scratch_folder()
    before = await written(engine, directory, root / "a", include=[literal(p) for p in touches])
    after = root / "b"
    await anyio.to_thread.run_sync(lambda: shutil.copytree(before, after, symlinks=True))
    await work(after)
    changed = await difference(root, renames=False)
    if touches:
        changed = replace(changed, removed=await _really_removed(engine, directory, changed))
    return await overlaid(engine, directory, after, changed)


async def _really_removed(
    engine: Engine, directory: DirectoryState, changed: Difference
) -> tuple[str, ...]:
    """What has gone, but of folders only those that hold nothing else."""
    gone = {path for path in changed.removed if not path.endswith("/")}
    folders = {path for path in changed.removed if path.endswith("/")}
    for folder in sorted(folders, key=lambda path: path.count("/"), reverse=True):
        there = await engine.entries(directory.output, f"{directory.path.rstrip('/')}/{folder}")
        names = (f"{folder}{entry.name}" + "/" * entry.is_dir for entry in there)
        if all(name in gone for name in names):
            gone.add(folder)
    return tuple(sorted(gone))


async def overlaid(
    engine: Engine, directory: DirectoryState, folder: Path, changed: Difference
) -> DirectoryState:
    """`directory` with what `changed` names as it is in `folder`."""
    gone = outermost([*changed.removed, *changed.modified])
    new = [path for path in (*changed.added, *changed.modified) if not path.endswith("/")]
    if not gone and not new:
        return directory
    actions = FileActions(directory.output, directory.expected)
    base = directory.path.rstrip("/")
    for path in gone:
        actions = actions.remove(f"{base}/{path.rstrip('/')}")
    if new:
        source = await sent(engine, folder, include=[literal(path) for path in new])
        actions = actions.copy(source.output, "/", directory.path, contents=True)
    # Where a link is in the way, git would not have followed it.
    output = actions.done(platform=directory.platform, gives_way=False)
    return replace(directory, output=output, shown="")
