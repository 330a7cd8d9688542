"""Watched rollouts and waves in memory, with a clock that jumps to the next deadline."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import anyio
import pytest

from buildonce.config import EnvironmentConfig
from buildonce.config.rollout import MetricConfig, RolloutConfig
from buildonce.config.windows import WindowConfig
from buildonce.delivery import RolledBack, Verdict, deploy, promote
from buildonce.delivery.haproxy import ServerState
from buildonce.delivery.lease_sqlite import SqliteLeases
from buildonce.delivery.metrics import MetricWatch
from buildonce.delivery.target import Candidate
from buildonce.delivery.watch import Watch
from buildonce.delivery.windows import closed, within
from buildonce.ledger import Ledger, new_run_id

from .conftest import release
from .memory import MemoryStore, MemoryTarget

pytestmark = pytest.mark.anyio


class JumpingClock:
    """Who sleeps wakes in order, at once."""

    def __init__(self) -> None:
        self.time = 0.0
        self.waiting: list[float] = []

    def now(self) -> datetime:
        return datetime(2026, 11, 21, tzinfo=UTC) + timedelta(seconds=self.time)

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        due = self.time + seconds
        self.waiting.append(due)
        try:
            while self.time < due:
                await anyio.sleep(0.001)
                if due == min(self.waiting):
                    self.time = max(self.time, due)
        finally:
            self.waiting.remove(due)


class Scripted:
    """A watch that says what the clock's time wants it to."""

    name = "errors"

    def __init__(self, clock: JumpingClock, script: dict[float, str]) -> None:
        self.clock = clock
        self.script = script

    async def look(self) -> Verdict:
        state = [s for at, s in sorted(self.script.items()) if at <= self.clock.time][-1]
        if state == "missing":
            raise OSError("no such metric")
        return Verdict(state, f"{state} at {self.clock.time:.0f} s")  # type: ignore[arg-type]


class WatchedTarget(MemoryTarget):
    script: Sequence[Watch] = ()

    def watches(self, candidate: Candidate) -> Sequence[Watch]:
        return self.script


def place(name: str = "staging", **rollout: object) -> EnvironmentConfig:
    wanted = {"strategy": "canary", "steps": [10, 50], "interval": "60s", "bake": "120s"} | rollout
    return EnvironmentConfig(name=name, port=1, rollout=RolloutConfig.model_validate(wanted))


async def no_smoke(_: str) -> None: ...


async def run(
    tmp_path: Path, script: dict[float, str], **rollout: object
) -> tuple[BaseException | None, WatchedTarget, JumpingClock]:
    clock, target, ledger = JumpingClock(), WatchedTarget(), Ledger(MemoryStore())
    common = {"project": "shop", "ledger": ledger, "run": new_run_id(), "smoke": no_smoke}
    common |= {"target": target, "leases": SqliteLeases(tmp_path), "clock": clock}
    await deploy(release("1"), EnvironmentConfig(name="staging", port=1), **common)  # type: ignore[arg-type]
    target.script = [Scripted(clock, script)]
    try:
        await deploy(release("2"), place(**rollout), **common)  # type: ignore[arg-type]
    except RolledBack as error:
        return error, target, clock
    return None, target, clock


async def test_all_well_goes_through_all_steps_and_the_bake(tmp_path: Path) -> None:
    error, target, clock = await run(tmp_path, {0: "ok"})
    assert error is None
    assert target.serving == {"2": 100}
    assert clock.time >= 60 + 60 + 120


@pytest.mark.parametrize("at", [30, 90, 200])
async def test_a_breach_at_any_step_shifts_the_traffic_back(tmp_path: Path, at: float) -> None:
    error, target, _ = await run(tmp_path, {0: "ok", at: "breach"})
    assert isinstance(error, RolledBack)
    assert "errors is in breach" in error.cause
    assert error.exit_code == 3
    assert target.serving == {"1": 100}


