"""The table's rows of the local target: a real HAProxy, real services, real SIGKILL and SIGSTOP.

Only containers are processes (see `containers`). One environment goes through all pairs, one after
another: what a pair leaves behind is what the next one begins with.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from buildonce.config import EnvironmentConfig
from buildonce.config.rollout import RolloutConfig
from buildonce.delivery import deploy, rollback
from buildonce.delivery.lease_sqlite import SqliteLeases
from buildonce.delivery.local import LocalTarget
from buildonce.delivery.options import Options
from buildonce.delivery.resuming import resume
from buildonce.ledger import Event, Ledger, new_run_id
from buildonce.ledger.sqlite import SqliteStore
from buildonce.release import Release
from tests.samples import release

from .containers import LastingContainers
from .forking import Child, Ended, done, result_of
from .looking import NAME, disagreements
from .people import Approver
from .rows import Pair, Row, Step, label_of, pairs_of, steps_of

FAULTS = (
    "access denied",
    "timeout",
    "alarm breach",
    "unhealthy task",
    "smoke failure",
    "registry gone",
    "lock lost",
    "approval withdrawn",
    "proxy killed",
)

_TROUBLES = {"access denied": "refuses", "timeout": "hangs", "registry gone": "registry"}
_ILLNESSES = {"alarm breach": "errors", "unhealthy task": "unhealthy", "smoke failure": "smoke"}
_SHORT = timedelta(seconds=0.4)
_ASKED = 10

_ROLLOUT = {
    "strategy": "canary",
    "steps": [20],
    "interval": timedelta(seconds=0.3),
    "bake": timedelta(seconds=0.3),
    "look_every": timedelta(seconds=0.1),
    "hold": timedelta(seconds=0.2),
    "drain": timedelta(seconds=1),
    "inconclusive": "proceed",
    "synthetic": {"path": "/basket", "rate": 60},
    "metrics": [
        {"metric": "error-rate", "above": 1, "window": timedelta(seconds=1), "minimum_sample": 1}
    ],
}

Act = Callable[[SqliteStore], object]


class StruckStore(SqliteStore):
    """The ledger of a process that something happens to before or after one of its records."""

    def __init__(self, path: Path, step: Step, when: str, act: Act) -> None:
        super().__init__(path)
        self._step, self._when, self._act = step, when, act
        self._seen = 0

    def append(self, *, run: str, kind: str, data: dict[str, Any]) -> Event:
        due = label_of(kind, data) == self._step.name
        self._seen += due
        due = due and self._seen == self._step.nth
        if due and self._when == "before":
            self._act(self)
        event = super().append(run=run, kind=kind, data=data)
        if due and self._when == "after":
            self._act(self)
        return event


class LocalEnvironment:
    """One environment on this machine, and those who deploy to it.

    Args:
        folder: where all of it is.
        port: where it answers.
        scenario: what is to happen to it.
    """

    def __init__(self, folder: Path, port: int, scenario: str) -> None:
        self.folder, self.scenario = folder, scenario
        self.troubles, self.ill = folder / "troubles", folder / "ill"
        for one in (self.troubles, self.ill):
            one.mkdir(parents=True)
        self.place = EnvironmentConfig.model_validate(
            {
                "name": NAME,
                "port": port,
                "smoke_path": "/smoke",
                "approval": True,
                "health_timeout": timedelta(seconds=3),
                "rollout": RolloutConfig.model_validate(_ROLLOUT),
            }
        )
        self.containers = LastingContainers(
            folder / "containers", troubles=self.troubles, ill=self.ill
        )
        self.ann = Approver()
        self.path = folder / "ledger.sqlite"
        self._made = 0

    # What the table is made of.

    def pairs(self) -> list[Pair]:
        """All of them, by the steps of one that went well."""
        self.deployed()
        self.deployed()
        if self.scenario == "rollback":
            result_of(lambda: self._rollback(SqliteStore(self.path)))
        steps = result_of(self._last_steps)
        return pairs_of("local", self.scenario, [Step(*one) for one in steps], FAULTS)

    def rows(self, pairs: Sequence[Pair]) -> Iterator[Row]:
        """One after another."""
        for pair in pairs:
            yield self.row(pair)

    def row(self, pair: Pair) -> Row:
        """Let it happen, resume, and look."""
        began = time.monotonic()
        if pair.scenario == "rollback":
            self.deployed()  # something to go back from
        (old,) = set(self.containers.running().values())
        new = self._next() if pair.scenario == "rollout" else result_of(self._good)
        if isinstance(new, dict):
            new = Release.from_json(new)
        first = Child(lambda: self._struck(pair, new))
        ended = first.wait()
        words = []
        if ended.how == "stopped":
            time.sleep(1.5 * _SHORT.total_seconds())
            words.append(done(self._resume).word)
            first.go_on()
            ended = first.wait()
        for trouble in ("refuses", "hangs"):  # of that process only
            (self.troubles / trouble).unlink(missing_ok=True)
        # What ended with the old release running (RolledBack) is resumed all the same.
        resumed = done(self._resume)
        if resumed.word == "RolledBack":
            words.append(resumed.word)
            resumed = done(self._resume)
        words.append(_resumed(resumed))
        self.cured()  # what is proven stays, also when it falls ill after that
        found = done(lambda: self._look(old, new.image.digest))
        ends, problem = found.result if found.how == "done" else ("?", str(found.result))
        if resumed.how != "done":
            problem = f"resume: {resumed.result}; {problem or ''}"
        if problem is not None:
            self.cleared()
        return Row(pair, ended.word, ", then ".join(words), ends, problem, time.monotonic() - began)

    # What people do.

    def deployed(self) -> Release:
        """A new release, without a fault."""
        new = self._next()
        result_of(lambda: self._deploy(new, SqliteStore(self.path)))
        return new

    def cured(self) -> None:
        """Nothing is wrong any more."""
        for folder in (self.troubles, self.ill):
            for file in folder.iterdir():
                file.unlink()

    def cleared(self) -> None:
        """Begin anew after something was not as it must be."""
        self.close()
        failed = len(list(self.folder.parent.glob(f"{self.folder.name}-failed-*")))
        self.folder.rename(self.folder.with_name(f"{self.folder.name}-failed-{failed + 1}"))
        self.__init__(self.folder, self.place.local_port, self.scenario)  # type: ignore[misc]
        self.deployed()

    def close(self) -> None:
        """Nothing of it runs any more."""
        self.cured()
        done(self._down)
        self.containers.kill_all()

    def _next(self) -> Release:
        self._made += 1
        return release(f"{self._made}")

    # What runs in processes of their own.

    def _options(self, store: SqliteStore, *, term: timedelta | None = None) -> dict[str, Any]:
        terms = {} if term is None else {"term": term}
        return {
            "project": "shop",
            "ledger": Ledger(store),
            "run": new_run_id(),
            "leases": SqliteLeases(self.folder, **terms),
            "approvers": self.ann.approvers,
            "home": self.folder,
        }

    def _target(self) -> LocalTarget:
        return LocalTarget(self.place, project="shop", containers=self.containers, home=self.folder)

    async def _deploy(self, what: Release, store: SqliteStore, **more: Any) -> None:
        data = {**what.to_json(), "committed_at": what.created.isoformat()}
        store.append(run=new_run_id(), kind="release.created", data=data)
        kind, word = self.ann.word(what, NAME, given=True, now=datetime.now(UTC))
        store.append(run=new_run_id(), kind=kind, data=word)
        options = self._options(store, **more)
        await deploy(what, self.place, target=self._target(), **options)

    async def _rollback(self, store: SqliteStore, **more: Any) -> None:
        await rollback(self.place, target=self._target(), **self._options(store, **more))

    async def _struck(self, pair: Pair, what: Release) -> None:
        stops = pair.fault == "lock lost"
        store = StruckStore(self.path, pair.step, pair.when, self._act(pair.fault, what))
        more = {"term": _SHORT} if stops else {}
        if pair.scenario == "rollout":
            await self._deploy(what, store, **more)
        else:
            await self._rollback(store, **more)

    def _act(self, fault: str, what: Release) -> Act:
        if fault in _TROUBLES:
            return lambda _: (self.troubles / _TROUBLES[fault]).touch()
        if fault in _ILLNESSES:
            digest = what.image.digest.removeprefix("sha256:")
            return lambda _: (self.ill / f"{_ILLNESSES[fault]}.{digest}").touch()
        if fault == "approval withdrawn":
            kind, word = self.ann.word(what, NAME, given=False, now=datetime.now(UTC))
            return lambda store: SqliteStore.append(store, run=new_run_id(), kind=kind, data=word)
        if fault == "proxy killed":
            return lambda _: self._kill_proxy()
        number = {"kill -9": signal.SIGKILL, "lock lost": signal.SIGSTOP}[fault]
        return lambda _: os.kill(os.getpid(), number)

    def _kill_proxy(self) -> None:
        configuration = str(self._target().folder / "haproxy.cfg").encode()
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if configuration in (process / "cmdline").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)

    async def _resume(self) -> list[str]:
        async def target(_: EnvironmentConfig) -> LocalTarget:
            return self._target()

        with_store = self._options(SqliteStore(self.path))
        options = Options(target=target, wait=True, **with_store)
        return [one.result for one in await resume({NAME: self.place}, options)]

    async def _good(self) -> dict[str, Any]:
        """The release that a rollback is to bring back."""
        from buildonce.delivery.rollback import previous_good

        ledger = Ledger(SqliteStore(self.path))
        return (await previous_good(NAME, ledger=ledger)).release.to_json()

    async def _last_steps(self) -> list[tuple[str, int]]:
        store = SqliteStore(self.path)
        (newest,) = await Ledger(store).rollouts(NAME, limit=1)
        events = await Ledger(store).events()
        steps = steps_of(e for e in events if e.data.get("rollout") == newest.id)
        return [(step.name, step.nth) for step in steps]

    async def _down(self) -> None:
        await self._target().down()

    async def _look(self, old: str, new: str) -> tuple[str, str | None]:
        """Which release serves, and what is not as it must be."""
        wrong: list[str] = []
        answers = Counter[str]()
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            for _ in range(_ASKED):
                try:
                    answer = (await client.get(f"{self.place.url}/healthz")).json()
                    answers[answer["digest"]] += 1
                except Exception as error:
                    answers[f"{type(error).__name__}: {error}"] += 1
        if len(answers) != 1 or not set(answers) <= {old, new}:
            wrong.append(f"it answers {dict(answers)}")
        serving = next(iter(answers))
        target = self._target()
        running = self.containers.running()
        if list(running.values()) != [serving]:
            wrong.append(f"containers: {running}")
        left = len(list(self.containers.folder.glob("*.json"))) - len(running)
        if left:
            wrong.append(f"{left} dead containers are left")
        slots = (await target.proxy.states()).values()
        weights = sorted(slot.weight for slot in slots if slot.status != "MAINT")
        if weights != [1]:  # in lowest terms
            wrong.append(f"weights of the proxy: {weights}")
        wrong += await disagreements(
            serving,
            target=target,
            ledger=Ledger(SqliteStore(self.path)),
            leases=SqliteLeases(self.folder),
        )
        ends = {old: "old", new: "new"}.get(serving, "?")
        return ends, "; ".join(wrong) or None


def _resumed(ended: Ended) -> str:
    if ended.how != "done":
        return ended.word
    return ", ".join(ended.result) or "nothing to do"
