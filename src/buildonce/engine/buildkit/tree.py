"""A list of files as it is sent to the daemon, and its digest.

The digest is over what a build can depend on: paths, types, permissions, link targets, contents;
never over times and owners, so two checkouts of one commit are the same tree.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import fsencode
from pathlib import Path
from typing import NamedTuple

from buildonce.engine.buildkit import filemode
from buildonce.engine.buildkit.patterns import Inherited, Matcher

MAX_LINKS = 255


class Entry(NamedTuple):
    """One file, directory or symbolic link.

    Attributes:
        path: relative to the root, with slashes; bytes that are no UTF-8 are surrogates.
        mode: as Go has it, see `filemode`.
        size: of a file, in bytes.
        mtime_ns: nanoseconds since 1970.
        target: of a symbolic link, as it stands in the link.
        content: sha256 of a file's content; b"" for everything else.
    """

    path: str
    mode: int
    size: int
    mtime_ns: int
    target: str
    content: bytes

    @property
    def is_dir(self) -> bool:
        return bool(self.mode & filemode.DIRECTORY)

    @property
    def is_file(self) -> bool:
        return not self.mode & filemode.TYPE


def order(path: str) -> bytes:
    """The key by which the daemon wants paths sorted: by bytes, with a directory's content right
    after it, before names that continue the directory's own (`a`, `a/b`, `a-b`)."""
    return fsencode(path).replace(b"/", b"\0")


@dataclass(frozen=True)
class Tree:
    """Entries below a root, in the daemon's order, each after its directory."""

    root: Path
    entries: Sequence[Entry]

    @cached_property
    def digest(self) -> str:
        """`sha256:…` of the content."""
        total = hashlib.sha256()
        for path, mode, _size, _mtime, target, content in self.entries:
            name, link = fsencode(path), fsencode(target)
            total.update(b"%x %d %d %d " % (mode, len(name), len(link), len(content)))
            total.update(name + link + content)
        return "sha256:" + total.hexdigest()

    @property
    def size(self) -> int:
        """Bytes in all its files."""
        return sum(entry.size for entry in self.entries)

    def select(
        self,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        follow: Sequence[str] = (),
    ) -> Tree:
        """The part of it that patterns select, with the directories on the way there.

        Args:
            follow: paths to include together with all that their symbolic links lead to.
        """
        if follow:
            include = [*include, *self._followed(follow)]
        if not include and not exclude:
            return self
        return Tree(self.root, list(filtered(self.entries, include, exclude)))

    def _followed(self, paths: Iterable[str]) -> list[str]:
        links = {e.path: e.target for e in self.entries if e.mode & filemode.SYMLINK}
        found: dict[str, None] = {}
        pending = [posixpath.normpath(p).lstrip("/") for p in paths]
        while pending and len(found) < MAX_LINKS * (len(pending) + 1):
            path = pending.pop()
            if path in found:
                continue
            found[path] = None
            matcher = Matcher([path])
            for link, target in links.items():
                if path == link or path.startswith(link + "/") or matcher.matches(link):
                    rest = path[len(link) :] if path.startswith(link) else ""
                    base = "" if target.startswith("/") else posixpath.dirname(link)
                    joined = posixpath.normpath("/" + posixpath.join(base, target.lstrip("/")))
                    pending.append(joined.lstrip("/") + rest)
        # Everything: a link that leads to the root itself, or "." as such.
        return [] if "" in found or "." in found else list(found)


def filtered(
    entries: Iterable[Entry], include: Sequence[str], exclude: Sequence[str]
) -> Iterable[Entry]:
    """The entries that `include` (all, when empty) matches and `exclude` does not, each after the
    directories it is in."""
    wanted, unwanted = Matcher(include), Matcher(exclude)
    select = selector(wanted, unwanted)
    # The directories above the entry: the entry, what it inherits, whether it was given.
    states: list[tuple[Inherited, Inherited]] = []
    names: list[str] = []
    pending: list[Entry | None] = []
    for entry in entries:
        while names and not entry.path.startswith(names[-1]):
            names.pop()
            states.pop()
            pending.pop()
        selected, state = select(entry.path, states[-1] if states else ((), ()))
        if selected:
            for number, directory in enumerate(pending):
                if directory is not None:
                    yield directory
                    pending[number] = None
            yield entry
        if entry.is_dir:
            names.append(entry.path + "/")
            states.append(state)
            pending.append(None if selected else entry)


State = tuple[Inherited, Inherited]


def selector(wanted: Matcher, unwanted: Matcher) -> Callable[[str, State], tuple[bool, State]]:
    """A function that says whether a path is selected, and what its children inherit."""

    def select(path: str, parent: State) -> tuple[bool, State]:
        selected, above, below = True, parent[0], parent[1]
        if wanted:
            selected, above = wanted.match(path, parent[0])
        if unwanted:
            hit, below = unwanted.match(path, parent[1])
            selected = selected and not hit
        return selected, (above, below)

    return select