@pytest.mark.parametrize("state", ["inconclusive", "missing"])
async def test_no_news_is_held_and_then_taken_back_with_a_code_of_its_own(
    tmp_path: Path, state: str
) -> None:
    error, target, clock = await run(tmp_path, {0: state}, hold="30s")
    assert isinstance(error, RolledBack)
    assert error.exit_code == 5
    assert target.serving == {"1": 100}
    assert clock.time >= 60 + 30


async def test_no_news_may_be_configured_to_be_good_enough(tmp_path: Path) -> None:
    error, target, _ = await run(tmp_path, {0: "missing"}, inconclusive="proceed")
    assert error is None
    assert target.serving == {"2": 100}


async def test_a_breach_in_the_last_wave_brings_the_first_back_too(tmp_path: Path) -> None:
    clock, ledger = JumpingClock(), Ledger(MemoryStore())
    targets = {name: WatchedTarget() for name in ("pilot", "production")}

    async def target(where: EnvironmentConfig) -> WatchedTarget:
        return targets[where.name]

    waves = [[place("pilot")], [place("production")]]
    common = {"project": "shop", "ledger": ledger, "run": new_run_id(), "smoke": no_smoke}
    common |= {
        "target": target,
        "leases": SqliteLeases(tmp_path),
        "clock": clock,
        "bake": timedelta(minutes=1),
    }
    await promote(release("1"), waves, **common)  # type: ignore[arg-type]
    begins = clock.time
    targets["pilot"].script = [Scripted(clock, {0: "ok", begins + 400: "breach"})]
    with pytest.raises(RolledBack, match="pilot: errors is in breach"):
        await promote(release("2"), waves, **common)  # type: ignore[arg-type]
    assert all(target.serving == {"1": 100} for target in targets.values())
    rollouts = {r.environment: r for r in await ledger.rollouts(limit=2)}
    assert {name: r.result for name, r in rollouts.items()} == {
        "pilot": "rolled-back",
        "production": "rolled-back",
    }
    assert [p.result for p in await ledger.promotions()] == ["rolled-back", "succeeded"]


async def test_a_metric_wants_its_sample_and_a_flapping_one_counts() -> None:
    clock, figures = JumpingClock(), [0, 0]

    async def read() -> ServerState:
        return ServerState("UP", 10, 0, 0, answers=figures[0], errors=figures[1])

    config = MetricConfig(metric="error-rate", above=1, minimum_sample=50, breaches=2, looks=3)
    watch, seen = MetricWatch(config, read, clock), []
    for answers, errors in ((0, 0), (20, 5), (100, 0), (100, 9), (100, 0), (100, 9)):
        clock.time += 10
        figures[0], figures[1] = figures[0] + answers, figures[1] + errors
        seen.append((await watch.look()).state)
    assert seen == ["inconclusive", "inconclusive", "ok", "inconclusive", "inconclusive", "breach"]


WEEKEND = WindowConfig(
    name="weekend",
    kind="deny",
    start=datetime(2026, 1, 3),
    rrule="FREQ=WEEKLY;BYDAY=SA",
    duration="48h",
    timezone="Europe/Berlin",
)  # type: ignore[arg-type]


@pytest.mark.parametrize("saturday", ["2026-03-28", "2026-10-24", "2026-11-21"])
async def test_a_weekend_ends_at_midnight_also_when_the_clocks_change(saturday: str) -> None:
    zone = ZoneInfo("Europe/Berlin")
    begins = datetime.fromisoformat(saturday).replace(tzinfo=zone)
    ends = (begins.replace(tzinfo=None) + timedelta(days=2)).replace(tzinfo=zone)
    minute = timedelta(minutes=1)
    assert within(WEEKEND, begins.astimezone(UTC))
    assert within(WEEKEND, ends.astimezone(UTC) - minute)
    assert not within(WEEKEND, ends.astimezone(UTC))
    assert not within(WEEKEND, begins.astimezone(UTC) - minute)
    closure = closed([WEEKEND], begins.astimezone(UTC))
    assert closure is not None
    assert closure.until == ends.astimezone(UTC)
    assert '"weekend"' in str(closure)
