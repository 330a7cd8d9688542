"""Findings that somebody accepted for a time, in the open: by name, with a reason and a last day.

    [[waivers]]                                # in pipeline.toml
    check = "sast"
    id = "python-weak-hash"                    # a rule, an advisory, or one finding's fingerprint
    path = "src/legacy/**"                     # only there; left out: everywhere
    reason = "the old protocol wants MD5; gone with release 5"
    expires = 2027-01-31                       # the last day that it counts

A waived finding is shown and counted. A waiver past its last day fails its check, also when what
it waived is gone: somebody has to look at it. One that silenced nothing is told as a note.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Generic, TypeVar

from buildonce.stages.finding import Failure, Finding

F = TypeVar("F", bound=Finding)

EXPIRED = "waiver-expired"


@dataclass(frozen=True)
class Waiver:
    """A finding that is accepted for a time.

    Args:
        check: the check's name: "sast".
        id: a finding's rule, advisory (or an alias of it) or fingerprint.
        reason: why it is accepted.
        expires: the last day (UTC) that it counts.
        path: only in files of this name; `*` stands for anything, also across folders.
        where: the place where it stands, "ci/pipeline.toml:12", for messages.
    """

    check: str
    id: str
    reason: str
    expires: date
    path: str | None = None
    where: str = ""

    def covers(self, finding: Finding) -> bool:
        """Whether it names this finding, whatever the day."""
        if self.id not in finding.names:
            return False
        return self.path is None or (
            finding.path is not None and fnmatch.fnmatchcase(finding.path, self.path)
        )

    def expired(self, today: date) -> bool:
        """Whether its last day is over."""
        return today > self.expires

    def __str__(self) -> str:
        scope = f" in {self.path}" if self.path else ""
        return f"the waiver of {self.id}{scope} ({self.reason})"


@dataclass(frozen=True)
class Waived:
    """A finding that was silenced, and by what."""

    finding: Finding
    waiver: Waiver

    def __str__(self) -> str:
        return f"{self.finding}; waived until {self.waiver.expires}: {self.waiver.reason}"


@dataclass(frozen=True)
class Sorted(Generic[F]):
    """Findings after the waivers.

    Args:
        findings: those that no waiver in force names.
        waived: those that one names.
        expired: a failure for each waiver whose last day is over.
        notes: waivers in force that silenced nothing.
    """

    findings: tuple[F, ...]
    waived: tuple[Waived, ...]
    expired: tuple[Failure, ...]
    notes: tuple[str, ...]


def apply_waivers(
    check: str, findings: Sequence[F], waivers: Sequence[Waiver], *, today: date | None = None
) -> Sorted[F]:
    """Take out of the findings what is waived.

    Args:
        check: name of the check; waivers of other checks are passed over.
        findings: all that it found.
        waivers: as configured.
        today: the day by which they expire; None: today in UTC.
    """
    today = today or datetime.now(UTC).date()
    own = [waiver for waiver in waivers if waiver.check == check]
    in_force = [waiver for waiver in own if not waiver.expired(today)]
    left: list[F] = []
    waived: list[Waived] = []
    used: set[Waiver] = set()
    for finding in findings:
        covering = [waiver for waiver in in_force if waiver.covers(finding)]
        used.update(covering)
        if covering:
            waived.append(Waived(finding, covering[0]))
        else:
            left.append(finding)
    return Sorted(
        findings=tuple(left),
        waived=tuple(waived),
        expired=tuple(_expired(waiver) for waiver in own if waiver.expired(today)),
        notes=tuple(
            f"{waiver.where or check}: {waiver} silences nothing: take it out"
            for waiver in in_force
            if waiver not in used
        ),
    )


def _expired(waiver: Waiver) -> Failure:
    file, _, line = waiver.where.rpartition(":")
    known = line.isdigit()
    return Failure(
        id=EXPIRED,
        message=f"{waiver} expired on {waiver.expires}: mend it, or decide anew",
        path=(file if known else waiver.where) or None,
        line=int(line) if known else None,
    )
