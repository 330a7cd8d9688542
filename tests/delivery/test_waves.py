"""Waves: in their order, watched to the end, all or nothing; also when their process is killed."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buildonce.config import Config, ConfigError
from buildonce.delivery import OutOfOrder, RolledBack, SmokeFailed, check_order, planned_waves
from buildonce.delivery.promotion import Reached
from buildonce.delivery.resuming import resume
from buildonce.delivery.saying import first_failure
from buildonce.ledger import new_run_id
from tests.samples import release

from .company import Company, Scripted, no_smoke, place
from .conftest import record
from .memory import Killed, Power

pytestmark = pytest.mark.anyio

ONE, TWO = release("1"), release("2")
WAVES = [["pilot"], ["eu", "us"]]


async def shop(folder: Path, waves: Sequence[Sequence[str]] = WAVES, **more: Any) -> Company:
    """Everywhere runs release 1."""
    rollout = {"steps": [50], "interval": "60s", "bake": "60s"}
    company = Company(folder, [place(name, **rollout) for wave in waves for name in wave])
    company.hire("ann")
    for what in (ONE, TWO):
        await record(what, company.ledger)
    async with company.at_work():
        await company.promote(ONE, waves)
    company.clock.advance(-company.clock.monotonic())
    for target in company.targets.values():
        target.shifts.clear()
    return company


async def settled(company: Company) -> None:
    """Nothing is under way any more, and the ledger says what runs."""
    assert all(target.candidate is None for target in company.targets.values())
    assert all(r.result is not None for r in await company.ledger.rollouts(limit=None))
    assert all(p.result is not None for p in await company.ledger.promotions(limit=None))
    for name, target in company.targets.items():
        current = await company.ledger.current(name)
        (version,) = target.serving
        assert current is not None and current.version == version
        assert await company.leases.holder(name) is None


async def test_a_wave_begins_when_the_one_before_has_baked(tmp_path: Path) -> None:
    company = await shop(tmp_path)
    async with company.at_work():
        rollouts = await company.promote(TWO, WAVES, bake=300)
    assert [r.environment for r in rollouts] == ["pilot", "eu", "us"]
    assert company.targets["pilot"].shifts == [(0, 50), (60, 100)]
    assert company.targets["eu"].shifts == company.targets["us"].shifts == [(420, 50), (480, 100)]
    assert company.clock.monotonic() == 540
    assert company.serving == company.everywhere("2")
    await settled(company)


@pytest.mark.parametrize(
    ("at", "meanwhile"),
    [(30, "its first step"), (100, "its bake"), (200, "the time between"), (500, "the next wave")],
)
async def test_a_breach_in_the_first_wave_at_any_time_brings_all_back(
    tmp_path: Path, at: float, meanwhile: str
) -> None:
    company = await shop(tmp_path)
    company.script("pilot", {0: "ok", at: "breach"})
    async with company.at_work():
        with pytest.raises(RolledBack, match="errors is in breach") as error:
            await company.promote(TWO, WAVES, bake=300)
    assert error.value.exit_code == 3
    assert company.serving == company.everywhere("1"), meanwhile
    assert company.clock.monotonic() <= at + 5
    await settled(company)


async def test_a_breach_while_the_next_wave_waits_for_its_approval_ends_the_wait(
    tmp_path: Path,
) -> None:
    company = await shop(tmp_path)
    company.places["eu"] = place("eu", approval=True)
    company.script("pilot", {0: "ok", 5000: "breach"})
    async with company.at_work():
        with pytest.raises(RolledBack, match="pilot: errors is in breach"):
            await company.promote(TWO, WAVES)
    assert any("eu: waiting for the approval of 2" in line for line in company.said)
    assert 5000 <= company.clock.monotonic() <= 5005
    assert company.serving == company.everywhere("1")
    await settled(company)


async def test_tests_of_a_wave_come_before_its_bake_and_bring_all_back(tmp_path: Path) -> None:
    company = await shop(tmp_path)
    tested: list[tuple[float, list[str]]] = []

    async def tests(wave: Sequence[Reached]) -> None:
        assert all(company.targets[one.environment.name].percent == 100 for one in wave)
        tested.append((company.clock.monotonic(), [one.environment.name for one in wave]))
        if len(tested) == 2:
            raise SmokeFailed("the contract is broken")

    async with company.at_work():
        with pytest.raises(RolledBack, match="the contract is broken"):
            await company.promote(TWO, WAVES, after_wave=tests)
    assert tested == [(60, ["pilot"]), (180, ["eu", "us"])]
    assert company.serving == company.everywhere("1")
    await settled(company)


async def test_what_runs_there_already_is_neither_waited_for_nor_taken_back(
    tmp_path: Path,
) -> None:
    company = await shop(tmp_path)
    async with company.at_work():
        await company.promote(TWO, [["pilot"]])
    company.clock.advance(-company.clock.monotonic())
    company.script("us", {0: "ok", 10: "breach"})
    async with company.at_work():
        with pytest.raises(RolledBack):
            await company.promote(TWO, WAVES, bake=300)
    assert company.serving == {"pilot": {"2": 100}, "eu": {"1": 100}, "us": {"1": 100}}
    assert company.clock.monotonic() <= 15, "a wave in which nothing changed needs no bake"
    await settled(company)


# `BUILDONCE_FAULTS=5000` makes it the long run.
EXAMPLES = int(os.environ.get("BUILDONCE_FAULTS", "15"))
PLANS = st.lists(st.integers(1, 3), min_size=1, max_size=3).map(
    lambda sizes: [[f"e{wave}-{n}" for n in range(size)] for wave, size in enumerate(sizes)]
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(PLANS, st.integers(0, 200), st.data())
def test_each_environment_once_no_wave_before_its_time_and_one_release_everywhere(
    plan: list[list[str]], bake: int, data: st.DataObject
) -> None:
    """Whatever goes wrong in whichever environment, and whenever."""
    names = [name for wave in plan for name in wave]
    trouble = data.draw(st.sampled_from(["none", "breach", "missing", "smoke", "tests"]))
    where, at = data.draw(st.sampled_from(names)), data.draw(st.integers(0, 900))

    async def smoke(_: str) -> None: ...

    async def fails(_: str) -> None:
        raise SmokeFailed("no basket")

    async def tests(wave: Sequence[Reached]) -> None:
        if trouble == "tests" and where in [one.environment.name for one in wave]:
            raise SmokeFailed("the contract is broken")

    async def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            company = await shop(Path(folder), plan)
            target, wave = company.targets[where], next(w for w in plan if where in w)
            if trouble in ("breach", "missing"):
                target.script = [Scripted(company.clock, {0: "ok", at: trouble})]
            began = len(company.store.kept)
            try:
                async with company.at_work():
                    await company.promote(
                        TWO, plan, bake=bake, smoke=fails if trouble == "smoke" else smoke,
                        after_wave=tests,
                    )  # fmt: skip
                ended = "2"
            except RolledBack:
                ended = "1"
            assert company.serving == company.everywhere(ended)
            await settled(company)
            if trouble in ("smoke", "tests"):
                assert ended == "1"
            # By the events: each once, and the waves in their order and time.
            events = company.store.kept[began:]
            starts = [e for e in events if e.kind == "rollout.started"]
            counts = Counter(e.data["environment"] for e in starts)
            assert set(counts.values()) <= {1}
            assert ended == "1" or set(counts) == set(names)
            baked = {
                e.data["environment"]: e.at
                for e in events
                if e.kind == "rollout.step"
                and (e.data["step"], e.data["data"].get("percent")) == ("bake", 100)
                and e.data["data"]["state"] == "done"
            }
            for event in starts:
                number = (event.data["wave"] or 1) - 1  # of one environment alone it has none
                for earlier in (name for wave in plan[:number] for name in wave):
                    since = (event.at - baked[earlier]).total_seconds()
                    assert since >= bake, (earlier, event.data["environment"])
            assert wave

    anyio.run(work)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.integers(0, 260),
    st.booleans(),
    st.sampled_from(["kill", "fail"]),
    st.booleans(),
    st.booleans(),
)
def test_killed_at_any_tick_it_is_resumed_to_one_release(
    at: int, back: bool, kind: str, tests: bool, untested: bool
) -> None:
    async def work() -> None:
        passed: list[Sequence[Reached]] = []

        async def test(wave: Sequence[Reached]) -> None:
            passed.append(wave)

        with tempfile.TemporaryDirectory() as folder:
            company = await shop(Path(folder))
            power = company.power = Power(at=at, kind=kind)
            error: BaseException | None = None
            try:
                async with company.at_work():
                    after = test if tests else None
                    await company.promote(TWO, WAVES, bake=30, after_wave=after, tests=tests)
            except BaseException as raised:
                error = raised
            company.power = Power()
            assert error is None or isinstance(first_failure(error), Exception | Killed)
            async with company.at_work():
                await resume(
                    company.places,
                    company.options(),
                    back=back,
                    smoke=no_smoke,
                    untested=untested,
                )
            (version,) = {v for shares in company.serving.values() for v in shares}
            assert version in ("1", "2"), power.failed_at
            if tests and not untested and len(passed) < len(WAVES):
                assert version == "1", "nobody can test it any more"
            assert company.serving == company.everywhere(version)
            await settled(company)
            async with company.at_work():
                assert await resume(company.places, company.options()) == []
                await company.promote(TWO, WAVES)
            assert company.serving == company.everywhere("2")
            await settled(company)

    anyio.run(work)


CONFIG = """
[project]
name = "shop"
repository = "registry.test/shop"
[environments.staging]
port = 1
[environments.pilot]
port = 2
after = "staging"
[environments.production]
port = 3
after = "pilot"
[waves.live]
environments = [["pilot"], ["production"]]
bake = "10m"
"""


def config() -> Config:
    return Config.parse(CONFIG, path=Path("ci/pipeline.toml"))


@pytest.mark.parametrize(
    ("to", "names", "bake"),
    [
        ("staging", [["staging"]], 0),
        ("live", [["pilot"], ["production"]], 600),
        (["staging", ["pilot", "production"]], [["staging"], ["pilot", "production"]], 0),
    ],
)
def test_where_to_is_a_name_or_lists_of_names(to: Any, names: list[list[str]], bake: int) -> None:
    waves, between = planned_waves(config(), to)
    assert [[one.name for one in wave] for wave in waves] == names
    assert between.total_seconds() == bake


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("life", "did you mean 'live'"),
        ("produktion", "did you mean 'production'"),
        ([["pilot"], ["pilot", "production"]], "pilot is in more than one wave"),
        ([], "at least one environment"),
        ([["pilot"], []], "at least one environment"),
    ],
)
def test_what_cannot_be_meant_is_told(to: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned_waves(config(), to)


async def test_what_comes_before_must_run_or_be_in_an_earlier_wave(tmp_path: Path) -> None:
    company = Company(tmp_path, list(config().environments.values()))
    common = {"config": config(), "ledger": company.ledger}

    async def order(to: Any) -> None:
        await check_order(planned_waves(config(), to)[0], TWO, **common)  # type: ignore[arg-type]

    with pytest.raises(OutOfOrder, match="pilot comes after staging, where this release") as error:
        await order("live")
    assert error.value.exit_code == 2
    assert "buildonce deploy staging --release 2" in (error.value.remedy or "")
    await order([["staging"], ["pilot"], ["production"]])
    with pytest.raises(OutOfOrder, match="production comes after pilot"):
        await order([["staging"], ["pilot", "production"]])
    await record(TWO, company.ledger)
    data = {"rollout": new_run_id(), "environment": "staging"}
    started = {"version": "2", "revision": TWO.revision, "digest": TWO.image.digest}
    started |= {"previous_digest": None, "reason": "deploy"}  # type: ignore[dict-item]
    await company.ledger.append("rollout.started", run=new_run_id(), data={**data, **started})
    ended = {"result": "succeeded", "digest": TWO.image.digest, "seconds": 1.0}
    await company.ledger.append("rollout.finished", run=new_run_id(), data={**data, **ended})
    await order("live")


def test_waves_may_not_name_a_place_twice_by_two_names() -> None:
    text = CONFIG.replace(
        '[waves.live]\nenvironments = [["pilot"], ["production"]]',
        '[waves.live]\nenvironments = [["pilot"], ["pilot", "production"]]',
    )
    with pytest.raises(ConfigError, match="pilot is named twice"):
        Config.parse(text, path=Path("ci/pipeline.toml"))
