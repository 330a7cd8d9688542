"""Whole rollouts to accounts: whatever happens, the environment ends on exactly one release."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from buildonce.delivery import DeliveryError, NotFinished, RolledBack, UnknownRelease
from buildonce.errors import ExitCode

from .faults import Process
from .rollouts import Team, fails
from .simulation import Simulation
from .world import KINDS, NAME, World, release

pytestmark = pytest.mark.anyio

ONE, TWO = release("1.0"), release("2.0")
OURS, THEIRS = ("weighted", "lambda"), ("rolling", "blue-green", "linear", "canary")
STEPS = """
[environments.production.rollout]
strategy = "canary"
steps = [10, 50]
interval = "5m"
bake = "10m"
look_every = "30s"
"""
ALARM = f"{NAME}-errors"


async def _running(kind: str, simulation: Simulation, more: str = STEPS) -> Team:
    """A team whose environment runs the first release."""
    team = Team(World(kind, more, simulation).furnish())
    await team.deploy(ONE)
    return team


def _rings(team: Team, when: Callable[[], bool]) -> None:
    """The environment's alarm rings from that moment on."""
    alarms = team.world.place.alarms
    team.world.simulation.when(when, lambda: alarms.set(ALARM, "ALARM", "7 errors, 5 are allowed"))


def _share(team: Team) -> float:
    return team.world.serving.get(TWO.image.digest, 0)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_release_replaces_another_and_goes_back_by_one_command(
    kind: str, simulation: Simulation
) -> None:
    team = await _running(kind, simulation)
    began = team.clock.monotonic()
    done = await team.deploy(TWO)
    assert (done.result, await team.check()) == ("succeeded", TWO.image.digest)
    took = team.clock.monotonic() - began
    waits = {"weighted": 20, "lambda": 20, "linear": 10 + 3 * 2, "canary": 10 + 5 + 3}
    at_least = waits.get(kind, 10) * 60
    assert at_least <= took < at_least + 300
    began = team.clock.monotonic()
    back = await team.rollback()
    assert (back.reason, await team.check()) == ("rollback", ONE.image.digest)
    if kind in OURS:
        assert team.clock.monotonic() - began < 120  # no steps, no bake
    with pytest.raises(UnknownRelease):  # not forth again to what it went back from
        await team.rollback()


@pytest.mark.parametrize("percent", [10, 50, 100])
@pytest.mark.parametrize("kind", OURS)
async def test_an_alarm_at_any_step_takes_the_traffic_back(
    kind: str, percent: int, simulation: Simulation
) -> None:
    team = await _running(kind, simulation)
    _rings(team, lambda: _share(team) == percent)
    with pytest.raises(RolledBack, match="7 errors, 5 are allowed"):
        await team.deploy(TWO)
    assert await team.check() == ONE.image.digest
    steps = (await team.ledger.rollouts("production"))[0].steps
    assert max(s.data.get("percent", 0) for s in steps if s.name == "shift") == percent


@pytest.mark.parametrize(
    ("kind", "percent"),
    [("rolling", 100), ("blue-green", 100), ("linear", 50), ("canary", 10), ("canary", 100)],
)
async def test_an_alarm_while_ecs_moves_the_traffic(
    kind: str, percent: int, simulation: Simulation
) -> None:
    team = await _running(kind, simulation)
    _rings(team, lambda: _share(team) == percent)
    with pytest.raises(RolledBack, match="alarm"):
        await team.deploy(TWO)
    assert await team.check() == ONE.image.digest


async def test_an_alarm_after_all_was_proven_is_ecs_own_way_back(simulation: Simulation) -> None:
    team = await _running("canary", simulation)

    def retiring() -> bool:
        newest = team.world.place.ecs.services[NAME].deployments[-1]
        return _share(team) == 100 and newest.stage == "BAKE_TIME"

    _rings(team, retiring)
    with pytest.raises(NotFinished, match="buildonce resume") as error:
        await team.deploy(TWO)
    assert error.value.exit_code == ExitCode.ROLLED_BACK or error.value.exit_code
    team.world.place.alarms.set(ALARM, "OK")
    await team.resume()
    assert await team.check() == ONE.image.digest


