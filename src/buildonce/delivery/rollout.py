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
from buildonce.delivery.clock import Clock
from buildonce.delivery.decision import Decision
from buildonce.delivery.errors import NotFinished, RollbackFailed, RolledBack, Unclear
from buildonce.delivery.lease import Lease, LeaseLost
from buildonce.delivery.options import Options
from buildonce.delivery.plan import Shift
from buildonce.delivery.proving import Proof
from buildonce.delivery.recording import Recorder
from buildonce.delivery.saying import describe, first_failure
from buildonce.delivery.smoke import Smoke
from buildonce.delivery.synthetic import Synthetic
from buildonce.delivery.target import Candidate, Deployed, Manifest, Target
from buildonce.delivery.watch import Watch
from buildonce.errors import BuildonceError
from buildonce.ledger import LedgerError, Rollout, new_run_id
from buildonce.release import Release


@dataclass
class Milestones:
    """How far an environment's rollout is, for those who wait for it.

    Attributes:
        shifted: all traffic is on the new release, and its smoke test has passed.
        tested: set by others: the tests of its wave have passed, the bake may begin.
        baked: all that this environment can prove is proven, or nothing was to be changed.
        changed: False when just this ran there already.
        rollout: the rollout's id, once it has one.
        brought_by: the rollout that brought what runs there: an earlier one where nothing changed.
        url: where the environment answers.
        failure: what it ended with, where it did not succeed.
    """

    shifted: anyio.Event = field(default_factory=anyio.Event)
    tested: anyio.Event = field(default_factory=anyio.Event)
    baked: anyio.Event = field(default_factory=anyio.Event)
    changed: bool = True
    rollout: str | None = None
    brought_by: str = ""
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
        turns: shared too: one is taken while something is changed, and none while it is waited.
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
        turns: anyio.Semaphore,
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
        self.turns = turns
        self.watches = tuple(watches)
        self.manifest = manifest
        self.promotion = promotion
        self.wave = wave
        self.adopted = adopted
        self.milestones = milestones
        self._previous: Deployed | None = None
        self._proof: Proof | None = None
        self._synthetic: Synthetic | None = None
        self._url = ""
        self._log = Recorder(self.id, place.name, lease, options, decision)

    async def run(self) -> None:
        """All of it, to one of the two ends.

        Raises:
            RolledBack, RollbackFailed, NotFinished: as `deploy`.
            LeaseLost: nothing more was written from then on; the new holder decides.
        """
        await self.lease.check()
        self._previous = await self.target.current()
        self._url = await self.target.url()
        self.milestones.rollout = self.milestones.brought_by = self.id
        self.milestones.url = self._url
        if self.adopted is None:
            await self._start()
        async with self._made_traffic():
            try:
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
                if self._proof is not None:
                    await self._proof.bake(self.traffic[-1])
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
        await self._log.started(
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
                "tests": self.options.tests,
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
            async with self._log.step("smoke"):
                await self.smoke(self._url)
        except LeaseLost:
            raise
        except Exception as error:
            # The same image in a new container may do better; if not, this one stays.
            self._log.say(f"{self.release.version} runs already, but: {describe(error)}")
            return False
        self.milestones.changed, self.milestones.brought_by = False, current.rollout
        self._log.say(f"{self.release.version} ({self.release.image.short}) is there already")
        manifest = dict(current.manifest)
        await self._log.record(
            "unchanged", state="done", rollout=current.rollout, manifest=manifest
        )
        await self._log.finished("succeeded", self.release.image.digest, None)
        self.milestones.shifted.set()
        self.milestones.baked.set()
        return True

    async def _forward(self, group: anyio.abc.TaskGroup) -> None:
        """To all of the traffic, and a passed smoke test."""
        async with self.turns:
            candidate = await self._prepared()
        if self.place.rollout.strategy == "blue-green" and candidate.url and not self.adopted:
            async with self._log.step("preview", url=candidate.url):
                await self.smoke(candidate.url)
        proof = self._proof = Proof(
            self.place,
            self.target,
            candidate,
            watches=[*self.watches, *self.target.watches(candidate)],
            lease=self.lease,
            synthetic=self._synthetic,
            log=self._log,
            options=self.options,
        )
        await proof.guard.look()
        group.start_soon(proof.guard.stand)
        steps = self.traffic
        if self._previous is None and len(steps) > 1:
            self._log.say("nothing runs there yet: all traffic at once")
            steps = steps[-1:]
        if self.target.native:
            steps = steps[-1:]
        for shift in steps:
            if shift.percent < candidate.percent:
                continue  # before the crash
            async with self.turns, self._log.step("shift", percent=shift.percent):
                self._shifting(None)
                await self._write(self.target.shift, candidate, shift.percent)
                self._shifting(shift.percent)
            if shift.percent < 100:
                await proof.bake(shift)
        async with self.turns, self._log.step("smoke"):
            await self.smoke(self._url)

    async def _prepared(self) -> Candidate:
        if self.adopted is not None:
            candidate = await self.target.pending()
            assert candidate is not None, "it was there when this rollout was adopted"
            self._shifting(candidate.percent)
            self._log.say(f"going on with {self.release.version} at {candidate.percent} %")
            await self._log.record("adopted", state="done", percent=candidate.percent)
            return candidate
        await self.lease.check()
        candidate = await self.target.prepare(
            self.release, rollout=self.id, step=self._log.step, manifest=self.manifest
        )
        await self._log.record("prepared", state="done", manifest=dict(candidate.manifest))
        return candidate

    async def record_proven(self) -> None:
        """From here on whoever comes after a crash brings it to its end."""
        await self._log.record("proven", state="done")

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
        await self._log.finished("succeeded", self.release.image.digest, note, **self._seen())
        self._log.say(f"{self.release.version} ({self.release.image.short}) is at {self._url}")

    async def _finish(self) -> str | None:
        """Make the candidate the current one; what could not be cleared away after that."""
        candidate = await self.target.pending()
        if candidate is None:
            return None
        try:
            async with self.turns, self._log.step("finish"):
                await self._write(self.target.finish, candidate)
        except LeaseLost:
            raise
        except Exception as error:
            if await self.target.pending() is not None:
                raise
            self._log.say(f"the previous release is not wholly removed yet: {describe(error)}")
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
            async with self.turns:
                failure = await self._undo(root if isinstance(root, Exception) else error, cause)
        return failure

    async def _undo(self, error: BaseException, cause: str) -> Exception:
        """Put back what ran before, record it, and give the error to raise."""
        previous = self._previous
        restored: BaseException | None = None
        now: Deployed | None = None
        seconds = self.target.back_within
        with anyio.move_on_after(seconds) as patience:
            try:
                candidate = await self.target.pending()
                if candidate is not None:
                    back = previous.version if previous else "nothing"
                    self._log.say(f"going back to {back}: {cause}")
                    await self._log.quietly("restore", state="started", why=cause)
                    self._shifting(None)
                    if previous is None and self._synthetic is not None:
                        self._synthetic.end()
                    await self._write(self.target.restore, candidate, cause)
                    self._shifting(0)
                    await self._log.quietly("restore", state="done")
                now = await self.target.current()
            except Exception as second:
                restored = second
        if isinstance(restored, LeaseLost):
            return restored
        if patience.cancelled_caught:
            restored = TimeoutError(f"not done within {seconds:g} s")
        if restored is not None:
            both = f"{cause}; and going back failed: {describe(restored)}"
            digest = previous.digest if previous else None
            await self._log.finished_quietly("failed", digest, both, **self._seen())
            return RollbackFailed(
                f"the deployment to {self.place.name} failed: {both}",
                remedy=f"buildonce resume {self.place.name}",
            )
        if now is not None and now.rollout == self.id:
            # The release was in place when the record of it failed; the next one completes that.
            return error if isinstance(error, Exception) else RuntimeError(cause)
        digest = now.digest if now else None
        await self._log.finished_quietly("rolled-back", digest, cause, **self._seen())
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
        if config is None:
            yield
            return
        self._synthetic = Synthetic(self._url, config)
        if self._previous is not None:
            self._synthetic.begin()
        async with self._synthetic.running():
            yield

    def _shifting(self, percent: int | None) -> None:
        if self._synthetic is not None:
            self._synthetic.percent = percent
            if percent:  # before anything serves there is nobody to ask
                self._synthetic.begin()

    async def _write(self, change: Any, *args: Any) -> None:
        await self.lease.check()
        await change(*args)

    def _seen(self) -> dict[str, Any]:
        """What goes with the rollout's end."""
        seen: dict[str, Any] = {}
        if self._synthetic is not None:
            seen["synthetic"] = self._synthetic.to_json()
        if self._proof is not None and self._proof.guard.last:
            seen["verdict"] = self._proof.guard.verdict.state
        return seen
