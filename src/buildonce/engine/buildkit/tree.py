"""A list of files as it is sent to the daemon, and its digest.

The digest is over what a build can depend on: paths, types, permissions, link targets, contents;
never over times and owners, so two checkouts of one commit are the same tree.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable, Iterator, Sequence
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


State = tuple[Inherited, Inherited]


class Selection:
    """What to list: all that `include` matches (everything, when empty), without what `exclude`
    matches."""

    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        """
        Raises:
            BadPattern: a pattern is malformed.
        """
        self._include = Matcher(include)
        self._exclude = Matcher(exclude)

    def __bool__(self) -> bool:
        return bool(self._include or self._exclude)

    def test(self, path: str, above: State) -> tuple[bool, bool, State]:
        """Whether `path` is selected, whether, as a directory, it may hold what is, and what the
        paths in it are to be tested with; `above` is that of its own directory, ((), ()) at the
        top."""
        selected = descend = True
        included, excluded = above
        if self._include:
            selected, included = self._include.match(path, included)
            descend = selected or self._include.may_select_below(path)
        if self._exclude:
            hit, excluded = self._exclude.match(path, excluded)
            if hit:
                selected = False
                descend = descend and self._exclude.may_except_below(path)
        return selected, descend, (included, excluded)


def filtered(
    entries: Iterable[Entry], include: Sequence[str], exclude: Sequence[str]
) -> Iterator[Entry]:
    """The entries that patterns select, each after the directories it is in."""
    selection = Selection(include, exclude)
    above: list[tuple[str, State]] = []
    pending: list[Entry | None] = []  # the directories above that nothing was selected in so far
    for entry in entries:
        while above and not entry.path.startswith(above[-1][0]):
            above.pop()
            pending.pop()
        selected, _, state = selection.test(entry.path, above[-1][1] if above else ((), ()))
        if selected:
            yield from (directory for directory in pending if directory is not None)
            pending = [None] * len(pending)
            yield entry
        if entry.is_dir:
            above.append((entry.path + "/", state))
            pending.append(None if selected else entry)
