"""Whatever fails wherever: the environment ends on exactly one release, and the ledger agrees."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buildonce.config import EnvironmentConfig
from buildonce.delivery import RollbackFailed, RolledBack, Shift, SmokeFailed, deploy, recover
from buildonce.delivery.errors import TargetFailed
from buildonce.ledger import Ledger, LedgerError, new_run_id
from buildonce.release import Release
from tests.samples import release

from .memory import Killed, MemoryStore, MemoryTarget, Power

ENVIRONMENT = EnvironmentConfig(name="staging", port=1)
RELEASES = [release(version) for version in ("1", "2", "3")]
CANARY = [Shift(10), Shift(100)]


@dataclass
class World:
    """An environment that outlives the processes which deploy to it."""

    home: Path
    target: MemoryTarget = field(default_factory=MemoryTarget)
    store: MemoryStore = field(default_factory=MemoryStore)

    @property
    def version(self) -> str | None:
        active = self.target.active
        return self.target.containers[active[0]].version if active else None

    async def deploy(self, what: Release, power: Power, *, good: bool) -> BaseException | None:
        """One process that deploys; what it ended with."""
        self.target.power = self.store.power = power

        async def smoke(_: str) -> None:
            await power.tick("smoke")
            if not good:
                raise SmokeFailed("the basket is empty")

        try:
            with anyio.CancelScope() as power.scope:
                await deploy(
                    what,
                    ENVIRONMENT,
                    project="shop",
                    ledger=Ledger(self.store),
                    run=new_run_id(),
                    smoke=smoke,
                    target=self.target,
                    traffic=CANARY,
                    home=self.home,
                )
            return None
        except (Exception, Killed) as error:
            return error
        finally:
            self.target.power = self.store.power = Power()

    async def resume(self) -> None:
        await recover(self.target, ENVIRONMENT, ledger=Ledger(self.store))

    async def check(self) -> None:
        """One release serves, nothing else is there, and the ledger says the same."""
        target, ledger = self.target, Ledger(self.store)
        assert target.candidate is None
        assert target.serving == ({self.version: 100} if self.version else {})
        assert set(target.containers) == ({target.active[0]} if target.active else set())
        rollouts = await ledger.rollouts("staging")
        assert all(rollout.result is not None for rollout in rollouts)
        serving = target.containers[target.active[0]].image.digest if target.active else None
        recorded = await ledger.current("staging")
        assert (recorded.digest if recorded else None) == serving
        if rollouts:
            assert rollouts[0].running_digest == serving


def in_a_world(work: Callable[[World], object]) -> None:
    with tempfile.TemporaryDirectory() as home:
        anyio.run(work, World(Path(home)))  # type: ignore[arg-type]


SCENARIOS: dict[str, tuple[list[Release], Release, bool]] = {
    "first": ([], RELEASES[0], True),
    "replace": ([RELEASES[0]], RELEASES[1], True),
    "replace, smoke fails": ([RELEASES[0]], RELEASES[1], False),
    "unchanged": ([RELEASES[0]], RELEASES[0], True),
    "unchanged, smoke fails": ([RELEASES[0]], RELEASES[0], False),
}


@pytest.mark.parametrize("kind", ["fail", "cancel", "kill"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_single_fault_of_a_rollout(scenario: str, kind: str) -> None:
    before, new, good = SCENARIOS[scenario]
    places: list[str] = []

    async def one(world: World, at: int | None) -> Power:
        for earlier in before:
            assert await world.deploy(earlier, Power(), good=True) is None
        old = world.version
        recorded = len(world.store.kept)
        power = Power(at=at, kind=kind)
        error = await world.deploy(new, power, good=good)
        new_serves = world.target.serving == {new.version: 100}
        if not power.failed_at:  # the whole way without a fault
            assert (error is None) == good
            return power
        if isinstance(error, RolledBack):
            assert world.target.serving == ({old: 100} if old else {})
            if "rollout.finished" not in power.failed_at:  # that is for the next one to record
                await world.check()
        elif error is None and not power.scope.cancelled_caught:  # type: ignore[union-attr]
            assert new_serves
        elif isinstance(error, TargetFailed):  # before the rollout began
            assert len(world.store.kept) == recorded
        elif error is not None:
            assert isinstance(error, Killed | LedgerError | RollbackFailed), repr(error)
        elif kind == "cancel":
            assert sum(world.target.serving.values()) in (0, 100)
            await world.check()
        await world.resume()
        await world.check()
        assert world.version in ((old, new.version) if good else (old,))
        places.append(power.failed_at)
        # And the environment is not stuck: the next deployment gets through.
        assert await world.deploy(RELEASES[2], Power(), good=True) is None
        await world.check()
        assert world.version == "3"
        return power

    async def all_places(_: World) -> None:
        at = 0
        while True:
            with tempfile.TemporaryDirectory() as home:
                power = await one(World(Path(home)), at)
            if not power.failed_at:
                return
            at += 1

    in_a_world(all_places)
    assert len(places) > 10, "the rollout was hardly tried"


@settings(max_examples=int(os.environ.get("BUILDONCE_FAULTS", "60")), deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(RELEASES),
            st.booleans(),
            st.none() | st.integers(0, 70),
            st.sampled_from(["fail", "cancel", "kill"]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_any_history_of_deployments_and_faults(
    history: list[tuple[Release, bool, int | None, str]],
) -> None:
    """Faults also strike while a later deployment recovers from an earlier one."""

    async def work(world: World) -> None:
        for what, good, at, kind in history:
            possible = {world.version, what.version if good else world.version}
            candidate = world.target.candidate
            if candidate is not None:
                possible.add(candidate[2].version)  # proven before its process was killed
            await world.deploy(what, Power(at=at, kind=kind), good=good)
            if world.target.active is not None:
                assert sum(world.target.serving.values()) == 100
            assert world.version in possible
        await world.resume()
        await world.check()

    in_a_world(work)
