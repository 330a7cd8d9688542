"""Path patterns with the meaning that Docker's and BuildKit's have.

`*` and `?` stop at a slash, `**` does not, `[…]` is a class, a pattern that matches a directory
matches all below it, and a pattern that starts with `!` takes back what those before it matched::

    matcher = Matcher(["**/*.py", "!tests"])
    matcher.matches("src/app.py")      # True
    matcher.matches("tests/test.py")   # False
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable

from buildonce.engine.buildkit.errors import BuildkitError

# What the match of a path says about the paths below it: one flag for each pattern.
Inherited = tuple[bool, ...]

_WILD = frozenset("*[]?^\\")


class BadPattern(BuildkitError):
    """A pattern that cannot mean anything."""


class Matcher:
    """An ordered list of patterns."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """
        Raises:
            BadPattern: one of them is malformed.
        """
        self._patterns = [_Pattern(text) for p in patterns if (text := p.strip())]
        self.exceptions = any(p.exception for p in self._patterns)
        exceptions = [p for p in self._patterns if p.exception]
        selections = [p for p in self._patterns if not p.exception]
        self._selections_are_plain = all(p.plain for p in selections)
        self._exceptions_are_plain = all(p.plain for p in exceptions)
        self._selections = [p.prefix for p in selections]
        self._exceptions = [p.prefix for p in exceptions]

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def match(self, path: str, parent: Inherited) -> tuple[bool, Inherited]:
        """Whether `path` matches, and what its children inherit; `parent` is what its directory
        answered, () at the top."""
        matched = False
        inherited = []
        for number, pattern in enumerate(self._patterns):
            hit = bool(parent) and parent[number]
            # A pattern that could not change the answer is not asked, nor inherited.
            if not hit and pattern.exception == matched:
                hit = bool(pattern.test(path))
            inherited.append(hit)
            if hit:
                matched = not pattern.exception
        return matched, tuple(inherited)

    def matches(self, path: str) -> bool:
        """Whether `path` matches, found without knowing about its directories."""
        inherited: Inherited = ()
        matched = False
        parts = path.split("/")
        for number in range(len(parts)):
            matched, inherited = self.match("/".join(parts[: number + 1]), inherited)
        return matched

    def may_select_below(self, directory: str) -> bool:
        """Whether a path below a directory that does not match may match."""
        return not self._selections_are_plain or _leads(self._selections, directory)

    def may_except_below(self, directory: str) -> bool:
        """Whether a path below a directory that matches may not match."""
        if not self.exceptions:
            return False
        return not self._exceptions_are_plain or _leads(self._exceptions, directory)


def _leads(prefixes: Iterable[str], directory: str) -> bool:
    start = directory + "/"
    return any((prefix + "/").startswith(start) for prefix in prefixes)


class _Pattern:
    """One pattern.

    Attributes:
        exception: it started with `!`.
        plain: it has no wildcard, other than one that ends it.
        prefix: the part before a wildcard that ends it.
    """

    __slots__ = ("exception", "plain", "prefix", "test")

    def __init__(self, text: str) -> None:
        text = _clean(text)
        self.exception = text.startswith("!")
        if self.exception:
            text = text[1:]
            if not text:
                raise BadPattern('"!" alone is not a pattern')
        _check(text)
        self.prefix = text.removesuffix("/**").removesuffix("/*") if text.endswith("*") else text
        self.plain = not _WILD.intersection(self.prefix)
        self.test: Callable[[str], object] = _compile(text)


def _clean(text: str) -> str:
    # `!` is part of the text that is normalised, as it is in Docker: "!/a" is not "!a".
    cleaned = posixpath.normpath(text)
    return "/" + cleaned.lstrip("/") if cleaned.startswith("/") else cleaned


def _check(text: str) -> None:
    """Refuse what Go's path matching refuses: an open class or range, a backslash at the end."""
    position = 0
    while position < len(text):
        character = text[position]
        position += 1
        if character == "\\":
            if position == len(text):
                raise BadPattern(f"the pattern {text!r} ends with a backslash")
            position += 1
        elif character == "[":
            position = _check_class(text, position)


def _check_class(text: str, position: int) -> int:
    if text[position : position + 1] == "^":
        position += 1
    first = True
    while True:
        if position >= len(text):
            raise BadPattern(f"the pattern {text!r} opens a [ that it does not close")
        if text[position] == "]" and not first:
            return position + 1
        first = False
        position = _check_character(text, position)
        if text[position : position + 1] == "-":
            position = _check_character(text, position + 1)


def _check_character(text: str, position: int) -> int:
    if position >= len(text) or text[position] in "-]":
        raise BadPattern(f"the pattern {text!r} has a malformed [ ]")
    if text[position] == "\\":
        position += 1
        if position >= len(text):
            raise BadPattern(f"the pattern {text!r} has a malformed [ ]")
    return position + 1


def _compile(text: str) -> Callable[[str], object]:
    if not set("*?[]\\").intersection(text):
        return text.__eq__
    expression = []
    position = 0
    while position < len(text):
        character = text[position]
        position += 1
        if character == "*":
            if text[position : position + 1] != "*":
                expression.append("[^/]*")
                continue
            position += 1
            if text[position : position + 1] == "/":
                position += 1
            # `**` at the end is everything; elsewhere any number of whole directories, even none.
            expression.append(".*" if position == len(text) else "(?:.*/)?")
        elif character == "?":
            expression.append("[^/]")
        elif character == "\\":
            expression.append(re.escape(text[position]))
            position += 1
        elif character == "[":
            end = _check_class(text, position)
            # `[` within a class is a plain character in Go and would warn in Python.
            expression.append("[" + text[position : end - 1].replace("[", r"\[") + "]")
            position = end
        else:
            expression.append(re.escape(character))
    try:
        compiled = re.compile("".join(expression), re.DOTALL)
    except re.error as error:
        raise BadPattern(f"the pattern {text!r} is malformed: {error}") from error
    suffix = text.removeprefix("**")
    if text.startswith("**") and not set("*?[]\\").intersection(suffix) and suffix:
        # Docker takes "**x" for "ends with x" and "**/x" for that at a whole name.
        return _Suffix(suffix)
    return compiled.fullmatch


class _Suffix:
    def __init__(self, suffix: str) -> None:
        self._suffix = suffix
        self._whole = suffix[1:] if suffix.startswith("/") else None

    def __call__(self, path: str) -> bool:
        return path.endswith(self._suffix) or path == self._whole
