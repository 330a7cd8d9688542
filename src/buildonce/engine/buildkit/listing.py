"""Listing a directory of this machine, with the hashes of what is in it.

tree = await walk(Path("src"), exclude=["**/__pycache__"], cache=places.cache() / "hashes")
tree.digest           # "sha256:…"; the same for the same content, wherever and whenever
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import anyio.to_thread

from buildonce.engine.buildkit import filemode
from buildonce.engine.buildkit.errors import BuildkitError
from buildonce.engine.buildkit.gitignore import NAME as GITIGNORE
from buildonce.engine.buildkit.gitignore import Level, outermost
from buildonce.engine.buildkit.gitignore import read as read_patterns
from buildonce.engine.buildkit.hashes import Hashes, Identity, hash_file
from buildonce.engine.buildkit.tree import Entry, Selection, State, Tree

# More would not end in a useful time, and is always a mistake: somebody's home directory, say.
MAX_ENTRIES = 2_000_000

READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_LISTED = frozenset((stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK))


class CannotRead(BuildkitError):
    """A directory or a file in it cannot be read."""


async def walk(
    root: Path,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    gitignore: bool = False,
    cache: Path | None = None,
) -> Tree:
    """List `root` and hash its files.

    Symbolic links are listed as such and never followed, except `root` itself. Sockets, pipes and
    devices are left out.

    Args:
        include: patterns (see `patterns`) of what to list; everything when empty.
        exclude: patterns of what not to list, even if included.
        gitignore: leave out what git ignores, by the .gitignore files in and above `root`.
        cache: folder where hashes of unchanged files are kept.

    Raises:
        CannotRead: something cannot be read; names it.
        BadPattern: a pattern is malformed.
    """
    job = _Walk(root, Selection(include, exclude), use_gitignore=gitignore)
    return await anyio.to_thread.run_sync(job.run, cache)


class _Frame(NamedTuple):
    """A directory that is being listed."""

    items: Iterator[os.DirEntry[str]]
    prefix: str
    level: Level | None
    state: State


class _Walk:
    def __init__(self, root: Path, selection: Selection, *, use_gitignore: bool) -> None:
        self._given = root
        self._selection = selection
        self._use_gitignore = use_gitignore
        self._entries: list[Entry] = []
        self._files: list[tuple[int, Identity]] = []  # by number of their entry
        self._root = ""
        self._top = ""  # what leads from the repository's top to the root

    def run(self, cache: Path | None) -> Tree:
        try:
            root = self._given.resolve(strict=True)
            level: Level | None = None
            if self._use_gitignore:
                level, self._top = outermost(root)
        except (OSError, RuntimeError) as error:
            raise _problem(error, self._given) from error
        if not root.is_dir():
            raise CannotRead(f"{self._given} is not a directory")
        self._root = str(root)
        self._list(level)
        self._hash(cache)
        return Tree(root, self._entries)

    # -- listing --------------------------------------------------------------------------------

    def _list(self, level: Level | None) -> None:
        stack = [self._open("", level, ((), ()))]
        # For each directory above: its entry, while nothing in it has been selected.
        pending: list[Entry | None] = [None]
        while stack:
            frame = stack[-1]
            item = next(frame.items, None)
            if item is None:
                stack.pop()
                pending.pop()
                continue
            try:
                found = item.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # gone since the directory was read
            except OSError as error:
                raise _problem(error, item.path) from error
            kind = stat.S_IFMT(found.st_mode)
            if kind not in _LISTED:
                continue
            directory = kind == stat.S_IFDIR
            path = frame.prefix + item.name
            if frame.level is not None and frame.level.ignores(self._top + path, directory):
                continue
            selected, descend, state = True, True, frame.state
            if self._selection:
                selected, descend, state = self._selection.test(path, frame.state)
            if not selected and not (directory and descend):
                continue
            entry = self._entry(path, found, item)
            if selected:
                self._add_all(pending)
                self._add(entry, found if kind == stat.S_IFREG else None)
            if directory and descend:
                stack.append(self._open(path, frame.level, state))
                pending.append(None if selected else entry)

    def _add_all(self, pending: list[Entry | None]) -> None:
        """Add the directories above what was selected, each once."""
        for number, above in enumerate(pending):
            if above is not None:
                self._add(above, None)
                pending[number] = None

    def _open(self, path: str, level: Level | None, state: State) -> _Frame:
        full = f"{self._root}/{path}" if path else self._root
        prefix = path + "/" if path else ""
        try:
            with os.scandir(full) as found:
                items = sorted(found, key=_name)
            if level is not None and any(item.name == GITIGNORE for item in items):
                level = level.inside(self._top + prefix, read_patterns(Path(full)))
        except OSError as error:
            raise _problem(error, full) from error
        return _Frame(iter(items), prefix, level, state)

    def _entry(self, path: str, found: os.stat_result, item: os.DirEntry[str]) -> Entry:
        mode = filemode.to_go(found.st_mode)
        if mode & filemode.SYMLINK:
            try:
                target = os.readlink(item.path)  # noqa: PTH115 - no Path in the hot loop
            except OSError as error:
                raise _problem(error, item.path) from error
            return Entry(path, mode, 0, found.st_mtime_ns, target, b"")
        size = 0 if mode & filemode.DIRECTORY else found.st_size
        return Entry(path, mode, size, found.st_mtime_ns, "", b"")

    def _add(self, entry: Entry, file: os.stat_result | None) -> None:
        if len(self._entries) >= MAX_ENTRIES:
            raise CannotRead(
                f"{self._given} has more than {MAX_ENTRIES} files and directories",
                remedy="name a smaller directory, or leave parts out with exclude=",
            )
        if file is not None:
            self._files.append((len(self._entries), _identity(file)))
        self._entries.append(entry)

    # -- hashing --------------------------------------------------------------------------------

    def _hash(self, cache: Path | None) -> None:
        hashes = Hashes(cache)
        try:
            known = hashes.known([identity for _, identity in self._files])
            new: list[tuple[Identity, bytes]] = []
            for number, identity in self._files:
                entry = self._entries[number]
                digest = known.get(identity)
                if digest is None:
                    identity, digest = self._read(entry.path)
                    new.append((identity, digest))
                self._entries[number] = Entry(
                    entry.path, entry.mode, identity.size, identity.mtime, "", digest
                )
            hashes.remember(new)
        finally:
            hashes.close()

    def _read(self, path: str) -> tuple[Identity, bytes]:
        full = f"{self._root}/{path}"
        try:
            number = os.open(full, READ_FLAGS)
            try:
                # Taken before reading: a change meanwhile makes it another file the next time.
                identity = _identity(os.fstat(number))
                return identity, hash_file(number)
            finally:
                os.close(number)
        except OSError as error:
            raise _problem(error, full) from error


def _name(item: os.DirEntry[str]) -> bytes:
    return os.fsencode(item.name)


def _identity(found: os.stat_result) -> Identity:
    return Identity(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _problem(error: Exception, path: object) -> CannotRead:
    cause = getattr(error, "strerror", None) or error
    return CannotRead(
        f"{os.fsencode(str(path)).decode(errors='backslashreplace')} cannot be read: {cause}",
        remedy="make it readable, or leave it out with exclude=",
    )
