"""What a check says: passed or not, why not, and the files it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import dagger

from buildonce.stages.evidence import Evidence
from buildonce.stages.finding import Failure, Finding
from buildonce.stages.waivers import Waived

__all__ = ["Check", "Failure", "Finding", "count", "latest"]


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
        evidence: what is to be signed onto the image.
        waived: findings that a waiver silenced: shown and counted, never hidden.
        notes: what people should know though nothing fails by it: findings below the threshold,
            waivers that silence nothing.
    """

    name: str
    passed: bool
    summary: str
    failures: tuple[Failure, ...] = ()
    reports: Mapping[str, dagger.File] = field(default_factory=dict)
    ran_at: datetime | None = None
    evidence: tuple[Evidence, ...] = ()
    waived: tuple[Waived, ...] = ()
    notes: tuple[str, ...] = ()


def latest(*times: datetime | None) -> datetime | None:
    """The last of these moments: a check of several containers is as fresh as the freshest."""
    return max((time for time in times if time is not None), default=None)


def count(number: int, noun: str) -> str:
    """ "1 test", "2 tests"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
