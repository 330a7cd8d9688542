"""Which files git ignores, by the `.gitignore` files of a repository.

A pattern counts from its file's directory; the last one that matches decides, a deeper file before
a higher one; nothing below an ignored directory can be taken back. The `pathspec` library lets a
pattern that matches a directory decide about what is below it too, which git does not once a
deeper file has spoken, so patterns are read here.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from pathlib import Path

NAME = ".gitignore"

_CLASSES = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": " \\t",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "\\x21-\\x7e",
    "lower": "a-z",
    "print": "\\x20-\\x7e",
    "punct": "!-/:-@\\[-`{-~",
    "space": "\\s",
    "upper": "A-Z",
    "xdigit": "0-9a-fA-F",
}


class Pattern:
    """One line of a file.

    Attributes:
        keeps: it starts with `!`: what matches is not ignored after all.
    """

    __slots__ = ("_directories_only", "_names_only", "_test", "keeps")

    def __init__(self, text: str) -> None:
        """
        Raises:
            ValueError: it can match nothing.
        """
        self.keeps = text.startswith("!")
        if self.keeps:
            text = text[1:]
        self._directories_only = text.endswith("/")
        text = text.removesuffix("/")
        # Without a slash, other than at the end, a pattern is for names at any depth.
        self._names_only = "/" not in text
        text = text.removeprefix("/")
        if not text:
            raise ValueError("nothing to match")
        self._test = re.compile(_expression(text), re.DOTALL).fullmatch

    def matches(self, path: str, name: str, directory: bool) -> bool:
        """Whether it matches a path, from its file's directory, itself, not one above it."""
        if self._directories_only and not directory:
            return False
        return self._test(name if self._names_only else path) is not None


class Level:
    """The patterns that apply in one directory: its own, then those above."""

    __slots__ = ("_base", "_outer", "_patterns")

    def __init__(self, patterns: list[Pattern], base: str, outer: Level | None) -> None:
        """
        Args:
            patterns: the last of them first.
            base: the directory's path from the repository's top, "" or ending with a slash.
        """
        self._patterns = patterns
        self._base = base
        self._outer = outer

    def ignores(self, path: str, directory: bool) -> bool:
        """Whether a path, from the repository's top, in this directory is ignored."""
        name = path.rpartition("/")[2]
        level: Level | None = self
        while level is not None:
            below = path[len(level._base) :]
            for pattern in level._patterns:
                if pattern.matches(below, name, directory):
                    return not pattern.keeps
            level = level._outer
        return False

    def inside(self, base: str, text: bytes | None) -> Level:
        """The level of a directory in this one, with the content of its file, if it has one."""
        return self if text is None else Level(parse(text), base, self)


def parse(text: bytes) -> list[Pattern]:
    """The patterns of a file, the last first; a malformed one matches nothing, as in git."""
    patterns = []
    for line in text.decode("utf-8", "surrogateescape").removeprefix("\ufeff").split("\n"):
        line = _without_trailing_spaces(line.removesuffix("\r"))
        if line and not line.startswith("#"):
            try:
                patterns.append(Pattern(line))
            except (ValueError, KeyError, re.error):
                continue
    return patterns[::-1]


def outermost(root: Path) -> tuple[Level, str]:
    """The level above `root` in its repository, and the path of `root` from the repository's top,
    "" or ending with a slash.

    Raises:
        FileNotFoundError: the repository ignores `root`, so as far as it goes it is not there.
    """
    top = next((p for p in (root, *root.parents) if (p / ".git").exists()), root)
    level = Level([], "", None)
    base = ""
    folder = top
    for name in root.relative_to(top).parts:
        level = level.inside(base, read(folder))
        if level.ignores(base + name, directory=True):
            raise FileNotFoundError(errno.ENOENT, "no such file or directory: git ignores it")
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


def _without_trailing_spaces(line: str) -> str:
    stripped = line.rstrip(" ")
    backslashes = len(stripped) - len(stripped.rstrip("\\"))
    return stripped + " " if backslashes % 2 and stripped != line else stripped


def _expression(text: str) -> str:
    return "".join(_parts(text))


def _parts(text: str) -> Iterator[str]:
    position = 0
    while position < len(text):
        character = text[position]
        position += 1
        if character == "*":
            start = position - 1
            while text[position : position + 1] == "*":
                position += 1
            whole = (start == 0 or text[start - 1] == "/") and text[position : position + 1] in (
                "",
                "/",
            )
            if position - start < 2 or not whole:
                yield "[^/]*"
            elif position == len(text):
                yield ".*"
            else:
                yield "(?:.*/)?"
                position += 1
        elif character == "?":
            yield "[^/]"
        elif character == "[":
            expression, position = _bracket(text, position)
            yield expression
        elif character == "\\":
            if position == len(text):
                raise ValueError("ends with a backslash")
            yield re.escape(text[position])
            position += 1
        else:
            yield re.escape(character)


def _bracket(text: str, position: int) -> tuple[str, int]:
    """The expression of a class whose `[` is before `position`, and where it ends."""
    negated = text[position : position + 1] in ("!", "^")
    if negated:
        position += 1
    parts: list[str] = []
    first = True
    while True:
        if position >= len(text):
            raise ValueError("the class is not closed")
        if text[position] == "]" and not first:
            break
        first = False
        if text.startswith("[:", position) and (end := text.find(":]", position)) > 0:
            parts.append(_CLASSES[text[position + 2 : end]])
            position = end + 2
            continue
        low, position = _character(text, position)
        if text[position : position + 1] == "-" and text[position + 1 : position + 2] not in (
            "",
            "]",
        ):
            high, position = _character(text, position + 1)
            if low <= high:
                parts.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            parts.append(re.escape(low))
    inside = "".join(parts)
    if negated:
        return f"[^/{inside}]", position + 1
    return (f"(?!/)[{inside}]" if inside else "(?!)"), position + 1


def _character(text: str, position: int) -> tuple[str, int]:
    if text[position] == "\\":
        position += 1
    if position >= len(text):
        raise ValueError("the class is not closed")
    return text[position], position + 1
