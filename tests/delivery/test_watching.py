"""Watched rollouts in memory, by the test's clock: what each verdict leads to, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from buildonce.config.rollout import MetricConfig
from buildonce.delivery import RolledBack, Watch
from buildonce.delivery.haproxy import ServerState
from buildonce.delivery.metrics import MetricWatch
from buildonce.delivery.target import Candidate
from tests.aws.clock import SimulatedClock
from tests.samples import release

from .company import Company, WatchedTarget, place
from .conftest import record

pytestmark = pytest.mark.anyio

ONE, TWO = release("1"), release("2")
STAGING = [["staging"]]


async def shop(folder: Path, **rollout: Any) -> Company:
    """An environment that runs release 1; its clock begins there."""
    company = Company(folder, [place("staging", **rollout)])
    company.hire("ann")
    await record(ONE, company.ledger)
    await record(TWO, company.ledger)
    await company.promote(ONE, STAGING)
    company.targets["staging"].shifts.clear()
    company.clock.advance(-company.clock.monotonic())
    return company


async def end(company: Company) -> RolledBack | None:
    """How release 2 fares there."""
    async with company.at_work():
        try:
            await company.promote(TWO, STAGING)
        except RolledBack as error:
            return error
    return None


@pytest.mark.parametrize(
    ("rollout", "shifts"),
    [
        ({}, [(0, 10), (60, 50), (120, 100)]),
        (
            {"strategy": "linear", "step": 25, "interval": "60s", "bake": "60s"},
            [(0, 25), (60, 50), (120, 75), (180, 100)],
        ),
        (
            {"strategy": "linear", "step": 40, "interval": "10s"},
            [(0, 40), (10, 80), (20, 100)],
        ),
        ({"strategy": "blue-green", "bake": "60s"}, [(0, 100)]),
        ({"strategy": "all-at-once"}, [(0, 100)]),
    ],
)
async def test_each_strategy_gives_its_shares_at_its_times(
    tmp_path: Path, rollout: dict[str, Any], shifts: list[tuple[float, int]]
) -> None:
    company = await shop(tmp_path, **rollout)
    company.script("staging", {0: "ok"})
    assert await end(company) is None
    assert company.targets["staging"].shifts == shifts
    assert company.serving == company.everywhere("2")


@pytest.mark.parametrize("at", [30, 90, 119, 200, 239])
async def test_a_breach_at_any_step_and_in_the_bake_shifts_the_traffic_back_at_once(
    tmp_path: Path, at: float
) -> None:
    company = await shop(tmp_path)
    company.script("staging", {0: "ok", at: "breach"})
    error = await end(company)
    assert error is not None
    assert "errors is in breach" in error.cause
    assert error.exit_code == 3
    assert company.serving == company.everywhere("1")
    assert at <= company.clock.monotonic() <= at + 5, "it is looked at every five seconds"


@pytest.mark.parametrize("state", ["inconclusive", "missing"])
@pytest.mark.parametrize(
    ("configured", "ends_on", "seconds"),
    [("roll-back", "1", 60 + 30), ("proceed", "2", 240 + 3 * 30)],
)
async def test_no_news_is_held_and_then_as_configured(
    tmp_path: Path, state: str, configured: str, ends_on: str, seconds: float
) -> None:
    company = await shop(tmp_path, hold="30s", inconclusive=configured)
    company.script("staging", {0: state})
    error = await end(company)
    assert (error.exit_code if error else None) == (5 if ends_on == "1" else None)
    assert company.serving == company.everywhere(ends_on)
    assert company.clock.monotonic() == seconds
    (rollout, _) = await company.ledger.rollouts()
    held = [s.data.get("held") for s in rollout.steps if s.name == "bake" and "held" in s.data]
    assert set(held) == {30.0}


async def test_news_that_comes_while_it_is_held_counts(tmp_path: Path) -> None:
    company = await shop(tmp_path, hold="30s")
    company.script("staging", {0: "missing", 70: "ok"})
    assert await end(company) is None
    assert company.targets["staging"].shifts == [(0, 10), (70, 50), (130, 100)]


@pytest.mark.parametrize(("given", "ends_on"), [(True, "2"), (False, "1"), (None, "1")])
async def test_a_person_may_be_asked_in_place_of_a_guess(
    tmp_path: Path, given: bool | None, ends_on: str
) -> None:
    company = await shop(tmp_path, hold="10s", inconclusive="ask", ask_for="10m")
    company.script("staging", {0: "missing", 100: "ok"})

    async def somebody() -> None:
        await company.clock.sleep(90)
        (rollout, _) = await company.ledger.rollouts()
        if given is not None:
            await company.word("ann", TWO, "staging", given=given, rollout=rollout.id)

    async with company.at_work(), anyio.create_task_group() as group:
        group.start_soon(somebody)
        try:
            await company.promote(TWO, STAGING)
            error = None
        except RolledBack as rolled_back:
            error = rolled_back
    assert company.serving == company.everywhere(ends_on)
    (rollout, _) = await company.ledger.rollouts()
    asked = next(line for line in company.said if "buildonce approve staging --rollout" in line)
    assert rollout.id in asked
    if given is None:
        assert error is not None and error.exit_code == 5
        assert "nobody answered within 600 s" in error.cause
    elif not given:
        assert error is not None and "ann refused 2 for staging" in error.cause


async def test_a_breach_while_a_person_is_asked_ends_the_wait(tmp_path: Path) -> None:
    company = await shop(tmp_path, hold="10s", inconclusive="ask", ask_for="10m")
    company.script("staging", {0: "missing", 200: "breach"})
    error = await end(company)
    assert error is not None and "in breach" in error.cause
    assert 200 <= company.clock.monotonic() <= 205
    assert company.serving == company.everywhere("1")


@dataclass
class Balancer:
    """Counts what it was scripted to have answered, each ten seconds: (answers, errors)."""

    clock: SimulatedClock
    tens: Sequence[tuple[int, int]]

    async def read(self) -> ServerState:
        past = [self.tens[min(n, len(self.tens) - 1)] for n in range(self.passed)]
        return ServerState("UP", 10, 0, 0, sum(a for a, _ in past), sum(e for _, e in past))

    @property
    def passed(self) -> int:
        return round(self.clock.monotonic()) // 10


@dataclass
class MeteredTarget(WatchedTarget):
    tens: Sequence[tuple[int, int]] = ()
    metric: MetricConfig | None = None

    def watches(self, candidate: Candidate) -> Sequence[Watch]:
        assert self.metric is not None
        return [MetricWatch(self.metric, Balancer(self.clock, self.tens).read, self.clock)]


WELL, ILL, IDLE = (100, 0), (100, 9), (3, 0)


@pytest.mark.parametrize(
    ("tens", "ends_on", "code"),
    [
        ([WELL], "2", None),
        ([WELL, WELL, ILL, WELL, WELL, WELL], "2", None),
        ([WELL, ILL, WELL, ILL, WELL, ILL], "1", 3),
        ([WELL, WELL, WELL, WELL, WELL, WELL, WELL, WELL, ILL], "1", 3),
        ([IDLE], "1", 5),
        ([WELL, WELL, WELL, WELL, WELL, IDLE], "1", 5),
    ],
    ids=["well", "a blip", "flapping", "ill at 50 %", "no traffic", "traffic that ceases"],
)
async def test_metrics_are_judged_over_their_window(
    tmp_path: Path, tens: list[tuple[int, int]], ends_on: str, code: int | None
) -> None:
    company = await shop(tmp_path, look_every="10s", hold="20s")
    metric = MetricConfig(metric="error-rate", above=1, minimum_sample=50, breaches=2, looks=3)
    target = company.targets["staging"]
    metered = MeteredTarget(
        clock=company.clock,
        containers=target.containers,
        active=target.active,
        tens=tens,
        metric=metric,
    )
    company.targets["staging"] = metered
    error = await end(company)
    assert (error.exit_code if error else None) == code, error
    assert company.serving == company.everywhere(ends_on)


async def test_a_metric_wants_its_sample_and_begins_anew_with_its_balancer() -> None:
    clock = SimulatedClock()
    figures = [0, 0]

    async def read() -> ServerState:
        return ServerState("UP", 10, 0, 0, answers=figures[0], errors=figures[1])

    config = MetricConfig(metric="error-rate", above=1, minimum_sample=50, breaches=2, looks=3)
    watch, seen = MetricWatch(config, read, clock), []
    for answers, errors in ((0, 0), (20, 5), (100, 0), (100, 9), (-320, -14), (100, 0), (100, 9)):
        clock.advance(10)
        figures[0], figures[1] = figures[0] + answers, figures[1] + errors
        seen.append((await watch.look()).state)
    no = "inconclusive"
    assert seen == [no, no, "ok", no, no, no, "breach"]


async def test_nobody_who_listens_any_more_stops_no_way_back(tmp_path: Path) -> None:
    """The reader of a pipe is often ended by the very Ctrl-C that ends the rollout."""
    company = await shop(tmp_path)
    company.script("staging", {0: "ok", 90: "breach"})

    def deaf(_: str) -> None:
        raise BrokenPipeError

    async with company.at_work():
        with pytest.raises(RolledBack, match="errors is in breach"):
            await company.promote(TWO, STAGING, progress=deaf)
    assert company.serving == company.everywhere("1")
