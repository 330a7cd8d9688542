"""What the events say, as values to show: runs with their stages, rollouts, releases.

A view is folded from events and never stored. What has no end in the ledger is not given one: a
run, stage or rollout without its `finished` event is `running` while its run is heard of, and
`unfinished` once the run ended without it or has been silent for `SILENCE`. Neither is `passed`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, TypedDict

from buildonce.ledger.events import Event

SILENCE = timedelta(hours=1)
"""A run that appended nothing for so long is taken for dead: twice the longest stage budget."""


class Release(TypedDict):
    """A release as plain JSON values; the first record of a version and digest counts."""

    version: str
    revision: str
    digest: str
    repository: str
    configuration: str
    committed_at: str
    created: str
    run: str


@dataclass(frozen=True)
class CheckResult:
    """A finished check. `result` as in the event; `seconds` it took."""

    stage: str
    name: str
    result: str
    seconds: float
    cached: bool
    summary: str
    finished: datetime


@dataclass(frozen=True)
class StageResult:
    """A stage of a run. `state` is its result, or running / unfinished without one."""

    name: str
    state: str
    started: datetime
    finished: datetime | None
    seconds: float | None
    cached: bool
    summary: str
    checks: tuple[CheckResult, ...]


@dataclass(frozen=True)
class Run:
    """A pipeline's run. `result` is None until recorded; `state` says running or unfinished."""

    id: str
    pipeline: str
    revision: str
    version: str
    actor: str
    started: datetime
    last_event: datetime
    finished: datetime | None
    result: str | None
    state: str
    seconds: float | None
    stages: tuple[StageResult, ...]
    releases: tuple[Release, ...]
    rollouts: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """One step of a rollout, in the order it happened."""

    name: str
    at: datetime
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Share:
    """Who answered at one step of a rollout, by the balancer's own counters.

    Attributes:
        percent: of the traffic that the new release was to have.
        seconds: for how long it was watched so.
        new, old: answers of the new release, and of what ran before.
        failed: how many of all were failures (5xx).
    """

    percent: int
    seconds: float
    new: int
    old: int
    failed: int

    @property
    def measured(self) -> float | None:
        """Percent of the answers that the new release gave; None of none."""
        total = self.new + self.old
        return 100 * self.new / total if total else None


@dataclass(frozen=True)
class Rollout:
    """A release's way into an environment.

    Attributes:
        digest: what was rolled out. previous_digest: what ran before, None on the first rollout.
        running_digest: what ran when it had ended; None while unknown or when nothing runs.
        result: succeeded, rolled-back or failed; None without an end in the ledger.
        state: the result, or running / unfinished.
        promotion, wave: of the promotion through waves that it is part of; None when of none.
        plan: the steps of traffic that it set out with.
    """

    id: str
    run: str
    environment: str
    version: str
    revision: str
    digest: str
    previous_digest: str | None
    reason: str
    started: datetime
    finished: datetime | None
    result: str | None
    state: str
    seconds: float | None
    cause: str | None
    running_digest: str | None
    steps: tuple[Step, ...]
    promotion: str | None = None
    wave: int | None = None
    plan: Mapping[str, Any] = field(default_factory=dict)

    def passed(self, step: str) -> bool:
        """Whether the step was recorded as done."""
        return any(s.name == step and s.data.get("state") == "done" for s in self.steps)

    @property
    def manifest(self) -> Mapping[str, Any] | None:
        """By what its target can bring it back just as it was; None when that is not recorded."""
        return next(
            (s.data["manifest"] for s in reversed(self.steps) if s.data.get("manifest")), None
        )

    @property
    def shares(self) -> tuple[Share, ...]:
        """How the answers were split, step by step, where that was counted."""
        found = []
        for step in self.steps:
            counted = step.data.get("traffic")
            if not isinstance(counted, Mapping):
                continue
            told = {**step.data, **counted}
            values: dict[str, Any] = {field.name: told.get(field.name) for field in fields(Share)}
            if all(isinstance(value, int | float) for value in values.values()):
                found.append(Share(**values))
        return tuple(found)

    @property
    def succeeded(self) -> bool:
        """Whether the release it brought runs there since."""
        return self.result == "succeeded"


