"""Environments in memory with one ledger, on a clock that the test holds: hours in milliseconds.

async with company.at_work():
    await company.promote(release("2"), [["pilot"], ["production"]], bake=minutes(1))
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from buildonce.config import EnvironmentConfig
from buildonce.config.rollout import RolloutConfig
from buildonce.delivery import Verdict, Watch, deliver
from buildonce.delivery.approval import decide
from buildonce.delivery.lease_sqlite import SqliteLeases
from buildonce.delivery.options import Options
from buildonce.delivery.statements import Signer
from buildonce.delivery.target import Candidate
from buildonce.ledger import Ledger, Rollout, new_run_id
from buildonce.release import Release
from tests.aws.clock import SimulatedClock

from .memory import MemoryStore, MemoryTarget, Power

CANARY = {"strategy": "canary", "steps": [10, 50], "interval": "60s", "bake": "120s"}
"""Four minutes: 10 % until 60 s, 50 % until 120 s, 100 % until 240 s."""


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


@dataclass
class Scripted:
    """A watch that says what the time wants it to: "ok", "breach", "inconclusive", "missing"."""

    clock: SimulatedClock
    script: dict[float, str]
    name: str = "errors"
    since: float = 0.0

    async def look(self) -> Verdict:
        now = self.clock.monotonic() - self.since
        state = [said for at, said in sorted(self.script.items()) if at <= now][-1]
        if state == "missing":
            raise OSError("no such metric")
        return Verdict(state, f"{state} at {now:.0f} s", 100)  # type: ignore[arg-type]


@dataclass
class WatchedTarget(MemoryTarget):
    """Remembers which shares of the traffic it was told to give, and when."""

    script: Sequence[Watch] = ()
    clock: SimulatedClock = field(default_factory=SimulatedClock)
    shifts: list[tuple[float, int]] = field(default_factory=list)

    def watches(self, candidate: Candidate) -> Sequence[Watch]:
        return self.script

    async def shift(self, candidate: Candidate, percent: int) -> None:
        await super().shift(candidate, percent)
        self.shifts.append((self.clock.monotonic(), percent))


async def no_smoke(_: str) -> None: ...


class Company:
    """Several environments, and the people who may approve."""

    def __init__(self, folder: Path, places: Sequence[EnvironmentConfig]) -> None:
        self.clock = SimulatedClock()
        self.store = MemoryStore(self.clock.now)
        self.ledger = Ledger(self.store)
        self.places = {place.name: place for place in places}
        self.targets = {name: WatchedTarget(clock=self.clock) for name in self.places}
        self.leases = SqliteLeases(folder, clock=self.clock)
        self.said: list[str] = []
        self.people: dict[str, Signer] = {}
        self.approvers: dict[str, str] = {}

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        async with self.clock.running():
            yield

    @property
    def power(self) -> Power:
        return self.store.power

    @power.setter
    def power(self, power: Power) -> None:
        self.store.power = power
        for target in self.targets.values():
            target.power = power

    @property
    def serving(self) -> dict[str, dict[str, int]]:
        """Shares of the traffic by version, by environment."""
        return {name: target.serving for name, target in self.targets.items()}

    def everywhere(self, version: str) -> dict[str, dict[str, int]]:
        return {name: {version: 100} for name in self.places}

    def hire(self, *names: str) -> None:
        """People with keys of their own."""
        for name in names:
            key = Ed25519PrivateKey.generate()
            ssh = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
            self.approvers[name] = key.public_key().public_bytes(*ssh).decode()
            self.people[name] = Signer(name, key)

    async def word(
        self, who: str, what: Release, where: str, *, given: bool = True, **more: Any
    ) -> None:
        """Somebody's yes or no."""
        place, signer = self.places[where], self.people[who]
        await decide(what, place, given=given, signer=signer, options=self.options(), **more)

    def script(self, where: str, script: dict[float, str]) -> None:
        """What the watch of an environment says from now on."""
        now = self.clock.monotonic()
        self.targets[where].script = [Scripted(self.clock, script, since=now)]

    async def target(self, place: EnvironmentConfig) -> WatchedTarget:
        return self.targets[place.name]

    def options(self, **more: Any) -> Options:
        usual: dict[str, Any] = {
            "project": "shop",
            "ledger": self.ledger,
            "run": new_run_id(),
            "progress": self.said.append,
            "clock": self.clock,
            "approvers": self.approvers,
            "target": self.target,
            "leases": self.leases,
        }
        return Options(**(usual | more))

    async def promote(
        self,
        what: Release,
        waves: Sequence[Sequence[str]],
        *,
        bake: float = 0,
        smoke: Callable[[str], Any] = no_smoke,
        after_wave: Any = None,
        **more: Any,
    ) -> list[Rollout]:
        return await deliver(
            what,
            [[self.places[name] for name in wave] for wave in waves],
            self.options(**more),
            bake=seconds(bake),
            smoke=smoke,
            after_wave=after_wave,
        )


def place(name: str, *, approval: Any = None, **rollout: Any) -> EnvironmentConfig:
    """An environment with canary steps, unless `rollout` says otherwise."""
    wanted = {**CANARY, **rollout} if rollout.get("strategy", "canary") == "canary" else rollout
    config = RolloutConfig.model_validate(wanted)
    return EnvironmentConfig(name=name, port=1, rollout=config, approval=approval)
