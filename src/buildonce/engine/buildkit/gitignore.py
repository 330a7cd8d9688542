"""Which files git ignores, by the `.gitignore` files of a repository.

A pattern counts from its file's directory; the last one that matches decides, a deeper file before
a higher one; nothing below an ignored directory can be taken back.
"""

from __future__ import annotations

from pathlib import Path

from pathspec import GitIgnoreSpec

NAME = ".gitignore"


class Level:
    """The patterns that apply in one directory: its own, then those above."""

    __slots__ = ("_base", "_outer", "_spec")

    def __init__(self, spec: GitIgnoreSpec | None, base: str, outer: Level | None) -> None:
        """
        Args:
            base: the directory's path from the repository's top, "" or ending with a slash.
        """
        self._spec = spec
        self._base = base
        self._outer = outer

    def ignores(self, path: str, directory: bool) -> bool:
        """Whether a path, from the repository's top, in this directory is ignored."""
        name = path + "/" if directory else path
        level: Level | None = self
        while level is not None:
            if level._spec is not None:
                verdict = level._spec.check_file(name[len(level._base) :]).include
                if verdict is not None:
                    return verdict
            level = level._outer
        return False

    def inside(self, base: str, text: bytes | None) -> Level:
        """The level of a directory in this one, with the content of its file, if it has one."""
        return self if text is None else Level(parse(text), base, self)


def parse(text: bytes) -> GitIgnoreSpec:
    """The patterns in a file; a malformed one matches nothing, as in git."""
    lines = text.decode("utf-8", "surrogateescape").removeprefix("\ufeff").split("\n")
    return GitIgnoreSpec.from_lines(line.removesuffix("\r") for line in lines)


def outermost(root: Path) -> tuple[Level, str]:
    """The level above `root` in its repository, and the path of `root` from the repository's top,
    "" or ending with a slash."""
    top = next((p for p in (root, *root.parents) if (p / ".git").exists()), root)
    level = Level(None, "", None)
    base = ""
    folder = top
    for name in root.relative_to(top).parts:
        level = level.inside(base, read(folder))
        folder = folder / name
        base += name + "/"
    return level, base


def read(folder: Path) -> bytes | None:
    """The content of a directory's file; None when it has none. A link is not followed, as in
    git."""
    path = folder / NAME
    if path.is_symlink() or not path.is_file():
        return None
    return path.read_bytes()