@dataclass(frozen=True)
class Promotion:
    """A release's way through waves of environments.

    Attributes:
        waves: names of environments, wave by wave.
        proven: whether all of it was proven; from then on it is only brought to its end.
        untested: the waves, from 1, whose tests have not passed.
        result: as of a rollout; None without an end in the ledger.
        rollouts: ids, in the order they began.
    """

    id: str
    run: str
    version: str
    digest: str
    waves: tuple[tuple[str, ...], ...]
    reason: str
    started: datetime
    proven: bool
    untested: tuple[int, ...]
    result: str | None
    cause: str | None
    rollouts: tuple[str, ...]
    data: Mapping[str, Any] = field(default_factory=dict)


def promotions_of(events: Iterable[Event]) -> list[Promotion]:
    """The promotions whose `promotion.started` is among the events, newest first."""
    by_id: dict[str, list[Event]] = {}
    for event in events:
        if event.data.get("promotion"):
            by_id.setdefault(event.data["promotion"], []).append(event)
    return [
        _promotion(its) for its in reversed(by_id.values()) if its[0].kind == "promotion.started"
    ]


def _promotion(events: list[Event]) -> Promotion:
    start, data = events[0], events[0].data
    end = next((e for e in reversed(events) if e.kind == "promotion.finished"), None)
    return Promotion(
        id=data["promotion"],
        run=start.run,
        version=data["version"],
        digest=data["digest"],
        waves=tuple(tuple(wave) for wave in data["waves"]),
        reason=data["reason"],
        started=start.at,
        proven=any(e.kind == "promotion.step" and e.data["step"] == "proven" for e in events),
        untested=_untested(events),
        result=end.data["result"] if end else None,
        cause=end.data.get("cause") if end else None,
        rollouts=tuple(e.data["rollout"] for e in events if e.kind == "rollout.started"),
        data=data,
    )


def _untested(events: list[Event]) -> tuple[int, ...]:
    if not events[0].data.get("tests"):
        return ()
    steps = (e.data["data"] for e in events if e.kind == "promotion.step")
    passed = {step.get("number") for step in steps if step.get("state") == "tested"}
    return tuple(n for n in range(1, len(events[0].data["waves"]) + 1) if n not in passed)


def release_of(event: Event) -> Release:
    """The release that a `release.created` event records."""
    data = event.data
    return Release(
        version=data["version"],
        revision=data["revision"],
        digest=data["digest"],
        repository=data["repository"],
        configuration=data["configuration"],
        committed_at=data["committed_at"],
        # It may have been cut before, on another machine.
        created=data.get("created", event.at.isoformat()),
        run=event.run,
    )


def releases_of(events: Iterable[Event]) -> list[Release]:
    """The distinct releases, newest first; recording one again changes nothing."""
    found: dict[tuple[str, str], Release] = {}
    for event in events:
        if event.kind == "release.created":
            release = release_of(event)
            found.setdefault((release["version"], release["digest"]), release)
    return list(reversed(found.values()))


def runs_of(events: Iterable[Event], now: datetime) -> list[Run]:
    """The runs whose `run.started` is among the events, newest first."""
    by_run: dict[str, list[Event]] = {}
    for event in events:
        by_run.setdefault(event.run, []).append(event)
    runs = [_run(its, now) for its in by_run.values() if any(e.kind == "run.started" for e in its)]
    return sorted(runs, key=lambda run: (run.started, run.id), reverse=True)


