"""What happened in a run, as plain values: the console, `summary.json` and JUnit are made of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from buildonce.errors import ExitCode
from buildonce.ledger.views import Share
from buildonce.release import Release
from buildonce.stages import Evidence, Failure, Finding, Waived


class Result(StrEnum):
    """How a check or a stage ended. The values are the ledger's, but for `broken` ("failed")."""

    PASSED = "passed"
    FAILED = "failed"
    BROKEN = "broken"  # it could not be done, so nothing is known
    CANCELLED = "cancelled"
    TIMED_OUT = "timed-out"

    @property
    def in_ledger(self) -> str:
        """The ledger's word."""
        return Result.FAILED.value if self is Result.BROKEN else self.value


@dataclass
class CheckRecord:
    """A check, or another thing that ran beside the checks.

    Args:
        name: unique in its stage.
        result: None while it runs.
        seconds: how long it took in this run, without the wait for what it is after.
        cached: an earlier result was used; None when that is not known.
        summary: one line.
        failures: what is wrong.
        waived: findings that a waiver silenced.
        notes: what people should know though nothing failed by it.
        evidence: what is to be signed onto the image.
        details: more lines on why it could not be done, where it was not done.
        remedy: what to do about it, where the error says.
        denied: it could not be done because what is in the registry is not to be believed.
        files: its reports, relative to the project.
        after: names of the checks whose results it needs.
    """

    name: str
    result: Result | None = None
    seconds: float = 0.0
    cached: bool | None = None
    summary: str = ""
    failures: tuple[Failure, ...] = ()
    waived: tuple[Waived, ...] = ()
    notes: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    details: tuple[str, ...] = ()
    remedy: str | None = None
    denied: bool = False
    files: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


@dataclass
class StageRecord:
    """A stage and its checks. `late` says that it took longer than its warning; `awaited` seconds
    of `seconds` it waited for people.
    """

    name: str
    result: Result | None = None
    seconds: float = 0.0
    awaited: float = 0.0
    late: str | None = None
    checks: list[CheckRecord] = field(default_factory=list)

    @property
    def cached(self) -> bool:
        """Whether it has checks, and all whose origin is known were cached."""
        known = [check.cached for check in self.checks if check.cached is not None]
        return bool(known) and all(known)

    @property
    def failing(self) -> list[CheckRecord]:
        """The checks that ended badly by themselves; not those that were cancelled for it."""
        return [c for c in self.checks if c.result in (Result.FAILED, Result.BROKEN)]


@dataclass
class RolloutRecord:
    """A deployment.

    Args:
        environment, url: where.
        changed: False when the release already ran there.
        digest: of the release.
        shares: who answered at each step at which it was watched, by the balancer's counters.
    """

    environment: str
    url: str
    changed: bool
    digest: str
    shares: tuple[Share, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON data; each share of the answers also as `measured`, in percent."""
        shares = [{**asdict(one), "measured": one.measured} for one in self.shares]
        return {**asdict(self), "shares": shares}


@dataclass
class Problem:
    """Why a run ended badly: what the last screen says."""

    message: str
    remedy: str | None = None


@dataclass
class RunRecord:
    """The whole run. Paths are relative to the project; `started` is UTC."""

    run: str
    pipeline: str
    version: str
    revision: str
    started: datetime
    profile: str | None = None
    stages: list[StageRecord] = field(default_factory=list)
    release: Release | None = None
    release_changed: bool = False
    rollouts: list[RolloutRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problem: Problem | None = None
    exit_code: ExitCode | None = None
    seconds: float = 0.0
    files: list[str] = field(default_factory=list)

    @property
    def result(self) -> str:
        """The ledger's word for the whole run."""
        words = {
            ExitCode.PASSED: "passed",
            ExitCode.CHECK_FAILED: "check-failed",
            ExitCode.ROLLED_BACK: "rolled-back",
            ExitCode.INTERRUPTED: "interrupted",
        }
        return words.get(self.exit_code or ExitCode.PASSED, "tool-failed")

    def to_json(self) -> dict[str, Any]:
        """As JSON data: what `summary.json` holds."""
        return {
            "run": self.run,
            "pipeline": self.pipeline,
            "version": self.version,
            "revision": self.revision,
            "profile": self.profile,
            "started": self.started.isoformat(),
            "seconds": round(self.seconds, 3),
            "result": self.result,
            "exit_code": int(self.exit_code or 0),
            "problem": self.problem and {
                "message": self.problem.message,
                "remedy": self.problem.remedy,
            },
            "release": self.release and {
                **self.release.to_json(),
                "changed": self.release_changed,
            },
            "stages": [_stage_json(stage) for stage in self.stages],
            "rollouts": [rollout.to_json() for rollout in self.rollouts],
            "notes": self.notes,
            "files": self.files,
        }  # fmt: skip


def _stage_json(stage: StageRecord) -> dict[str, Any]:
    return {
        "stage": stage.name,
        "result": stage.result,
        "seconds": round(stage.seconds, 3),
        "awaited": round(stage.awaited, 3),
        "cached": stage.cached,
        "checks": [
            {
                "check": check.name,
                "result": check.result,
                "seconds": round(check.seconds, 3),
                "after": list(check.after),
                "cached": check.cached,
                "summary": check.summary,
                "failures": [_failure_json(failure) for failure in check.failures],
                "waived": [
                    {
                        **_failure_json(waived.finding),
                        "reason": waived.waiver.reason,
                        "expires": waived.waiver.expires.isoformat(),
                    }
                    for waived in check.waived
                ],
                "notes": list(check.notes),
                "details": list(check.details),
                "files": list(check.files),
            }
            for check in stage.checks
        ],
    }


def _failure_json(failure: Failure) -> dict[str, Any]:
    data: dict[str, Any] = {
        "id": failure.id,
        "message": failure.message,
        "path": failure.path,
        "line": failure.line,
    }
    if isinstance(failure, Finding):
        data["severity"] = failure.severity
        data["cwe"] = list(failure.cwe)
        data["fingerprint"] = failure.fingerprint
        data["remedy"] = failure.remedy
    return data
