"""What a check says: passed or not, why not, and the files it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import dagger


@dataclass(frozen=True)
class Failure:
    """One thing that a check found wrong.

    Args:
        id: what it is called: a test ("tests/test_a.py::test_b"), a rule ("F401").
        message: what is wrong, one line.
        path: the file it is in, relative to the source.
        line: the line in it, from 1.
    """

    id: str
    message: str
    path: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.path and self.line else self.path
        # A test's id begins with its file: saying it twice helps nobody.
        named = where is None or self.id.startswith(str(self.path))
        return f"{self.id}: {self.message}" if named else f"{where}: {self.id}: {self.message}"


@dataclass(frozen=True)
class Check:
    """The outcome of a check that ran (or whose earlier run is still true).

    Args:
        name: the stage function's name.
        passed: whether a release may be cut.
        summary: one line for people: "148 tests passed, coverage 93 %".
        failures: what is wrong; not empty when it did not pass.
        reports: files to keep, by file name.
        ran_at: when its container ran (UTC). Before this run's beginning: the result was cached.
    """

    name: str
    passed: bool
    summary: str
    failures: tuple[Failure, ...] = ()
    reports: Mapping[str, dagger.File] = field(default_factory=dict)
    ran_at: datetime | None = None


def latest(*times: datetime | None) -> datetime | None:
    """The last of these moments: a check of several containers is as fresh as the freshest."""
    return max((time for time in times if time is not None), default=None)


def count(number: int, noun: str) -> str:
    """ "1 test", "2 tests"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
