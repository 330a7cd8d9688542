"""Proving a candidate at a share of the traffic: time, watches, and who really answered.

proof = Proof(place, target, candidate, watches=watches, lease=lease, log=log, options=options)
group.start_soon(proof.guard.stand)          # raises Breached whatever else is being waited for
await proof.bake(Shift(10, minutes(5)))      # returns once the next step may be taken
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio

from buildonce.config import EnvironmentConfig
from buildonce.delivery.approval import ask
from buildonce.delivery.errors import Unclear
from buildonce.delivery.guard import Guard
from buildonce.delivery.lease import Lease
from buildonce.delivery.options import Options
from buildonce.delivery.plan import Shift
from buildonce.delivery.recording import Recorder
from buildonce.delivery.saying import Wait, describe
from buildonce.delivery.synthetic import Synthetic
from buildonce.delivery.target import Candidate, Counts, Target
from buildonce.delivery.watch import Verdict, Watch

_COUNT_PATIENCE = 5.0  # seconds


class Proof:
    """One candidate, from its first share of the traffic to the end of the last bake.

    Args:
        place: the environment; its configuration says what an inconclusive verdict leads to.
        target, candidate: what is proven.
        watches: what is looked at.
        lease: checked before each round of looks.
        synthetic: requests of our own, whose answers are counted apart; None where there are none.
        log: told and recorded.
        options: has the clock, and who is awaited.
    """

    def __init__(
        self,
        place: EnvironmentConfig,
        target: Target,
        candidate: Candidate,
        *,
        watches: Sequence[Watch],
        lease: Lease,
        log: Recorder,
        options: Options,
        synthetic: Synthetic | None = None,
    ) -> None:
        self._place = place
        self._target = target
        self._candidate = candidate
        self._synthetic = synthetic
        self._log = log
        self._options = options
        self.guard = Guard(
            place.name,
            watches,
            every=place.rollout.look_every.total_seconds(),
            clock=options.clock,
            record=self._watched,
            say=log.say,
            check=lease.check,
        )

    async def bake(self, shift: Shift) -> None:
        """Stay at a share of the traffic for its time, and until the watches are conclusive.

        Raises:
            Unclear: they are not, and the environment goes back for that.
            ApprovalRefused: a person was asked, and said no.
        """
        if not shift.bake:
            return
        seconds = shift.bake.total_seconds()
        before = await self._counts()
        async with self._log.step("bake", percent=shift.percent, seconds=seconds) as data:
            try:
                await self._options.clock.sleep(seconds)
                verdict = await self._conclusive(data)
                data.update(verdict=verdict.state, why=verdict.why, samples=verdict.samples)
            finally:
                after = await self._counts()
                if before is not None and after is not None:
                    data["traffic"] = after.since(before).to_json()
                if self._synthetic is not None:
                    data["synthetic"] = self._synthetic.split(shift.percent)

    async def _counts(self) -> Counts | None:
        """The balancer's counters; None where they cannot be read: they are for people only."""
        try:
            with anyio.move_on_after(_COUNT_PATIENCE, shield=True):
                return await self._target.counts(self._candidate)
        except Exception as error:
            self._log.say(f"the answers could not be counted: {describe(error)}")
        return None

    async def _conclusive(self, data: dict[str, Any]) -> Verdict:
        """The verdict that the next step may be taken on."""
        rollout, verdict = self._place.rollout, await self.guard.look()
        if verdict.state == "ok":
            return verdict
        what = f"a conclusive verdict ({verdict.why})"
        wait = Wait(self._options.clock, self._log.say, what, rollout.hold)
        while await wait.sleep(rollout.look_every.total_seconds()):
            verdict = await self.guard.look()
            data["held"] = wait.waited
            if verdict.state == "ok":
                return verdict
        data["inconclusive"] = rollout.inconclusive
        if rollout.inconclusive == "proceed":
            self._log.say(f"inconclusive, and goes on as configured: {verdict.why}")
        elif rollout.inconclusive == "roll-back":
            raise Unclear(f"inconclusive after {wait.waited:.0f} s more: {verdict.why}")
        else:
            await self._ask(verdict.why)
        return verdict

    async def _ask(self, why: str) -> None:
        """Have a person say whether it goes on."""
        await self._log.record("asked", state="started", why=why)
        with self._options.awaiting():
            answer = await ask(
                self._candidate.release,
                self._place,
                self._candidate.rollout,
                why,
                options=self._options,
                say=self._log.say,
            )
        await self._log.record("asked", state="done", actor=answer.actor)

    async def _watched(self, name: str, verdict: Verdict) -> None:
        await self._log.record(
            "watch", watch=name, state=verdict.state, why=verdict.why, samples=verdict.samples
        )
