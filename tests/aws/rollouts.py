"""Whole rollouts on the simulation: the real `delivery.deploy`, ledger and locks in memory.

    team = Team(World("weighted", simulation=simulation).furnish())
    await team.deploy(release("1.0"))                       # hours of the test's clock, no time
    await team.deploy(release("2.0"), Process(Fault("kill after", at=17)))
    await team.resume()
    await team.check()                                      # one release, ledger agrees, no lock

Every deployment is a `Process`: it can be killed at each of its effects, be it a call of a service,
an entry of the ledger or a lock. What it did until then stays.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio

from buildonce.config import EnvironmentConfig
from buildonce.delivery import SmokeFailed, deploy, promote, rollback
from buildonce.delivery.errors import EnvironmentBusy
from buildonce.delivery.lease import Lease, LeaseLost
from buildonce.delivery.options import Options
from buildonce.delivery.resuming import Resumed, resume
from buildonce.ledger import Event, Ledger, LedgerError, Rollout, new_run_id
from buildonce.ledger.store import Query
from buildonce.release import Release
from tests.delivery.memory import MemoryStore

from .clock import SimulatedClock
from .faults import Killed, Process
from .world import World

TERM = timedelta(seconds=30)
Smoke = Callable[[str], Any]


class ProcessStore:
    """The team's ledger as one process writes it."""

    def __init__(self, store: MemoryStore, process: Process) -> None:
        self._store = store
        self._process = process

    def append(self, *, run: str, kind: str, data: dict[str, Any]) -> Event:
        name = f"ledger {kind} {data.get('step', '')} {data.get('data', {}).get('state', '')}"
        return self._process.does(
            " ".join(name.split()),
            lambda: self._store.append(run=run, kind=kind, data=data),
            error=LedgerError,
        )

    def select(self, query: Query) -> list[Event]:
        if self._process.dead:
            raise Killed
        return self._store.select(query)

    def close(self) -> None: ...


@dataclass
class Held:
    token: int
    run: str | None
    expires: float


@dataclass
class MemoryLeases:
    """`Leases` of a team in memory, by the simulation's clock; a killed holder's ends by itself."""

    clock: SimulatedClock
    held: dict[str, Held]
    process: Process

    @asynccontextmanager
    async def hold(
        self, environment: str, *, run: str, wait: bool = False, say: Any = None
    ) -> AsyncIterator[Lease]:
        while (other := await self.holder(environment)) is not None:
            if not wait:
                raise EnvironmentBusy(f"{environment} is being deployed to by run {other}")
            await self.clock.sleep(1)
        lease = self.process.does(
            f"lease {environment}", lambda: self._take(environment, run), error=EnvironmentBusy
        )
        try:
            async with anyio.create_task_group() as group:
                renewing = anyio.CancelScope(shield=True)
                group.start_soon(self._renew, lease, renewing)
                try:
                    yield lease
                finally:
                    renewing.cancel()
        finally:
            if not self.process.dead and lease.mine:
                self.held[environment].run = None

    async def holder(self, environment: str) -> str | None:
        found = self.held.get(environment)
        free = found is None or found.run is None or found.expires <= self.clock.monotonic()
        return None if free or found is None else found.run

    def _take(self, environment: str, run: str) -> MemoryLease:
        token = self.held[environment].token + 1 if environment in self.held else 1
        self.held[environment] = Held(token, run, self.clock.monotonic() + TERM.total_seconds())
        return MemoryLease(self, environment, token)

    async def _renew(self, lease: MemoryLease, scope: anyio.CancelScope) -> None:
        with scope:
            while not self.process.dead and lease.mine:
                await self.clock.sleep(TERM.total_seconds() / 3)
                if not self.process.dead and lease.mine:
                    await lease.check()


@dataclass
class MemoryLease:
    leases: MemoryLeases
    environment: str
    token: int

    @property
    def mine(self) -> bool:
        found = self.leases.held[self.environment]
        return found.token == self.token and found.run is not None

    async def check(self) -> None:
        if self.leases.process.dead:
            raise Killed
        if not self.mine:
            raise LeaseLost(f"the lease on {self.environment} is lost: somebody else has it")
        until = self.leases.clock.monotonic() + TERM.total_seconds()
        self.leases.held[self.environment].expires = until


