"""Any plan of waves, any history of faults: all environments end on one and the same release.

In memory, by the test's clock: BUILDONCE_FAULTS=5000 for a long run.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from buildonce.config import EnvironmentConfig
from buildonce.delivery import SmokeFailed
from buildonce.delivery.resuming import resume
from buildonce.errors import BuildonceError
from tests.aws.faults import Process
from tests.aws.rollouts import MemoryLeases
from tests.delivery.company import Company, place
from tests.delivery.conftest import record
from tests.delivery.memory import Killed, Power
from tests.samples import release

_PATIENCE = 60  # seconds of ours
NAMES = ("pilot", "europe", "america", "asia")
STRATEGIES: tuple[dict[str, Any], ...] = (
    {"strategy": "all-at-once"},
    {"strategy": "all-at-once", "bake": "60s"},
    {"strategy": "blue-green", "bake": "30s"},
    {"strategy": "canary", "steps": [10, 50], "interval": "60s", "bake": "120s"},
    {"strategy": "linear", "step": 40, "interval": "10s"},
    {"strategy": "canary", "steps": [5], "interval": "20s", "inconclusive": "proceed"},
)


@dataclass(frozen=True)
class Plan:
    """Environments by name, their waves, and the time between waves in seconds."""

    places: dict[str, EnvironmentConfig]
    waves: list[list[str]]
    bake: float


@dataclass(frozen=True)
class Turn:
    """One process: a promotion of the next release, or a resume of what is unfinished.

    Attributes:
        does: "promote", "resume" or "back" (resume --back).
        bad: fails its smoke test in that environment; None nowhere.
        watch: by environment: what its watch says from which second on.
        at, kind: at which effect of the process what happens; None for nothing.
    """

    does: str
    bad: str | None
    watch: dict[str, dict[float, str]]
    at: int | None
    kind: str


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    names = NAMES[: draw(st.integers(1, len(NAMES)))]
    approved = draw(st.booleans())
    places = {}
    for name in names:
        rollout = {**draw(st.sampled_from(STRATEGIES)), "look_every": "15s"}
        places[name] = place(name, approval={} if approved else None, **rollout)
    cuts = sorted(draw(st.sets(st.integers(1, len(names)), max_size=2)) | {0, len(names)})
    waves = [list(names[a:b]) for a, b in pairwise(cuts)]
    return Plan(places, waves, draw(st.sampled_from([0.0, 45.0])))


_says = st.sampled_from(["breach", "inconclusive", "missing", "ok"])
_watch = st.dictionaries(st.sampled_from([5.0, 30.0, 100.0, 200.0]), _says, max_size=2)
turns = st.builds(
    Turn,
    does=st.sampled_from(["promote", "promote", "resume", "back"]),
    bad=st.none() | st.sampled_from(NAMES),
    watch=st.dictionaries(st.sampled_from(NAMES), _watch, max_size=2),
    at=st.none() | st.integers(0, 250),
    kind=st.sampled_from(["kill", "kill", "fail", "cancel"]),
)


class History:
    """A company through its turns."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.plan = plan
        self.company = Company(folder, list(plan.places.values()))
        memory: Any = MemoryLeases(self.company.clock, {}, Process())  # thousands of checks
        self.company.leases = memory
        self.company.hire("ann")
        self.version = 0

    async def take(self, turn: Turn) -> None:
        """What a process does, until it ends or something happens to it."""
        company = self.company
        for name in self.plan.places:
            company.script(name, {0.0: "ok", **turn.watch.get(name, {})})
        bad = turn.bad

        async def smoke(_: str) -> None:
            if bad in company.places and company.targets[bad].candidate is not None:
                raise SmokeFailed(f"the basket of {bad} is empty")

        self.version += turn.does == "promote"
        what = release(str(self.version))
        if turn.does == "promote":
            await record(what, company.ledger)
            for name, one in self.plan.places.items():
                if one.approval is not None:
                    await company.word("ann", what, name)
        company.power = power = Power(at=turn.at, kind=turn.kind)
        try:
            with anyio.CancelScope() as power.scope:
                if turn.does == "promote":
                    await company.promote(what, self.plan.waves, bake=self.plan.bake, smoke=smoke)
                else:
                    options, back = company.options(wait=True), turn.does == "back"
                    await resume(company.places, options, back=back, smoke=smoke)
        except* (BuildonceError, Killed):
            pass
        finally:
            company.power = Power()

    async def check_between(self) -> None:
        """At no time is there anything but all of the traffic, shared by two at most."""
        for name, shares in self.company.serving.items():
            assert sum(shares.values()) in (0, 100), (name, shares)
            assert len(shares) <= 2, (name, shares)

    async def check_at_the_end(self) -> None:
        """Everywhere the same, nothing on trial, nothing left, the ledger agrees."""
        company = self.company
        versions = {tuple(shares.items()) for shares in company.serving.values()}
        assert len(versions) == 1, company.serving
        for name, target in company.targets.items():
            assert target.candidate is None, name
            assert set(target.containers) == ({target.active[0]} if target.active else set()), name
            serving = target.containers[target.active[0]].image.digest if target.active else None
            recorded = await company.ledger.current(name)
            assert (recorded.digest if recorded else None) == serving, name
            rollouts = await company.ledger.rollouts(name)
            assert all(rollout.result is not None for rollout in rollouts), name
            assert not rollouts or rollouts[0].running_digest == serving, name
            assert await company.leases.holder(name) is None
        assert all(p.result is not None for p in await company.ledger.promotions(limit=None))


async def through(past: History, history: list[Turn]) -> None:
    """All of it, and that it ends well."""
    async with past.company.at_work():
        await past.take(Turn("promote", None, {}, None, "kill"))
        await past.check_at_the_end()
        for turn in history:
            await past.take(turn)
            await past.check_between()
        for _ in range(2):  # the first may take back what it found to be bad
            await past.take(Turn("resume", None, {}, None, "kill"))
        await past.check_at_the_end()


@settings(max_examples=int(os.environ.get("BUILDONCE_FAULTS", "25")), deadline=None)
@given(plan=plans(), history=st.lists(turns, min_size=1, max_size=4))
def test_all_environments_end_on_one_release(plan: Plan, history: list[Turn]) -> None:
    async def work() -> None:
        # Time that stands still, or flies while nobody comes to an end, is a failure too.
        with tempfile.TemporaryDirectory() as folder, anyio.fail_after(_PATIENCE):
            await through(History(Path(folder), plan), history)

    anyio.run(work)
