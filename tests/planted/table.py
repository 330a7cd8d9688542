"""What was planted beside what was found, check by check."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One check.

    Args:
        check: its name.
        wanted: what was planted.
        got: what it found.
        alike: how many harmless look-alikes were planted.
    """

    check: str
    wanted: frozenset[str]
    got: frozenset[str]
    alike: int

    @property
    def missed(self) -> list[str]:
        """Planted and not found."""
        return sorted(self.wanted - self.got)

    @property
    def alarms(self) -> list[str]:
        """Found and not planted."""
        return sorted(self.got - self.wanted)

    def numbers(self) -> tuple[int, int, int, int, int]:
        """Planted, found, missed, look-alikes, false alarms."""
        found = len(self.wanted & self.got)
        return len(self.wanted), found, len(self.missed), self.alike, len(self.alarms)


_TITLES = ("check", "planted", "found", "missed", "look-alikes", "false alarms")


def as_table(rows: Iterable[Row]) -> str:
    """A table in Markdown, for a terminal and for the documentation alike."""
    lines = [_TITLES, *((row.check, *map(str, row.numbers())) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_TITLES))]
    written = [_line(line, widths) for line in lines]
    rule = "| " + " | ".join("-" * width for width in widths) + " |"
    return "\n".join([written[0], rule, *written[1:]])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        cell.rjust(width) if index else cell.ljust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "| " + " | ".join([first, *others]) + " |"
