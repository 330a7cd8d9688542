"""A rollout: one release's way into one environment, and back when it proves no good.

prepare (pull by digest, start, wait for health) -> shift traffic, step by step -> smoke test ->
bake -> finish. From the first shift on its watches are looked at, whatever else goes on: waits for
people, other environments' waves, the bake. Whatever goes wrong before all is proven, be it a
failure, a breach, Ctrl-C or a time budget, puts back what ran before; from then on the new release
stays. Each step is in the ledger before and after it, so a rollout whose process was killed is
found by the next one and brought to one of the two ends by the same rule.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio

from buildonce.config import EnvironmentConfig
from buildonce.delivery.approval import ask
from buildonce.delivery.clock import Clock
from buildonce.delivery.decision import Decision
from buildonce.delivery.errors import NotFinished, RollbackFailed, RolledBack, Unclear
from buildonce.delivery.guard import Guard
from buildonce.delivery.lease import Lease, LeaseLost
from buildonce.delivery.options import Options
from buildonce.delivery.plan import Shift
from buildonce.delivery.saying import TELL, Wait, describe, first_failure
from buildonce.delivery.smoke import Smoke
from buildonce.delivery.synthetic import Synthetic
from buildonce.delivery.target import Candidate, Deployed, Manifest, Target
from buildonce.delivery.watch import Verdict, Watch
from buildonce.errors import BuildonceError
from buildonce.ledger import LedgerError, Rollout, new_run_id
from buildonce.release import Release

_UNDO_PATIENCE = 120.0
"""Seconds in which the previous release must be back; nothing can interrupt them."""


@dataclass
class Milestones:
    """How far an environment's rollout is, for those who wait for it.

    Attributes:
        shifted: all traffic is on the new release, and its smoke test has passed.
        tested: set by others: the tests of its wave have passed, the bake may begin.
        baked: all that this environment can prove is proven, or nothing was to be changed.
        changed: False when just this ran there already.
        rollout: the rollout's id, once it has one.
        url: where the environment answers.
        failure: what it ended with, where it did not succeed.
    """

    shifted: anyio.Event = field(default_factory=anyio.Event)
    tested: anyio.Event = field(default_factory=anyio.Event)
    baked: anyio.Event = field(default_factory=anyio.Event)
    changed: bool = True
    rollout: str | None = None
    url: str = ""
    failure: Exception | None = None


class EnvironmentRollout:
    """One environment's part of a rollout under way; its lease is held.

    Args:
        release, place, target, lease: what goes where, by what right.
        options: of the whole.
        traffic: the steps.
        smoke: the smoke test, given the environment's address.
        decision: shared with the other environments.
        milestones: written here.
        watches: beside those of the target.
        manifest: as for `Target.prepare`.
        promotion, wave: what it is part of.
        adopted: the rollout of a killed process that this one continues.
    """

    def __init__(
        self,
        release: Release,
        place: EnvironmentConfig,
        target: Target,
        lease: Lease,
        options: Options,
        *,
        traffic: Sequence[Shift],
        smoke: Smoke,
        decision: Decision,
        milestones: Milestones,
        watches: Sequence[Watch] = (),
        manifest: Manifest | None = None,
        promotion: str | None = None,
        wave: int | None = None,
        adopted: Rollout | None = None,
    ) -> None:
        self.id = adopted.id if adopted else new_run_id()
        self.release = release
        self.place = place
        self.target = target
        self.lease = lease
        self.options = options
        self.clock: Clock = options.clock
        self.traffic = tuple(traffic)
        self.smoke = smoke
        self.decision = decision
        self.watches = tuple(watches)
        self.manifest = manifest
        self.promotion = promotion
        self.wave = wave
        self.adopted = adopted
        self.milestones = milestones
        self._previous: Deployed | None = None
        self._guard: Guard | None = None
        self._synthetic: Synthetic | None = None
        self._url = ""
        self._began = self.clock.monotonic()

    async def run(self) -> None:
        """All of it, to one of the two ends.

        Raises:
            RolledBack, RollbackFailed, NotFinished: as `deploy`.
            LeaseLost: nothing more was written from then on; the new holder decides.
        """
        await self.lease.check()
        self._previous = await self.target.current()
        self._url = await self.target.url()
        self.milestones.rollout, self.milestones.url = self.id, self._url
        if self.adopted is None:
            await self._start()
        try:
            async with self._made_traffic():
                if self.adopted is not None or not await self._is_there(self._previous):
                    await self._prove_and_commit()
        except BaseException as error:
            failure = await self._failed(first_failure(error))
            self.milestones.failure = failure
            if failure is not None and isinstance(error, Exception):
                raise failure from error
            raise

    async def _prove_and_commit(self) -> None:
        try:
            async with anyio.create_task_group() as group:
                await self._forward(group)
                self.milestones.shifted.set()
                await self.milestones.tested.wait()
                await self._bake(self.traffic[-1])
                self.milestones.baked.set()
                await self.decision.made()
                group.cancel_scope.cancel()
        except BaseException as error:
            self.decision.undo(first_failure(error), self.place.name)
            with anyio.CancelScope(shield=True):
                if not await self.decision.made():
                    raise
        if self.decision.state == "undo":  # by another environment
            assert self.decision.cause is not None
            raise self.decision.cause
        with anyio.CancelScope(shield=True):
            await self._commit()

    async def _start(self) -> None:
        previous = self._previous
        await self._append(
            "rollout.started",
            version=self.release.version,
            revision=self.release.revision,
            digest=self.release.image.digest,
            previous_digest=previous.digest if previous else None,
            reason=self.options.reason,
            promotion=self.promotion,
            wave=self.wave,
            plan={
                "strategy": self.place.rollout.strategy,
                "steps": [[shift.percent, shift.bake.total_seconds()] for shift in self.traffic],
            },
        )

    async def _is_there(self, current: Deployed | None) -> bool:
        """Whether the environment runs just this already, and well; then that is recorded."""
        if (
            current is None
            or not current.healthy
            or current.fingerprint != self.target.fingerprint(self.release, self.manifest)
        ):
            return False
        try:
            async with self._step("smoke"):
                await self.smoke(self._url)
        except LeaseLost:
            raise
        except Exception as error:
            # The same image in a new container may do better; if not, this one stays.
            self._say(f"{self.release.version} runs already, but: {describe(error)}")
            return False
        self.milestones.changed = False
        self._say(f"{self.release.version} ({self.release.image.short}) is there already")
        manifest = dict(current.manifest)
        await self._record("unchanged", state="done", rollout=current.rollout, manifest=manifest)
        await self._finished("succeeded", self.release.image.digest, None)
        self.milestones.shifted.set()
        self.milestones.baked.set()
        return True

    async def _forward(self, group: anyio.abc.TaskGroup) -> None:
        """To all of the traffic, and a passed smoke test."""
        candidate = await self._candidate()
        if self.place.rollout.strategy == "blue-green" and candidate.url and not self.adopted:
            async with self._step("preview", url=candidate.url):
                await self.smoke(candidate.url)
        self._guard = Guard(
            self.place.name,
            [*self.watches, *self.target.watches(candidate)],
            every=self.place.rollout.look_every.total_seconds(),
            clock=self.clock,
            record=self._watched,
            say=self._say,
            check=self.lease.check,
        )
        await self._guard.look()
        group.start_soon(self._guard.stand)
        steps = self.traffic
        if self._previous is None and len(steps) > 1:
            self._say("nothing runs there yet: all traffic at once")
            steps = steps[-1:]
        if self.target.native:
            steps = steps[-1:]
        for shift in steps:
            if shift.percent < candidate.percent:
                continue  # before the crash
            async with self._step("shift", percent=shift.percent):
                self._shifting(None)
                await self._write(self.target.shift, candidate, shift.percent)
                self._shifting(shift.percent)
            if shift.percent < 100:
                await self._bake(shift)
        async with self._step("smoke"):
            await self.smoke(self._url)

    async def _candidate(self) -> Candidate:
        if self.adopted is not None:
            candidate = await self.target.pending()
            assert candidate is not None, "it was there when this rollout was adopted"
            self._shifting(candidate.percent)
            self._say(f"going on with {self.release.version} at {candidate.percent} %")
            await self._record("adopted", state="done", percent=candidate.percent)
            return candidate
        await self.lease.check()
        candidate = await self.target.prepare(
            self.release, rollout=self.id, step=self._step, manifest=self.manifest
        )
        await self._record("prepared", state="done", manifest=dict(candidate.manifest))
        return candidate

    async def _bake(self, shift: Shift) -> None:
        """Stay at a share of the traffic for its time, and until the watches are conclusive."""
        if not shift.bake or self._guard is None:
            return
        seconds = shift.bake.total_seconds()
        async with self._step("bake", percent=shift.percent, seconds=seconds) as data:
            await self.clock.sleep(seconds)
            verdict = await self._conclusive(data)
            data.update(verdict=verdict.state, why=verdict.why, samples=verdict.samples)
            if self._synthetic is not None:
                data["traffic"] = self._synthetic.split(shift.percent)

    async def _conclusive(self, data: dict[str, Any]) -> Verdict:
        """The verdict that the next step may be taken on."""
        assert self._guard is not None
        rollout, verdict = self.place.rollout, await self._guard.look()
        if verdict.state == "ok":
            return verdict
        wait = Wait(self.clock, self._say, f"a conclusive verdict ({verdict.why})", rollout.hold)
        while await wait.sleep(rollout.look_every.total_seconds()):
            verdict = await self._guard.look()
            data["held"] = wait.waited
            if verdict.state == "ok":
                return verdict
        data["inconclusive"] = rollout.inconclusive
        if rollout.inconclusive == "proceed":
            self._say(f"inconclusive, and goes on as configured: {verdict.why}")
        elif rollout.inconclusive == "roll-back":
            raise Unclear(f"inconclusive after {wait.waited:.0f} s more: {verdict.why}")
        else:
            await self._record("asked", state="started", why=verdict.why)
            with self.options.awaiting():
                answer = await ask(
                    self.release,
                    self.place,
                    self.id,
                    verdict.why,
                    options=self.options,
                    say=self._say,
                )
            await self._record("asked", state="done", actor=answer.actor)
        return verdict

    async def record_proven(self) -> None:
        """From here on whoever comes after a crash brings it to its end."""
        await self._record("proven", state="done")

    async def _commit(self) -> None:
        if self.promotion is not None:
            await self.record_proven()
        try:
            note = await self._finish()
        except (LeaseLost, LedgerError):
            raise
        except Exception as error:
            raise NotFinished(
                f"{self.release.version} is proven and serves {self.place.name}, but the rollout "
                f"could not be finished: {describe(error)}",
                remedy=f"buildonce resume {self.place.name}",
            ) from error
        await self._finished("succeeded", self.release.image.digest, note)
        self._say(f"{self.release.version} ({self.release.image.short}) is at {self._url}")

    async def _finish(self) -> str | None:
        """Make the candidate the current one; what could not be cleared away after that."""
        candidate = await self.target.pending()
        if candidate is None:
            return None
        try:
            async with self._step("finish"):
                await self._write(self.target.finish, candidate)
        except LeaseLost:
            raise
        except Exception as error:
            if await self.target.pending() is not None:
                raise
            self._say(f"the previous release is not wholly removed yet: {describe(error)}")
            return f"the previous release is not wholly removed: {describe(error)}"
        return None

    async def _failed(self, error: BaseException) -> Exception | None:
        """Bring it back where it is not to stay; the error to raise."""
        self.decision.undo(error, self.place.name)
        if isinstance(error, LeaseLost | NotFinished) or self.decision.state == "commit":
            return error if isinstance(error, Exception) else None
        elsewhere = self.decision.where not in (self.place.name, None)
        root = self.decision.cause or error
        cause = f"{self.decision.where}: {describe(root)}" if elsewhere else describe(root)
        failure: Exception | None = None
        with anyio.CancelScope(shield=True):
            failure = await self._undo(root if isinstance(root, Exception) else error, cause)
        return failure

    async def _undo(self, error: BaseException, cause: str) -> Exception:
        """Put back what ran before, record it, and give the error to raise."""
        previous = self._previous
        restored: BaseException | None = None
        now: Deployed | None = None
        with anyio.move_on_after(_UNDO_PATIENCE) as patience:
            try:
                candidate = await self.target.pending()
                if candidate is not None:
                    back = previous.version if previous else "nothing"
                    self._say(f"going back to {back}: {cause}")
                    await self._quietly("restore", state="started", why=cause)
                    self._shifting(None)
                    await self._write(self.target.restore, candidate, cause)
                    self._shifting(0)
                    await self._quietly("restore", state="done")
                now = await self.target.current()
            except Exception as second:
                restored = second
        if isinstance(restored, LeaseLost):
            return restored
        if patience.cancelled_caught:
            restored = TimeoutError(f"not done within {_UNDO_PATIENCE:g} s")
        if restored is not None:
            both = f"{cause}; and going back failed: {describe(restored)}"
            await self._finished_quietly("failed", previous, both)
            return RollbackFailed(
                f"the deployment to {self.place.name} failed: {both}",
                remedy=f"buildonce resume {self.place.name}",
            )
        if now is not None and now.rollout == self.id:
            # The release was in place when the record of it failed; the next one completes that.
            return error if isinstance(error, Exception) else RuntimeError(cause)
        await self._finished_quietly("rolled-back", now, cause)
        return RolledBack(
            self.place.name,
            cause,
            restored=now.version if now else None,
            remedy=error.remedy if isinstance(error, BuildonceError) else None,
            unclear=isinstance(error, Unclear),
        )

    @asynccontextmanager
    async def _made_traffic(self) -> AsyncIterator[None]:
        config = self.place.rollout.synthetic
        # Before anything serves there is nobody to ask.
        if config is None or self._previous is None:
            yield
            return
        self._synthetic = Synthetic(self._url, config)
        async with self._synthetic.running():
            yield

    def _shifting(self, percent: int | None) -> None:
        if self._synthetic is not None:
            self._synthetic.percent = percent

    async def _write(self, change: Any, *args: Any) -> None:
        await self.lease.check()
        await change(*args)

    async def _watched(self, name: str, verdict: Verdict) -> None:
        await self._record(
            "watch", watch=name, state=verdict.state, why=verdict.why, samples=verdict.samples
        )

    def _say(self, text: str) -> None:
        self.options.progress(f"{self.place.name}: {text}")

    @asynccontextmanager
    async def _step(self, name: str, **data: Any) -> AsyncIterator[dict[str, Any]]:
        self._say(TELL[name].format(**data) if name in TELL else name)
        await self._record(name, state="started", **data)
        began = self.clock.monotonic()
        found: dict[str, Any] = {}
        try:
            yield found
        except BaseException as error:
            took = self.clock.monotonic() - began
            cause = describe(error)
            if isinstance(error, anyio.get_cancelled_exc_class()) and self.decision.cause:
                cause = describe(self.decision.cause)
            await self._quietly(name, state="failed", seconds=took, cause=cause)
            raise
        took = self.clock.monotonic() - began
        await self._record(name, state="done", **{**data, "seconds": took, **found})

    async def _record(self, step: str, **data: Any) -> None:
        await self._append("rollout.step", step=step, data=data)

    async def _finished(self, result: str, digest: str | None, cause: str | None) -> None:
        more: dict[str, Any] = {}
        if self._synthetic is not None:
            more["traffic"] = self._synthetic.to_json()
        if self._guard is not None and self._guard.last:
            more["verdict"] = self._guard.verdict.state
        await self._append(
            "rollout.finished",
            result=result,
            digest=digest,
            seconds=max(0.0, self.clock.monotonic() - self._began),
            cause=cause,
            **more,
        )

    async def _quietly(self, step: str, **data: Any) -> None:
        # A ledger that fails must neither hide the first failure nor stop the way back.
        try:
            await self._record(step, **data)
        except LedgerError as error:
            self._say(f"not recorded: {describe(error)}")

    async def _finished_quietly(self, result: str, now: Deployed | None, cause: str) -> None:
        try:
            await self._finished(result, now.digest if now else None, cause)
        except LedgerError as error:
            self._say(f"not recorded: {describe(error)}")

    async def _append(self, kind: str, **data: Any) -> None:
        with anyio.CancelScope(shield=True):
            await self.lease.check()
        common = {"rollout": self.id, "environment": self.place.name}
        await self.options.ledger.append(kind, run=self.options.run, data={**common, **data})
