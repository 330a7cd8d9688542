"""Delivery metrics, computed from runs and rollouts.

Definitions: lead time, deployment frequency, MTBF and MTTR follow AWS's "Deployment Pipeline
Reference Architecture" (Application Pipeline, "Deployment pipelines should publish the following
metrics"); the change failure rate follows DORA ("Accelerate", Forsgren, Humble, Kim). Where those
leave room, the choice is stated at the field of `Metrics`.

Each sample belongs to the moment it became known (a deployment: when its rollout finished; an
interval: when the run that ends it started) and to the window `since <= moment < until`. Windows
that share a border therefore share no sample, and counts over them add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from buildonce.ledger.views import Rollout

FAILED_RUNS = frozenset({"check-failed", "rolled-back", "tool-failed"})


@dataclass(frozen=True)
class Metrics:
    """The metrics of one environment in a window. A value without any sample is None, never 0.

    Attributes:
        environment: whose rollouts are counted.
        since, until: the window, half-open.
        deployments: how often another digest than before came to run there by a deploy (not by a
            rollback, and not when the same digest was deployed again).
        attempts: those deployments and the deploys that failed or were rolled back.
        failures: attempts that failed, were rolled back, or succeeded and were undone by a
            rollback later, however much later.
        lead_time: "the average amount of time it takes for a single commit to get all the way
            into production" (AWS): mean of the time from the commit to the end of the first
            rollout that brought its revision there.
        deployment_frequency: "the number of production deployments within a given time period"
            (AWS): deployments per day of the window.
        change_failure_rate: share of deployments that fail in production and need remediation
            (DORA): failures / attempts, 0 to 1.
        mtbf: "the average amount of time between the start of a successful pipeline and the start
            of a failed pipeline" (AWS): from the first success of a row of successes to the first
            failure after it.
        mttr: "the average amount of time between the start of a failed pipeline and the start of
            the next successful pipeline" (AWS): from the first failure of a row of failures.

    MTBF and MTTR look at runs of the pipelines that deliver to the environment. A failed check
    counts as a failed pipeline, as AWS has it; an interrupted or unfinished run is no evidence
    and counts as neither.
    """

    environment: str
    since: datetime
    until: datetime
    deployments: int
    attempts: int
    failures: int
    lead_time: timedelta | None
    deployment_frequency: float | None
    change_failure_rate: float | None
    mtbf: timedelta | None
    mttr: timedelta | None


@dataclass(frozen=True)
class RunEnd:
    """What MTBF and MTTR need of a run that ended."""

    started: datetime
    result: str


def compute(
    environment: str,
    since: datetime,
    until: datetime,
    *,
    rollouts: Sequence[Rollout],
    committed: Mapping[str, datetime],
    runs: Iterable[RunEnd],
) -> Metrics:
    """The metrics of the window.

    Args:
        rollouts: all rollouts of the environment that ever were, oldest first: what happened
            before the window decides what counts within it.
        committed: when each revision was committed.
        runs: all ended runs of the pipelines that deliver there, oldest first.
    """
    ended = [rollout for rollout in rollouts if rollout.finished is not None]
    undone = _undone(ended)
    attempts = [r for r in ended if r.reason == "deploy" and (not r.succeeded or _changed(r))]
    within = [r for r in attempts if r.finished is not None and since <= r.finished < until]
    deployments = [r for r in within if r.succeeded]
    failures = [r for r in within if not r.succeeded or r.id in undone]
    days = (until - since) / timedelta(days=1)
    between_failures, to_recovery = _intervals(runs, since, until)
    return Metrics(
        environment=environment,
        since=since,
        until=until,
        deployments=len(deployments),
        attempts=len(within),
        failures=len(failures),
        lead_time=_mean(_lead_times(attempts, committed, since, until)),
        deployment_frequency=len(deployments) / days if deployments and days > 0 else None,
        change_failure_rate=len(failures) / len(within) if within else None,
        mtbf=_mean(between_failures),
        mttr=_mean(to_recovery),
    )


def _changed(rollout: Rollout) -> bool:
    return rollout.digest != rollout.previous_digest


def _undone(ended: Sequence[Rollout]) -> set[str]:
    """Ids of the successful deploys whose digest a rollback took away again."""
    brought: dict[str, str] = {}
    undone = set()
    for rollout in ended:
        if not rollout.succeeded:
            continue
        if rollout.reason == "rollback":
            away = rollout.previous_digest
            if away in brought and away != rollout.digest:
                undone.add(brought[away])
        elif _changed(rollout):
            brought[rollout.digest] = rollout.id
    return undone


def _lead_times(
    attempts: Sequence[Rollout],
    committed: Mapping[str, datetime],
    since: datetime,
    until: datetime,
) -> list[timedelta]:
    arrived: set[str] = set()
    times = []
    for rollout in attempts:
        if not rollout.succeeded or rollout.finished is None or rollout.revision in arrived:
            continue
        arrived.add(rollout.revision)
        commit = committed.get(rollout.revision)
        if commit is not None and since <= rollout.finished < until:
            # A committer's clock may run ahead of ours; no change is live before it was made.
            times.append(max(rollout.finished - commit, timedelta()))
    return times


def _intervals(
    runs: Iterable[RunEnd], since: datetime, until: datetime
) -> tuple[list[timedelta], list[timedelta]]:
    """Lengths of the rows of successes ended by a failure, and of failures ended by a success."""
    green: list[timedelta] = []
    red: list[timedelta] = []
    row_is_green: bool | None = None
    row_began = since
    for run in runs:
        if run.result != "passed" and run.result not in FAILED_RUNS:
            continue
        passed = run.result == "passed"
        if passed == row_is_green:
            continue
        if row_is_green is not None and since <= run.started < until:
            (green if row_is_green else red).append(max(run.started - row_began, timedelta()))
        row_is_green, row_began = passed, run.started
    return green, red


def _mean(samples: Sequence[timedelta]) -> timedelta | None:
    return sum(samples, timedelta()) / len(samples) if samples else None
