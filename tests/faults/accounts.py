"""The table's rows of accounts: ECS and Lambda on the simulation, by its clock.

A pair begins with a copy of an account that was prepared once (a fork of this process), and the
process that the fault strikes is one of the simulation's: killed, nothing that it does has any
effect. That a real SIGKILL leaves the same is shown for some pairs by `tests.faults.killing`.
Leases are in DynamoDB, as a team has them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from buildonce.config import EnvironmentConfig
from buildonce.delivery import RolledBack, SmokeFailed, deploy, rollback
from buildonce.delivery.aws.session import AwsSession
from buildonce.delivery.options import Options
from buildonce.delivery.resuming import resume
from buildonce.ledger import Ledger, new_run_id
from buildonce.release import Release
from tests.aws.faults import Fault, Killed, Process
from tests.aws.rollouts import ProcessStore, Team
from tests.aws.simulation import retries_wait_by
from tests.aws.world import NAME as STACK
from tests.aws.world import World, release
from tests.delivery.leases import Dynamo

from .forking import result_of
from .looking import NAME, disagreements
from .people import Approver
from .rows import Pair, Row, Step, pairs_of, steps_of

TARGETS = {"ecs weighted": "weighted", "ecs canary": "canary", "lambda": "lambda"}
FAULTS = (
    "throttle",
    "throttle for good",
    "timeout",
    "timeout for good",
    "access denied",
    "alarm breach",
    "unhealthy task",
    "smoke failure",
    "registry gone",
    "lock lost",
    "approval withdrawn",
)

_OURS = """
approval = true
[environments.production.rollout]
strategy = "canary"
steps = [20]
interval = "1m"
bake = "1m"
look_every = "30s"
"""
_THEIRS = """
approval = true
[environments.production.rollout]
bake = "1m"
look_every = "30s"
"""
_ALWAYS = 10**6
_CALLS: dict[str, tuple[Any, int]] = {
    "kill -9": ("", 0),
    "throttle": ("throttle", 2),
    "throttle for good": ("throttle", _ALWAYS),
    "timeout": ("timeout after", 2),
    "timeout for good": ("stall", _ALWAYS),
    "access denied": ("denied", _ALWAYS),
}


@dataclass
class StepFault(Fault):
    """A fault at a recorded step: at the record itself, or at the first call after it.

    Attributes:
        step: which.
    """

    step: Step = field(default=Step(""))
    at_record: bool = True
    _seen: int = field(default=0, init=False)
    _due: bool = field(default=False, init=False)

    def begins(self, number: int, name: str) -> bool:
        if self.hit:
            return False
        if name.startswith("ledger"):
            if name in _said(self.step.name):
                self._seen += 1
                self._due = self._due or self._seen == self.step.nth
            strikes = self._due and self.at_record
        else:
            strikes = self._due and not self.at_record
        if strikes:
            self.hit, self._left = name, self.times
        return strikes


def _said(step: str) -> tuple[str, str]:
    """What a process calls the record of a step."""
    return f"ledger {step}", f"ledger rollout.step {step}"


class Account:
    """An environment in an account, running the first release; or the second, to go back from.

    Args:
        target: its name in the table.
        scenario: what is to happen to it.
    """

    def __init__(self, target: str, scenario: str) -> None:
        self.target, self.scenario = target, scenario
        kind = TARGETS[target]
        self.table = Dynamo()
        simulation = self.table.simulation
        world = World(kind, _OURS if kind != "canary" else _THEIRS, simulation).furnish()
        self.team = Team(world)
        self.ann = Approver()
        self.sick: set[str] = set()
        self.bad: set[str] = set()
        self.old, self.new = release("1.0"), release("2.0")
        simulation.when(self._alarms_follow, lambda: None)
        self._prepared: dict[str, Any] = {}
        anyio.run(self._prepare)

    # What the table is made of.

    def pairs(self) -> list[Pair]:
        """All of them, by the steps of one that went well."""
        steps = result_of(self._clean_steps)
        return pairs_of(self.target, self.scenario, [Step(*one) for one in steps], FAULTS)

    def rows(self, pairs: Sequence[Pair]) -> Iterator[Row]:
        """Each in a copy of the account."""
        for pair in pairs:
            began = time.monotonic()
            found = result_of(lambda pair=pair: self._row(pair))
            yield Row(pair, **found, seconds=time.monotonic() - began)

    def close(self) -> None:
        """Remove what moto keeps for the whole process."""
        anyio.run(self.table.remove)

    # What happens.

    async def _prepare(self) -> None:
        with retries_wait_by(self.team.clock):
            await self.table.make()
            await self._deploy(self.old, Process())
            if self.scenario == "rollback":
                await self._deploy(self.new, Process())
                self.old, self.new = self.new, self.old

    async def _clean_steps(self) -> list[tuple[str, int]]:
        with retries_wait_by(self.team.clock):
            await self._go(Process())
        (newest,) = await self.team.ledger.rollouts(NAME, limit=1)
        steps = steps_of(e for e in self.team.store.kept if e.data.get("rollout") == newest.id)
        return [(step.name, step.nth) for step in steps]

    async def _row(self, pair: Pair) -> dict[str, Any]:
        place = self.team.world.place
        with retries_wait_by(self.team.clock):
            process = Process(await self._fault(pair))
            first = await _ended(lambda: self._go(process))
            words = [await _ended(lambda: self._resume(Process()))]
            if words[0] == "RolledBack":
                words.append(await _ended(lambda: self._resume(Process())))
            # What is proven stays, also when it falls ill after that.
            for trouble in (self.sick, self.bad, place.ill, place.unpullable):
                trouble.clear()
            wrong = await self._wrong()
        known = {self.old.image.digest: "old", self.new.image.digest: "new"}
        ends = [known.get(digest, digest) for digest in self.team.world.serving]
        if words[-1] not in ("nothing to do", "succeeded", "rolled-back"):
            wrong.insert(0, f"resume: {words[-1]}")
        if not process.fault.hit:  # type: ignore[union-attr]
            first = f"{first} (no call came after it)"
        return {
            "first": first.partition(":")[0],
            "resumed": ", then ".join(word.partition(":")[0] for word in words),
            "ends": " and ".join(ends) or "nothing",
            "problem": "; ".join(wrong) or None,
        }

    async def _fault(self, pair: Pair) -> Fault:
        if pair.fault == "kill -9":
            return StepFault(f"kill {pair.when}", -1, step=pair.step)  # type: ignore[arg-type]
        if pair.fault in _CALLS:
            kind, times = _CALLS[pair.fault]
            return StepFault(kind, -1, times, step=pair.step, at_record=False)
        digest, place = self.new.image.digest, self.team.world.place
        happens: dict[str, Callable[[], object]] = {
            "alarm breach": lambda: self.sick.add(digest),
            "unhealthy task": lambda: (place.ill.add(digest), self.sick.add(digest)),
            "smoke failure": lambda: self.bad.add(digest),
            "registry gone": lambda: place.unpullable.add(digest),
            "lock lost": await self._thief(),
            "approval withdrawn": lambda: self._say(given=False),
        }
        happening = happens[pair.fault]
        return StepFault("happening", -1, happening=happening, step=pair.step)

    async def _go(self, process: Process) -> None:
        if self.scenario == "rollout":
            await self._deploy(self.new, process)
        else:
            options = await self._options(process)
            async with self.team.clock.running():
                await rollback(self._place, smoke=self._smoke, **options)

    async def _deploy(self, what: Release, process: Process) -> None:
        self._record(what)
        options = await self._options(process)
        async with self.team.clock.running():
            await deploy(what, self._place, smoke=self._smoke, **options)

    async def _resume(self, process: Process) -> str:
        options = await self._options(process)
        target = options.pop("target")

        async def given(_: EnvironmentConfig) -> Any:
            return target

        async with self.team.clock.running():
            done = await resume(
                {NAME: self._place}, Options(target=given, wait=True, **options), smoke=self._smoke
            )
        return ", ".join(one.result for one in done) or "nothing to do"

    async def _options(self, process: Process) -> dict[str, Any]:
        return {
            "project": "shop",
            "ledger": Ledger(ProcessStore(self.team.store, process)),
            "run": new_run_id(),
            "clock": self.team.clock,
            "leases": self.table.process(self.team.clock, process),
            "approvers": self.ann.approvers,
            "home": Path("/nowhere"),
            "target": await self.team.world.target(process=process),
        }

    @property
    def _place(self) -> EnvironmentConfig:
        return self.team.world.environment

    async def _smoke(self, _: str) -> None:
        if self.bad & set(self.team.world.serving):
            raise SmokeFailed("the basket is empty")

    def _alarms_follow(self) -> bool:
        """The alarms ring while something sick has traffic, as they do once users see it."""
        alarms = self.team.world.place.alarms
        rings = bool(self.sick & set(self.team.world.serving))
        for name in alarms.states:
            alarms.set(name, "ALARM" if rings and name.endswith("-errors") else "OK")
        return False  # and so for ever

    def _record(self, what: Release) -> None:
        store = self.team.store
        data = {**what.to_json(), "committed_at": what.created.isoformat()}
        if all(event.data != data for event in store.kept):
            store.append(run=new_run_id(), kind="release.created", data=data)
            self._say(what, given=True)

    def _say(self, what: Release | None = None, *, given: bool) -> None:
        now = self.team.clock.now()
        kind, word = self.ann.word(what or self.new, NAME, given=given, now=now)
        self.team.store.append(run=new_run_id(), kind=kind, data=word)

    async def _thief(self) -> Callable[[], None]:
        """Somebody who takes the lease while this process stands still for longer than its term."""
        session: AwsSession = await self.table.session()
        clock = self.team.clock

        def steal() -> None:
            clock.advance(31)
            session._call(
                self.table.config.region,
                "dynamodb",
                "UpdateItem",
                {
                    "TableName": self.table.config.table,
                    "Key": {"environment": {"S": f"shop/{NAME}"}},
                    "UpdateExpression": "ADD #token :one SET #run = :run, beat = :run, "
                    "expires = :expires",
                    "ExpressionAttributeNames": {"#token": "token", "#run": "run"},
                    "ExpressionAttributeValues": {
                        ":one": {"N": "1"},
                        ":run": {"S": "thief"},
                        ":expires": {"N": str(clock.now().timestamp() + 30)},
                    },
                },
            )

        return steal

    async def _wrong(self) -> list[str]:
        """What is not as it must be, by the accounts' own word."""
        wrong: list[str] = []
        world = self.team.world
        serving = world.serving
        if list(serving.values()) != [100]:
            wrong.append(f"it serves {serving}")
        digest = next(iter(serving), None)
        running = {
            world.place.ecs.digest(revision.definition)
            for service in world.place.ecs.services.values()
            for revision in service.revisions.values()
            if revision.running
        }
        if world.kind != "lambda" and running != {digest}:
            wrong.append(f"tasks run of {running}")
        if world.kind == "lambda":
            alias = world.place.functions.functions[STACK].aliases["live"]
            if alias.weights:
                wrong.append(f"the alias has weights: {alias.weights}")
        return wrong + await disagreements(
            digest,
            target=await world.target(),
            ledger=self.team.ledger,
            leases=self.table.process(self.team.clock),
        )


async def _ended(work: Callable[[], Any]) -> str:
    """What it gave, or the error that it ended with."""
    try:
        return await work() or "done"
    except Killed:
        return "killed"
    except RolledBack as error:
        return f"RolledBack: {error.cause}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
