"""On which line of a TOML text each key stands: `tomllib` gives values without their places.

The text is known to be valid TOML (tomllib has read it), so a light scan of line beginnings is
enough. Keys inside an inline table are on the line of the key that holds the table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

KeyPath = tuple[str, ...]

_BARE_OR_QUOTED = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_DOTTED = rf"{_BARE_OR_QUOTED}(?:\s*\.\s*{_BARE_OR_QUOTED})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]\]?\s*(?:#.*)?$")
_ASSIGNMENT = re.compile(rf"\s*({_DOTTED})\s*=(.*)$", re.DOTALL)
_PART = re.compile(_BARE_OR_QUOTED)
# Strings and comments, longest first: what is in them is not structure.
_TEXT = re.compile(
    r'"""(?:[^\\]|\\.)*?"""'
    r"|'''.*?'''"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*",
    re.DOTALL,
)


@dataclass(frozen=True)
class Lines:
    """Where keys stand; lines count from 1."""

    known: Mapping[KeyPath, int]

    @classmethod
    def scan(cls, text: str) -> Lines:
        """Find every table header and every assignment; `[[x]]` gives ("x", "0"), ("x", "1"), …"""
        known: dict[KeyPath, int] = {}
        elements: dict[KeyPath, int] = {}  # of each array of tables: how many came
        table: KeyPath = ()
        depth = 0  # of brackets left open by a value that runs over several lines
        for number, raw, structure in _logical_lines(text):
            if depth == 0:
                if header := _HEADER.match(raw):
                    table = _split(header.group(2))
                    if header.group(1) == "[[":
                        known.setdefault(table, number)
                        elements[table] = elements.get(table, 0) + 1
                    table = _in_element(table, elements)
                    known.setdefault(table, number)
                    continue
                if assignment := _ASSIGNMENT.match(raw):
                    keys = (*table, *_split(assignment.group(1)))
                    for end in range(len(table) + 1, len(keys) + 1):
                        known.setdefault(keys[:end], number)
                    structure = structure.partition("=")[2]
            depth += sum(structure.count(c) for c in "[{") - sum(structure.count(c) for c in "]}")
        return cls(known)

    def line(self, keys: KeyPath) -> int | None:
        """The line of exactly these keys, as far as the text names them on a line of their own."""
        return self.known.get(keys)

    def nearest(self, keys: KeyPath) -> int | None:
        """The line of the closest table around these keys."""
        for end in range(len(keys), 0, -1):
            if (line := self.known.get(keys[:end])) is not None:
                return line
        return None


def _in_element(table: KeyPath, elements: dict[KeyPath, int]) -> KeyPath:
    """The key path with the number of the array element that its tables belong to by now."""
    for end in range(len(table), 0, -1):
        if (came := elements.get(table[:end])) is not None:
            return (*table[:end], str(came - 1), *table[end:])
    return table


def _logical_lines(text: str) -> list[tuple[int, str, str]]:
    """(number, text, text without strings and comments) of each line outside multi-line strings."""
    # A masked character keeps its place, so that both texts split into the same lines; the newlines
    # of a multi-line string are masked too, but counted.
    masked = _TEXT.sub(_mask, text)
    result: list[tuple[int, str, str]] = []
    number, start = 1, 0
    for end in [i for i, c in enumerate(masked) if c == "\n"] + [len(masked)]:
        result.append((number, text[start:end], masked[start:end]))
        number += text.count("\n", start, end) + 1
        start = end + 1
    return result


def _mask(match: re.Match[str]) -> str:
    return "_" * len(match.group()) if match.group()[0] != "#" else " " * len(match.group())


def _split(dotted: str) -> KeyPath:
    return tuple(part[1:-1] if part[0] in "\"'" else part for part in _PART.findall(dotted))
