"""The targets of accounts, through their whole protocol, on the simulation."""

from __future__ import annotations

import pytest

from buildonce.delivery.aws.errors import AwsRefused
from buildonce.delivery.errors import WrongDigest
from buildonce.delivery.target import unrecorded

from .simulation import Simulation
from .world import KINDS, World, release

pytestmark = pytest.mark.anyio

ONE, TWO = release("1.0"), release("2.0")


async def _deploy(world: World, what, rollout: str, *, finish: bool = True):  # type: ignore[no-untyped-def]
    target = await world.target()
    candidate = await target.prepare(what, rollout=rollout, step=unrecorded)
    await target.shift(candidate, 100)
    if finish:
        await target.finish(candidate)
    return target, candidate


@pytest.mark.parametrize("kind", KINDS)
async def test_a_release_takes_over_from_another(kind: str, simulation: Simulation) -> None:
    world = World(kind, simulation=simulation).furnish()
    target, _ = await _deploy(world, ONE, "r1")
    assert await target.pending() is None
    assert world.serving == {ONE.image.digest: 100}
    target, _ = await _deploy(world, TWO, "r2")
    assert await target.pending() is None
    assert world.serving == {TWO.image.digest: 100}
    current = await target.current()
    assert (current.version, current.digest, current.rollout) == ("2.0", TWO.image.digest, "r2")
    assert current.healthy, current.detail
    assert current.fingerprint == target.fingerprint(TWO)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_candidate_gives_way_again(kind: str, simulation: Simulation) -> None:
    world = World(kind, simulation=simulation).furnish()
    await _deploy(world, ONE, "r1")
    await _deploy(world, TWO, "r2", finish=False)
    target = await world.target()  # another process
    pending = await target.pending()
    assert (pending.release, pending.rollout, pending.percent) == (TWO, "r2", 100)
    await target.restore(pending, "smoke test")
    assert world.serving == {ONE.image.digest: 100}
    assert await target.pending() is None
    current = await target.current()
    assert current.digest == ONE.image.digest and current.healthy, current


@pytest.mark.parametrize("kind", KINDS)
async def test_the_first_release_leaves_nothing_when_it_fails(
    kind: str, simulation: Simulation
) -> None:
    world = World(kind, simulation=simulation).furnish()
    target, candidate = await _deploy(world, ONE, "r1", finish=False)
    await target.restore(candidate, "smoke test")
    assert world.serving == {}
    assert await target.pending() is None
    assert await target.current() is None


@pytest.mark.parametrize("kind", ["weighted", "lambda"])
async def test_traffic_moves_by_weights(kind: str, simulation: Simulation) -> None:
    world = World(kind, simulation=simulation).furnish()
    await _deploy(world, ONE, "r1")
    target = await world.target()
    candidate = await target.prepare(TWO, rollout="r2", step=unrecorded)
    assert world.serving == {ONE.image.digest: 100}
    await target.shift(candidate, 10)
    assert world.serving == {ONE.image.digest: 90, TWO.image.digest: 10}
    assert (await target.pending()).percent == 10


@pytest.mark.parametrize("kind", ["weighted", "blue-green", "lambda"])
async def test_what_runs_is_compared_with_what_was_asked_for(
    kind: str, simulation: Simulation
) -> None:
    world = World(kind, simulation=simulation).furnish()
    world.place.lies_about_digest = f"sha256:{'0' * 64}"
    target = await world.target()
    with pytest.raises((WrongDigest, AwsRefused)):
        await target.prepare(ONE, rollout="r1", step=unrecorded)


async def test_rollback_is_of_the_configuration_too(simulation: Simulation) -> None:
    world = World("weighted", simulation=simulation).furnish()
    await _deploy(world, ONE, "r1")
    manifest = (await (await world.target()).current()).manifest
    await _deploy(world, TWO, "r2")
    world.environment = world.environment.model_copy(update={"configuration": {"GREETING": "bye"}})
    target = await world.target()
    await target.prepare(ONE, rollout="r3", step=unrecorded, manifest=manifest)
    assert (await target.pending()).manifest == manifest
    assert target.fingerprint(ONE, manifest) != target.fingerprint(ONE)
