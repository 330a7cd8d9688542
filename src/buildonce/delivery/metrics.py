"""Metrics of a candidate on this machine, judged by the figures that its proxy keeps.

    watches = local_watches(figures, environment.rollout.metrics, clock)
    await watches[0].look()              # Verdict("breach", "error-rate is 7.1 % …", samples=140)

The proxy counts from its start; a watch remembers what it read before, so a metric covers the last
`window` seconds and never what was before the rollout.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from buildonce.config.rollout import MetricConfig
from buildonce.delivery.clock import Clock
from buildonce.delivery.haproxy import ServerState
from buildonce.delivery.watch import Judgement, Verdict, Watch

Figures = Callable[[], Awaitable[ServerState | None]]
"""The proxy's figures of the candidate now; None while they cannot be read."""

_DEAD_LOOKS = 2


def local_watches(
    figures: Figures, metrics: Sequence[MetricConfig], clock: Clock
) -> Sequence[Watch]:
    """That it is alive, always; and the metrics."""
    return [
        _Alive(figures),
        *(MetricWatch(metric, figures, clock) for metric in metrics),
    ]


class _Alive:
    """In breach once the candidate's health check fails in two looks, one after the other."""

    name = "health"

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self._down = 0

    async def look(self) -> Verdict:
        state = await self._figures()
        if state is None:
            return Verdict("inconclusive", "the proxy says nothing of the new release")
        self._down = self._down + 1 if state.status.startswith("DOWN") else 0
        if self._down >= _DEAD_LOOKS:
            return Verdict("breach", "the new release does not answer its health check any more")
        if self._down:
            return Verdict("inconclusive", "the new release did not answer its health check")
        return Verdict("ok", "the new release answers its health check")


@dataclass(frozen=True)
class _Reading:
    at: float
    answers: int
    errors: int


class MetricWatch:
    """One configured metric.

    Args:
        config: which, and its threshold.
        figures: where it is read.
        clock: by which the window is measured.
    """

    def __init__(self, config: MetricConfig, figures: Figures, clock: Clock) -> None:
        self.config = config
        self.name = config.metric
        self._figures = figures
        self._clock = clock
        self._readings: deque[_Reading] = deque()
        self._looks: deque[bool] = deque(maxlen=config.looks)

    async def look(self) -> Verdict:
        """Read, and judge the window that ends now."""
        state = await self._figures()
        if state is None:
            return Verdict("inconclusive", f"{self.name} is missing: the proxy says nothing")
        now = _Reading(self._clock.monotonic(), state.answers, state.errors)
        if self._readings and now.answers < self._readings[-1].answers:
            self._readings.clear()  # the proxy was started anew and counts from zero
        self._readings.append(now)
        window = self.config.window.total_seconds()
        # The newest reading that is old enough stays, so that the window is covered.
        while len(self._readings) > 1 and self._readings[1].at <= now.at - window:
            self._readings.popleft()
        before = self._readings[0]
        samples, seconds = now.answers - before.answers, now.at - before.at
        if seconds <= 0:
            return Verdict("inconclusive", f"{self.name}: the first look, nothing to compare", 0)
        if samples < self.config.minimum_sample:
            return Verdict(
                "inconclusive",
                f"{self.name}: {samples} requests in {seconds:.0f} s, "
                f"{self.config.minimum_sample} are wanted",
                samples,
            )
        errors = now.errors - before.errors
        value, unit = {
            "error-rate": (100 * errors / samples if samples else 0.0, "%"),
            "latency": (state.milliseconds, "ms"),
            "request-rate": (samples / seconds, "requests/s"),
        }[self.config.metric]
        return self._judged(value, unit, samples)

    def _judged(self, value: float, unit: str, samples: int) -> Verdict:
        above, below = self.config.above, self.config.below
        beyond = ""
        if above is not None and value > above:
            beyond = f", above {above:g} {unit}"
        elif below is not None and value < below:
            beyond = f", below {below:g} {unit}"
        self._looks.append(bool(beyond))
        bad = sum(self._looks)
        why = f"{self.name} is {value:.3g} {unit} of {samples} requests{beyond}"
        judgement: Judgement = "ok"
        if bad >= self.config.breaches:
            judgement = "breach"
        elif bad:
            judgement = "inconclusive"
        if bad and self.config.looks > 1:
            why = f"{why} ({bad} of the last {len(self._looks)} looks in breach)"
        return Verdict(judgement, why, samples)
