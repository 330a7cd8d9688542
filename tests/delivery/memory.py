"""A target and a ledger's store in memory, on a power supply that can fail at any tick."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import anyio
import anyio.lowlevel

from buildonce.delivery.errors import TargetFailed
from buildonce.delivery.target import Candidate, Counts, Deployed, Manifest, Step
from buildonce.delivery.watch import Watch
from buildonce.ledger import Event, LedgerError
from buildonce.release import Release
from tests.ledger.memory import MemoryStore as PlainStore


class Killed(BaseException):
    """kill -9: from this tick on nothing this process does has any effect."""


@dataclass
class Power:
    """Fails once, at tick number `at`; kinds: "fail", "cancel", "kill"."""

    at: int | None = None
    kind: str = "fail"
    scope: anyio.CancelScope | None = None
    ticks: int = 0
    dead: bool = False
    failed_at: str = ""

    def due(self, name: str) -> bool:
        if self.dead:
            raise Killed
        self.ticks += 1
        if self.ticks - 1 != self.at:
            return False
        self.failed_at = name
        if self.kind == "kill":
            self.dead = True
            raise Killed
        return True

    async def tick(self, name: str) -> None:
        due = self.due(name)
        if due and self.kind == "cancel" and self.scope is not None:
            self.scope.cancel()
        elif due:
            raise TargetFailed(f"{name} failed")
        await anyio.lowlevel.checkpoint()


@dataclass
class MemoryTarget:
    """A `Target` whose every effect has a tick before and after it."""

    power: Power = field(default_factory=Power)
    containers: dict[str, Release] = field(default_factory=dict)
    active: tuple[str, str] | None = None  # container, rollout
    candidate: tuple[str, str, Release] | None = None  # container, rollout, release
    percent: int = 0
    fetched: set[str] = field(default_factory=set)

    fence: int = 0
    native: bool = False
    back_within: float = 120.0

    async def url(self) -> str:
        return "memory:"

    def watches(self, candidate: Candidate) -> Sequence[Watch]:
        return ()

    def fingerprint(self, release: Release, manifest: Manifest | None = None) -> str:
        return f"fingerprint of {release.version}"

    @property
    def serving(self) -> dict[str, int]:
        """Share of the traffic by version."""
        shares: Counter[str] = Counter()
        if self.active is not None:
            share = 100 - (self.percent if self.candidate else 0)
            shares[self.containers[self.active[0]].version] += share
        if self.candidate is not None:
            shares[self.candidate[2].version] += self.percent
        return {version: share for version, share in shares.items() if share}

    async def current(self) -> Deployed | None:
        await self.power.tick("current")
        if self.active is None:
            return None
        release = self.containers[self.active[0]]
        return Deployed(
            version=release.version,
            revision=release.revision,
            digest=release.image.digest,
            started=datetime.now(UTC),
            url="memory:",
            fingerprint=self.fingerprint(release),
            rollout=self.active[1],
            healthy=True,
        )

    async def pending(self) -> Candidate | None:
        await self.power.tick("pending")
        if self.candidate is None:
            return None
        container, rollout, release = self.candidate
        return Candidate(container, rollout, release, self.percent)

    async def repair(self, say: Callable[[str], None]) -> None:
        await self.power.tick("repair")
        known = {one[0] for one in (self.active, self.candidate) if one is not None}
        strays = set(self.containers) - known
        if strays:
            await self._effect("sweep", lambda: [self.containers.pop(one) for one in strays])

    async def prepare(
        self, release: Release, *, rollout: str, step: Step, manifest: Manifest | None = None
    ) -> Candidate:
        async with step("pull", reference=release.image.reference):
            await self._effect("pull", lambda: self.fetched.add(release.image.digest))
        name = f"container of {rollout}"

        def reserve() -> None:
            self.candidate, self.percent = (name, rollout, release), 0

        await self._effect("reserve", reserve)
        async with step("start", container=name):
            await self._effect("start", lambda: self.containers.update({name: release}))
        async with step("healthy", path="/healthz"):
            await self.power.tick("healthy")
        return Candidate(name, rollout, release)

    async def counts(self, candidate: Candidate) -> Counts | None:
        return None

    async def shift(self, candidate: Candidate, percent: int) -> None:
        await self._effect("shift", lambda: setattr(self, "percent", percent))

    async def finish(self, candidate: Candidate) -> None:
        previous = self.active
        if self.candidate is not None:

            def commit() -> None:
                self.active, self.candidate = (candidate.id, candidate.rollout), None

            await self._effect("commit", commit)
            if previous is not None:
                await self._effect("retire", lambda: self.containers.pop(previous[0], None))

    async def restore(self, candidate: Candidate, why: str) -> None:
        if self.candidate is None:
            return
        await self._effect("unshift", lambda: setattr(self, "percent", 0))
        await self._effect("discard", lambda: self.containers.pop(candidate.id, None))
        await self._effect("forget", lambda: setattr(self, "candidate", None))

    async def down(self) -> None:
        raise NotImplementedError

    async def _effect(self, name: str, effect: Callable[[], object]) -> None:
        await self.power.tick(f"before {name}")
        effect()
        await self.power.tick(f"after {name}")


class MemoryStore(PlainStore):
    """A ledger's `Store`; `power` may fail before or after an event is kept."""

    def __init__(self, time: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        super().__init__()
        self.power = Power()
        self._time = time

    def time(self) -> datetime:
        return self._time()

    def append(self, *, run: str, kind: str, data: dict[str, Any]) -> Event:
        self._tick(f"before {kind} {data.get('step', '')}")
        event = super().append(run=run, kind=kind, data=data)
        self._tick(f"after {kind} {data.get('step', '')}")
        return event

    def _tick(self, name: str) -> None:
        # In a worker thread: a cancellation cannot begin here, the next tick of the target has it.
        if self.power.due(name):
            if self.power.kind == "cancel":
                self.power.at = self.power.ticks
            else:
                raise LedgerError(f"{name} failed")