def rollouts_of(
    events: Iterable[Event], now: datetime, heard: Mapping[str, datetime | None]
) -> list[Rollout]:
    """The rollouts whose `rollout.started` is among the events, newest first.

    Args:
        heard: when each run last appended anything, None once that run has ended.
    """
    by_rollout: dict[str, list[Event]] = {}
    for event in events:
        if event.kind.startswith("rollout."):
            by_rollout.setdefault(event.data["rollout"], []).append(event)
    return [
        _rollout(its, now, heard)
        for its in reversed(by_rollout.values())
        if its[0].kind == "rollout.started"
    ]


def _run(events: list[Event], now: datetime) -> Run:
    start = next(event for event in events if event.kind == "run.started")
    end = next((event for event in reversed(events) if event.kind == "run.finished"), None)
    last = events[-1].at
    alive = end is None and now - last < SILENCE
    return Run(
        id=start.run,
        pipeline=start.data["pipeline"],
        revision=start.data["revision"],
        version=start.data["version"],
        actor=start.data["actor"],
        started=start.at,
        last_event=last,
        finished=end.at if end else None,
        result=end.data["result"] if end else None,
        state=end.data["result"] if end else _open_state(alive),
        seconds=end.data["seconds"] if end else None,
        stages=_stages(events, alive),
        releases=tuple(reversed(releases_of(events))),
        rollouts=tuple(e.data["rollout"] for e in events if e.kind == "rollout.started"),
    )


def _stages(events: list[Event], alive: bool) -> tuple[StageResult, ...]:
    checks: dict[str, list[CheckResult]] = {}
    began: dict[str, datetime] = {}
    ended: dict[str, Event] = {}
    for event in events:
        data = event.data
        match event.kind:
            case "stage.started":
                began.setdefault(data["stage"], event.at)
            case "stage.finished":
                # A stage that never said it started still took place.
                began.setdefault(data["stage"], event.at - timedelta(seconds=data["seconds"]))
                ended[data["stage"]] = event
            case "check.finished":
                began.setdefault(data["stage"], event.at - timedelta(seconds=data["seconds"]))
                checks.setdefault(data["stage"], []).append(_check(event))
    return tuple(
        StageResult(
            name=name,
            state=ended[name].data["result"] if name in ended else _open_state(alive),
            started=started,
            finished=ended[name].at if name in ended else None,
            seconds=ended[name].data["seconds"] if name in ended else None,
            cached=ended[name].data["cached"] if name in ended else False,
            summary=ended[name].data["summary"] if name in ended else "",
            checks=tuple(checks.get(name, ())),
        )
        for name, started in began.items()
    )


def _check(event: Event) -> CheckResult:
    data = event.data
    return CheckResult(
        stage=data["stage"],
        name=data["check"],
        result=data["result"],
        seconds=data["seconds"],
        cached=data["cached"],
        summary=data["summary"],
        finished=event.at,
    )


def _rollout(events: list[Event], now: datetime, heard: Mapping[str, datetime | None]) -> Rollout:
    start = events[0]
    end = next((event for event in reversed(events) if event.kind == "rollout.finished"), None)
    last_heard = heard.get(start.run, events[-1].at)
    alive = end is None and last_heard is not None and now - last_heard < SILENCE
    data = start.data
    return Rollout(
        id=data["rollout"],
        run=start.run,
        environment=data["environment"],
        version=data["version"],
        revision=data["revision"],
        digest=data["digest"],
        previous_digest=data["previous_digest"],
        reason=data["reason"],
        started=start.at,
        finished=end.at if end else None,
        result=end.data["result"] if end else None,
        state=end.data["result"] if end else _open_state(alive),
        seconds=end.data["seconds"] if end else None,
        cause=end.data.get("cause") if end else None,
        running_digest=end.data["digest"] if end else None,
        steps=tuple(
            Step(event.data["step"], event.at, event.data["data"])
            for event in events
            if event.kind == "rollout.step"
        ),
        promotion=data.get("promotion"),
        wave=data.get("wave"),
        plan=data.get("plan") or {},
    )


def _open_state(alive: bool) -> str:
    return "running" if alive else "unfinished"