async def passes(_: str) -> None:
    """A smoke test that finds nothing."""


async def fails(_: str) -> None:
    """A smoke test that finds something."""
    raise SmokeFailed("the basket is empty")


@dataclass
class Team:
    """Those who deploy to a world: what they share outlives each of their processes.

    Attributes:
        leases: makes the locks that a process sees; in memory when nothing else is given.
        told: what they were told.
    """

    world: World
    store: MemoryStore = field(default_factory=MemoryStore)
    leases: Callable[[Process], Any] | None = None
    told: list[str] = field(default_factory=list)
    held: dict[str, Held] = field(default_factory=dict)

    @property
    def clock(self) -> SimulatedClock:
        return self.world.simulation.clock

    @property
    def ledger(self) -> Ledger:
        """The ledger, for looking."""
        return Ledger(self.store)

    def options(self, process: Process) -> dict[str, Any]:
        """What every deployment of that process is given (see `delivery.options.Options`)."""

        async def target(place: EnvironmentConfig) -> Any:
            return await self.world.target(process=process, place=place)

        make = self.leases or (lambda one: MemoryLeases(self.clock, self.held, one))
        return {
            "project": "shop",
            "ledger": Ledger(ProcessStore(self.store, process)),
            "run": new_run_id(),
            "clock": self.clock,
            "leases": make(process),
            "progress": self.told.append,
            "home": Path("/nowhere"),
            "target": target,
        }

    async def deploy(
        self, what: Release, process: Process | None = None, *, smoke: Smoke = passes, **more: Any
    ) -> Rollout:
        """One process deploys to the world's environment; raises what it ended with."""
        options = self.options(process or Process())
        self._know(what)
        target = await options.pop("target")(self.world.environment)
        async with self.clock.running():
            return await deploy(
                what, self.world.environment, target=target, smoke=smoke, **{**options, **more}
            )

    async def promote(
        self,
        what: Release,
        waves: list[list[EnvironmentConfig]],
        process: Process | None = None,
        *,
        smoke: Smoke = passes,
        **more: Any,
    ) -> list[Rollout]:
        """One process promotes through waves."""
        options = self.options(process or Process())
        self._know(what)
        async with self.clock.running():
            return await promote(what, waves, smoke=smoke, **{**options, **more})

    async def rollback(self, process: Process | None = None, **more: Any) -> Rollout:
        """One process goes back to the release before."""
        options = self.options(process or Process())
        target = await options.pop("target")(self.world.environment)
        async with self.clock.running():
            return await rollback(
                self.world.environment, target=target, smoke=passes, **{**options, **more}
            )

    async def resume(self, process: Process | None = None, *, back: bool = False) -> list[Resumed]:
        """Another process resumes, once the lock of a killed one is over."""
        options = self.options(process or Process())
        places = {place.name: place for place in self.world.environment.places}
        async with self.clock.running():
            return await resume(places, Options(**options, wait=True), back=back)

    async def check(self) -> str | None:
        """One release serves and nothing is on trial; the ledger agrees; nobody holds the lock.

        Returns:
            Its digest; None when nothing runs.
        """
        name = self.world.environment.name
        target = await self.world.target()
        assert await target.pending() is None, "a candidate was left behind"
        current, serving = await target.current(), self.world.serving
        assert set(serving.values()) <= {100}, serving
        assert len(serving) <= 1, serving
        digest = next(iter(serving), None)
        assert (current.digest if current else None) == digest, (current, serving)
        assert current is None or current.healthy, current
        rollouts = await self.ledger.rollouts(name)
        assert all(rollout.result is not None for rollout in rollouts), rollouts
        recorded = await self.ledger.current(name)
        assert (recorded.digest if recorded else None) == digest, (recorded, serving)
        holder = await MemoryLeases(self.clock, self.held, Process()).holder(name)
        assert self.leases is not None or holder is None, holder
        return digest

    def _know(self, what: Release) -> None:
        data = {**what.to_json(), "committed_at": what.created.isoformat()}
        if all(event.data != data for event in self.store.kept):
            self.store.append(run=new_run_id(), kind="release.created", data=data)
