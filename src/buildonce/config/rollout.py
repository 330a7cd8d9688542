"""`[environments.X.rollout]` and `[waves.NAME]`: how a release gets its traffic, as data.

[environments.production.rollout]
strategy = "canary"
steps = [10, 50]                      # percent; then 100
interval = "5m"                       # at each of these steps
bake = "10m"                          # watched at 100 %, the previous release kept
inconclusive = "roll-back"            # or "proceed", "ask"

[[environments.production.rollout.metrics]]
metric = "error-rate"                 # of the new release's answers, percent
above = 1.0

[waves.live]
environments = [["pilot"], ["production-eu", "production-us"]]
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from buildonce.config.base import Duration, Table
from buildonce.config.mistakes import did_you_mean

CONCURRENCY = 20
"""Environments that are changed at the same time, when nothing else is said."""

Percent = Annotated[int, Field(ge=1, le=99, strict=True)]


class MetricConfig(Table):
    """A metric of the candidate with a threshold.

    Attributes:
        metric: "error-rate" (percent of its answers that are 5xx or no answer), "latency" (mean
            milliseconds until it answers), "request-rate" (requests a second).
        above, below: in breach when beyond; one of them, or both for a range.
        window: how far back the figures go.
        minimum_sample: on fewer requests in the window nothing is said: inconclusive.
        breaches, looks: in breach once that many of the last so many looks were; one blip of a
            metric with `breaches = 2` changes nothing, a flapping one counts.
    """

    metric: Literal["error-rate", "latency", "request-rate"]
    above: Annotated[float, Field(ge=0)] | None = None
    below: Annotated[float, Field(gt=0)] | None = None
    window: Duration = timedelta(seconds=10)
    minimum_sample: Annotated[int, Field(ge=0, strict=True)] = 20
    breaches: Annotated[int, Field(ge=1, strict=True)] = 1
    looks: Annotated[int, Field(ge=1, le=100, strict=True)] = 1

    @model_validator(mode="after")
    def _has_a_threshold(self) -> Self:
        if self.above is None and self.below is None:
            raise ValueError("a metric wants a threshold: `above` or `below`")
        if self.breaches > self.looks:
            raise ValueError("`breaches` cannot be more than `looks`")
        return self


class SyntheticConfig(Table):
    """Requests that the rollout itself makes where there is no traffic, or too little.

    Attributes:
        path: what is asked with GET, below the environment's address.
        rate: requests a second.
    """

    path: Annotated[str, Field(pattern="^/")] = "/"
    rate: Annotated[float, Field(gt=0, le=1000)] = 5.0


class RolloutConfig(Table):
    """How a release takes over the traffic of an environment.

    Attributes:
        strategy: "all-at-once"; "canary" (`steps`, then 100 %); "linear" (`step` more each time);
            "blue-green" (proven without traffic first, then 100 % at once).
        steps: canary: percentages, rising.
        step: linear: percentage points.
        interval: how long the traffic stays at each step before 100 %.
        bake: how long it is watched at 100 % while the previous release is kept.
        metrics: judged on this machine's targets, by the proxy's figures.
        alarms: names of the account's alarms, judged on AWS's targets.
        look_every: time between two looks at metrics and alarms.
        synthetic: requests made during the rollout.
        hold: how long to stay at a step whose verdict is inconclusive; then `inconclusive` counts.
        inconclusive: then "proceed", "roll-back" (exit code 5), or "ask" a person.
        ask_for: how long to wait for that person before going back.
        drain: how long a release that gets no more requests may take to end those it has.
    """

    strategy: Literal["all-at-once", "canary", "linear", "blue-green"] = "all-at-once"
    steps: tuple[Percent, ...] = ()
    step: Percent | None = None
    interval: Duration | None = None
    bake: Duration | None = None
    metrics: tuple[MetricConfig, ...] = ()
    alarms: tuple[str, ...] = ()
    look_every: Duration = timedelta(seconds=5)
    synthetic: SyntheticConfig | None = None
    hold: Duration = timedelta(minutes=1)
    inconclusive: Literal["proceed", "roll-back", "ask"] = "roll-back"
    ask_for: Duration = timedelta(hours=1)
    drain: Duration = timedelta(seconds=30)

    @field_validator("steps")
    @classmethod
    def _steps_rise(cls, steps: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        _only("canary", info)
        if list(steps) != sorted(set(steps)):
            raise ValueError("the percentages must rise")
        return steps

    @field_validator("step")
    @classmethod
    def _step_is_linear(cls, step: int | None, info: ValidationInfo) -> int | None:
        _only("linear", info)
        return step

    @field_validator("interval")
    @classmethod
    def _interval_has_steps(
        cls, interval: timedelta | None, info: ValidationInfo
    ) -> timedelta | None:
        _only("canary", info, "linear")
        return interval

    @model_validator(mode="after")
    def _complete(self) -> Self:
        wanted = {"canary": ("steps", "interval"), "linear": ("step", "interval")}
        missing = [key for key in wanted.get(self.strategy, ()) if not getattr(self, key)]
        if missing:
            named = " and ".join(f"`{key}`" for key in missing)
            raise ValueError(f'strategy "{self.strategy}" wants {named}')
        return self

    @property
    def weights(self) -> tuple[int, ...]:
        """The shares of the traffic, in order; the last is 100."""
        match self.strategy:
            case "canary":
                return (*self.steps, 100)
            case "linear":
                assert self.step is not None
                return (*range(self.step, 100, self.step), 100)
        return (100,)


class WavesConfig(Table):
    """Environments that follow one another: those of a wave side by side, the next wave after it.

    Attributes:
        environments: names, wave by wave.
        bake: how long to watch after each wave, before the next.
        concurrency: how many of its environments are changed at the same time.
    """

    environments: tuple[tuple[str, ...], ...]
    bake: Duration | None = None
    concurrency: Annotated[int, Field(ge=1, strict=True)] = CONCURRENCY

    @field_validator("environments")
    @classmethod
    def _once_each(cls, waves: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
        names = [name for wave in waves for name in wave]
        if not names or not all(waves):
            raise ValueError("each wave names at least one environment")
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name} is named twice")
        return waves


def check_waves(
    waves: Mapping[str, WavesConfig],
    environments: Mapping[str, Collection[str]],
) -> None:
    """Whether the waves name what there is, and each of it once.

    Args:
        environments: names of the places of each; itself where it has but one.

    Raises:
        ValueError: they do not; the message begins with the key.
    """
    known = {place: [place] for places in environments.values() for place in places}
    known |= {name: list(places) for name, places in environments.items()}
    for name, plan in waves.items():
        if name in environments:
            raise ValueError(f"waves.{name}: this is the name of an environment already")
        seen: dict[str, str] = {}
        for member in (member for wave in plan.environments for member in wave):
            if member not in known:
                raise ValueError(
                    f"waves.{name}.environments: there is no environment {member!r}"
                    f"{did_you_mean(member, environments)}"
                )
            for place in known[member]:
                if place in seen:
                    raise ValueError(
                        f"waves.{name}.environments: {place} is in it twice, as {seen[place]!r} "
                        f"and as {member!r}"
                    )
                seen[place] = member


def _only(strategy: str, info: ValidationInfo, *others: str) -> None:
    chosen = info.data.get("strategy", strategy)  # absent when it was wrong itself
    if chosen not in (strategy, *others):
        fitting = " or ".join(f'"{name}"' for name in (strategy, *others))
        raise ValueError(f'strategy "{chosen}" has none; it belongs to {fitting}')
