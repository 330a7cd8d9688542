"""Texts in which comments say what is to be found.

run(f"ls {name}")  # bad: CWE-78            found on this line
FROM debian  # bad: CWE-1357 CWE-250        two findings
    | bash  # bad@-1: CWE-494               found on the line before
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_MARK = re.compile(r"  # bad(?:@(-?\d+))?: (.*)$")


@dataclass(frozen=True)
class Marked:
    """Files without their marks, and what is to be found in them.

    Args:
        files: text by name.
        wanted: "name:line what", as `place` writes it.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    wanted: frozenset[str] = frozenset()


def place(path: str | None, line: int | None, what: str) -> str:
    """How a finding is named in tables: "src/a.py:12 CWE-89"."""
    return f"{path}:{line} {what}" if line else f"{path} {what}"


def read_marked(folder: Path, *, below: str = "") -> Marked:
    """The files `NAME.txt` of a folder as `NAME`.

    Args:
        folder: where they are.
        below: the folder that they go to, with its slash: "src/".
    """
    return strip(
        {f"{below}{file.name.removesuffix('.txt')}": file.read_text("utf-8")
         for file in sorted(folder.glob("*.txt"))}
    )  # fmt: skip


def strip(texts: Mapping[str, str]) -> Marked:
    """The texts without their marks; pure."""
    files: dict[str, str] = {}
    wanted: set[str] = set()
    for name, text in texts.items():
        lines = []
        for number, line in enumerate(text.splitlines(), 1):
            if mark := _MARK.search(line):
                at = number + int(mark.group(1) or 0)
                wanted.update(place(name, at, what) for what in mark.group(2).split())
                line = line[: mark.start()]
            lines.append(line)
        files[name] = "\n".join(lines) + "\n"
    return Marked(files, frozenset(wanted))


def together(parts: Iterable[Marked]) -> Marked:
    """All of them as one."""
    files: dict[str, str] = {}
    wanted: set[str] = set()
    for part in parts:
        files |= part.files
        wanted |= part.wanted
    return Marked(files, frozenset(wanted))
