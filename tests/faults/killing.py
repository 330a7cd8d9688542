"""Rows of an account whose pipeline is killed by a real SIGKILL; the simulation is another process.

For some pairs only, since time is real here (the simulation's goes 60 times as fast): they must end
as the same pairs do in `accounts`, where a process that is killed merely has no effect any more.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import httpx

from buildonce.config import Config, EnvironmentConfig
from buildonce.delivery import deploy
from buildonce.delivery.lease_sqlite import SqliteLeases
from buildonce.delivery.options import Options
from buildonce.delivery.resuming import resume
from buildonce.delivery.targets import open_target
from buildonce.ledger import Ledger, new_run_id
from buildonce.ledger.sqlite import SqliteStore
from buildonce.release import Release
from tests.aws.server import serving
from tests.aws.simulation import Simulation
from tests.aws.world import release
from tests.loopback import free_port

from .accounts import Account
from .forking import Child, done, result_of
from .local import StruckStore
from .looking import NAME, disagreements
from .rows import Pair, Row, Step

TARGET = "ecs weighted, killed for real"
POINTS = (
    (Step("start started"), "after"),
    (Step("healthy done"), "before"),
    (Step("shift started"), "after"),
    (Step("shift done", 2), "before"),
    (Step("proven done"), "after"),
    (Step("finish done"), "before"),
)

_CONFIG = """
[project]
name = "shop"
repository = "127.0.0.1:5080/shop"
[accounts.production]
id = "222222222222"
endpoint = "http://127.0.0.1:{api}"
[environments.production]
target = "ecs"
account = "production"
region = "eu-west-1"
role = "shop-deploy"
address = "http://127.0.0.1:{door}"
[environments.production.rollout]
strategy = "canary"
steps = [20]
interval = "1s"
bake = "1s"
look_every = "1s"
"""


class KilledAccount:
    """An environment in an account that is served by another process.

    Args:
        folder: for the ledger, leases and the simulation's data.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.path = folder / "ledger.sqlite"
        text = _CONFIG.format(api=free_port(), door=free_port())
        self.config = Config.parse(text, path=folder / "pipeline.toml")
        self.place = self.config.environments[NAME]
        os.environ["AWS_ACCESS_KEY_ID"] = Simulation().caller_key
        os.environ["AWS_SECRET_ACCESS_KEY"] = os.environ["AWS_SESSION_TOKEN"] = "simulated"
        self.server = Child(self._serve)
        self._made = 0
        result_of(self._wait)
        self._deployed()

    def pairs(self) -> list[Pair]:
        return [Pair(TARGET, "rollout", step, when, "kill -9") for step, when in POINTS]

    def rows(self, pairs: Sequence[Pair]) -> Iterator[Row]:
        """One after another, each compared with its like of the simulation's own processes."""
        account = Account("ecs weighted", "rollout")
        try:
            for pair in pairs:
                (like,) = account.rows([pair])
                yield self._row(pair, like)
        finally:
            account.close()

    def close(self) -> None:
        """The simulation ends."""
        os.kill(self.server.pid, signal.SIGKILL)
        self.server.wait()

    def _row(self, pair: Pair, like: Row) -> Row:
        began = time.monotonic()
        old, new = self._now(), self._next()
        ended = Child(
            lambda: self._deploy(new, StruckStore(self.path, pair.step, pair.when, _kill))
        ).wait()
        resumed = done(self._resume)
        said = ", ".join(resumed.result) or "nothing to do" if resumed.how == "done" else "?"
        wrong = [] if resumed.how == "done" else [f"resume: {resumed.result}"]
        ends, more = result_of(lambda: self._look(old, new.image.digest))
        wrong += more
        if (ended.word, said, ends) != (like.first, like.resumed, like.ends):
            wrong.append(f"on the simulation alone: {like.first}, {like.resumed}, {like.ends}")
        problem = "; ".join(wrong) or None
        return Row(pair, ended.word, said, ends, problem, time.monotonic() - began)

    def _deployed(self) -> None:
        new = self._next()
        result_of(lambda: self._deploy(new, SqliteStore(self.path)))

    def _next(self) -> Release:
        self._made += 1
        return release(f"{self._made}.0")

    def _now(self) -> str:
        return str(result_of(self._answer))

    # What runs in processes of their own.

    async def _serve(self) -> None:
        async with serving(self.config, self.folder, furnished=True):
            await anyio.sleep_forever()

    async def _wait(self) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            with anyio.fail_after(60):
                while True:
                    with suppress(httpx.TransportError):
                        await client.get(self.place.url)
                        return
                    await anyio.sleep(0.1)

    async def _answer(self) -> str:
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            return str((await client.get(f"{self.place.url}/healthz")).json()["digest"])

    def _options(self, store: SqliteStore) -> dict[str, Any]:
        return {
            "project": "shop",
            "ledger": Ledger(store),
            "run": new_run_id(),
            "leases": SqliteLeases(self.folder),
            "home": self.folder,
        }

    async def _deploy(self, what: Release, store: SqliteStore) -> None:
        data = {**what.to_json(), "committed_at": what.created.isoformat()}
        store.append(run=new_run_id(), kind="release.created", data=data)
        target = await open_target(self.place, project="shop", run="killed")
        await deploy(what, self.place, target=target, **self._options(store))

    async def _resume(self) -> list[str]:
        async def target(place: EnvironmentConfig) -> Any:
            return await open_target(place, project="shop", run="resumes")

        options = Options(target=target, wait=True, **self._options(SqliteStore(self.path)))
        return [one.result for one in await resume({NAME: self.place}, options)]

    async def _look(self, old: str, new: str) -> tuple[str, list[str]]:
        wrong = []
        answers = {await self._answer() for _ in range(20)}
        if len(answers) != 1:
            wrong.append(f"it answers {answers}")
        serving = next(iter(answers))
        wrong += await disagreements(
            serving,
            target=await open_target(self.place, project="shop", run="looks"),
            ledger=Ledger(SqliteStore(self.path)),
            leases=SqliteLeases(self.folder),
        )
        return {old: "old", new: "new"}.get(serving, "?"), wrong


def _kill(_: SqliteStore) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