@pytest.mark.parametrize("kind", KINDS)
async def test_an_image_that_cannot_be_pulled(kind: str, simulation: Simulation) -> None:
    team = await _running(kind, simulation)
    team.world.place.unpullable.add(TWO.image.digest)
    with pytest.raises(RolledBack, match="CannotPullContainer"):
        await team.deploy(TWO)
    assert await team.check() == ONE.image.digest


@pytest.mark.parametrize("kind", KINDS)
async def test_tasks_that_do_not_become_healthy(kind: str, simulation: Simulation) -> None:
    team = await _running(kind, simulation)
    team.world.place.ill.add(TWO.image.digest)
    with pytest.raises(RolledBack):
        await team.deploy(TWO)
    assert await team.check() == ONE.image.digest


@pytest.mark.parametrize("kind", KINDS)
async def test_a_failed_smoke_test(kind: str, simulation: Simulation) -> None:
    team = await _running(kind, simulation)
    with pytest.raises(RolledBack, match="the basket is empty"):
        await team.deploy(TWO, smoke=fails)
    assert await team.check() == ONE.image.digest


@pytest.mark.parametrize("kind", KINDS)
async def test_throttled_calls_are_survived(kind: str, simulation: Simulation) -> None:
    team = await _running(kind, simulation)
    simulation.throttle_every = 3
    await team.deploy(TWO)
    simulation.throttle_every = 0
    assert simulation.throttled > 10
    assert await team.check() == TWO.image.digest


async def test_an_alarm_without_data_holds_and_then_goes_back(simulation: Simulation) -> None:
    team = await _running("weighted", simulation)
    team.world.place.alarms.set(ALARM, "INSUFFICIENT_DATA")
    with pytest.raises(RolledBack, match="has no data") as error:
        await team.deploy(TWO)
    assert error.value.exit_code == ExitCode.INCONCLUSIVE
    assert await team.check() == ONE.image.digest


async def test_a_metric_with_too_few_samples_says_nothing(simulation: Simulation) -> None:
    metric = """
[[environments.production.metrics]]
namespace = "Shop"
name = "Errors"
statistic = "Average"
above = 0.05
samples = 20
"""
    world = World("weighted", metric, simulation).furnish()
    alarms = world.place.alarms
    target = await world.target()
    watch = next(w for w in target.watches(None) if w.name == "Shop Errors")
    for _ in range(3):
        alarms.measure("Shop", "Errors", 1.0)
    assert (await watch.look()).state == "inconclusive"
    for _ in range(30):
        alarms.measure("Shop", "Errors", 0.0)
    verdict = await watch.look()
    assert (verdict.state, verdict.samples) == ("breach", 33), verdict
    for _ in range(60):
        alarms.measure("Shop", "Errors", 0.0)
    assert (await watch.look()).state == "ok"


@pytest.mark.parametrize("kind", KINDS)
async def test_the_same_again_changes_nothing(kind: str, simulation: Simulation) -> None:
    team = await _running(kind, simulation)
    before = len(simulation.journal)
    again = await team.deploy(ONE)
    assert again.steps[-1].name == "unchanged"
    written = [
        call.name
        for call in simulation.journal[before:]
        if not call.operation.startswith(("Describe", "Get", "List", "Assume"))
    ]
    assert written == []


async def test_a_killed_process_is_gone_without_a_trace_of_its_end(simulation: Simulation) -> None:
    team = await _running("weighted", simulation)
    process = Process()
    process.dead = True
    with pytest.raises(BaseException):  # noqa: B017  (Killed, in a group or alone)
        await team.deploy(TWO, process)
    assert await team.check() == ONE.image.digest


async def test_nothing_is_deployed_without_a_stack(simulation: Simulation) -> None:
    team = Team(World("weighted", simulation=simulation))
    with pytest.raises(DeliveryError, match="there is no stack shop-production-service") as error:
        await team.deploy(ONE)
    assert "buildonce env apply production" in str(error.value.remedy)
