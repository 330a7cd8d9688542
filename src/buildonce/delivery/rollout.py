"""A rollout: one release's way into one environment, and back when it proves no good.

    rollout = await deploy(release, staging, project="dashboard", ledger=ledger, run=run)

prepare (pull by digest, start, wait for health) -> shift traffic -> smoke test -> finish. Whatever
goes wrong before the smoke test has passed, be it a failure, Ctrl-C or a time budget, puts back
what ran before; from then on the new release stays. Each step is in the ledger before and after it,
so a rollout whose process was killed is found by the next one and brought to one of the two ends by
the same rule: `recover`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import anyio

from buildonce.config import EnvironmentConfig
from buildonce.delivery.approval import wait_for_approval
from buildonce.delivery.errors import RollbackFailed, RolledBack
from buildonce.delivery.local import environment_folder
from buildonce.delivery.lock import environment_lock
from buildonce.delivery.smoke import Smoke, http_smoke
from buildonce.delivery.target import Candidate, Deployed, Target
from buildonce.delivery.targets import open_target
from buildonce.errors import BuildonceError
from buildonce.ledger import Ledger, LedgerError, Rollout, new_run_id
from buildonce.release import Release

Progress = Callable[[str], None]
Reason = Literal["deploy", "rollback"]

_UNDO_PATIENCE = 120.0
"""Seconds in which the previous release must be back; nothing can interrupt them."""


@dataclass(frozen=True)
class Shift:
    """A step of traffic: `percent` for the new release, kept so for `bake`."""

    percent: int
    bake: timedelta = timedelta(0)


ALL_AT_ONCE = (Shift(100),)

_TELL = {
    "pull": "pulling {reference}",
    "start": "starting {container}",
    "healthy": "waiting for GET {path} to succeed",
    "shift": "{percent} % of the traffic to the new release",
    "bake": "watching for {seconds:g} s with {percent} % of the traffic",
    "smoke": "smoke test",
    "finish": "retiring the previous release",
}
"""What is said when a step begins; the steps of other targets may have other names."""


def _quiet(_: str) -> None: ...


async def deploy(
    release: Release,
    environment: EnvironmentConfig,
    *,
    project: str,
    ledger: Ledger,
    run: str,
    smoke: Smoke | None = None,
    progress: Progress = _quiet,
    target: Target | None = None,
    traffic: Sequence[Shift] = ALL_AT_ONCE,
    reason: Reason = "deploy",
    wait: bool = False,
    home: Path | None = None,
) -> Rollout:
    """Bring the release into the environment, or leave the environment as it was.

    Args:
        release: what is deployed, by its digest.
        environment: where.
        project: whose environment it is.
        ledger: gets every step.
        run: id of the run that deploys.
        smoke: gets the environment's URL once all traffic is on the new release, and raises
            `SmokeFailed` (or anything else) to have it rolled back; None asks `smoke_path`.
        progress: told what is being done, a line at a time.
        target: the environment's place; None makes the one that its configuration names.
        traffic: the steps in which traffic moves; the last one is of 100 percent.
        reason: a rollback needs no approval.
        wait: wait for another deployment to the environment to end, instead of failing.
        home: where environments' locks are; `places.home()` when None.

    Returns:
        The rollout as the ledger has it; its last step is "unchanged" when there was nothing to do.

    Raises:
        RolledBack: it failed, and what ran before answers again.
        RollbackFailed: it failed, and so did putting back what ran before.
        EnvironmentBusy: another process deploys to it.
        ApprovalRefused: the environment wants an approval, and somebody refused it.
    """
    if not traffic or traffic[-1].percent != 100:
        raise ValueError("the last step of traffic must be of 100 percent")
    if target is None:
        target = await open_target(environment, project=project, ledger=ledger.path)
    if environment.approval and reason == "deploy":
        await wait_for_approval(release, environment, ledger=ledger, say=progress)
    folder = environment_folder(project, environment.name, home=home)
    async with environment_lock(folder, run=run, wait=wait, say=progress):
        await recover(target, environment, ledger=ledger, progress=progress)
        one = _Rollout(
            release=release,
            environment=environment,
            target=target,
            ledger=ledger,
            run=run,
            smoke=smoke or http_smoke(environment.smoke_path, digest=release.image.digest),
            say=lambda text: progress(f"{environment.name}: {text}"),
        )
        await one.run_through(traffic, reason)
        found = await ledger.rollout(one.id)
    assert found is not None, "it was appended above"
    return found


async def recover(
    target: Target, environment: EnvironmentConfig, *, ledger: Ledger, progress: Progress = _quiet
) -> list[str]:
    """Bring what killed processes left unfinished to an end, and what has died back to life.

    The caller holds the environment's lock, so whoever began these rollouts is gone. A candidate
    that had passed its smoke test stays; any other gives way to what ran before.

    Returns:
        The ids of the rollouts that it finished.
    """
    unfinished = [r for r in await ledger.rollouts(environment.name) if r.result is None]
    pending = await target.pending()
    if pending is not None:
        mine = next((r for r in unfinished if r.id == pending.rollout), None)
        version = pending.release.version
        if mine is not None and pending.percent == 100 and _passed_smoke(mine):
            progress(f"{environment.name}: finishing the interrupted rollout of {version}")
            await target.finish(pending)
        else:
            progress(f"{environment.name}: undoing the interrupted rollout of {version}")
            await target.restore(pending, "interrupted")
    await target.repair(progress)
    current = await target.current() if unfinished else None
    for rollout in reversed(unfinished):
        stayed = current is not None and current.rollout == rollout.id
        await ledger.append(
            "rollout.finished",
            run=rollout.run,
            data={
                "rollout": rollout.id,
                "environment": environment.name,
                "result": "succeeded" if stayed else "rolled-back",
                "digest": current.digest if current is not None else None,
                "seconds": max(0.0, (datetime.now(UTC) - rollout.started).total_seconds()),
                "cause": "its process ended without finishing it; a later one did",
            },
        )
    return [rollout.id for rollout in unfinished]


def _passed_smoke(rollout: Rollout) -> bool:
    return any(s.name == "smoke" and s.data.get("state") == "done" for s in rollout.steps)


class _Rollout:
    """One rollout under way; the environment's lock is held."""

    def __init__(
        self,
        *,
        release: Release,
        environment: EnvironmentConfig,
        target: Target,
        ledger: Ledger,
        run: str,
        smoke: Smoke,
        say: Progress,
    ) -> None:
        self.id = new_run_id()
        self.release = release
        self.environment = environment
        self.target = target
        self.ledger = ledger
        self.run = run
        self.smoke = smoke
        self.say = say
        self._began = time.monotonic()

    async def run_through(self, traffic: Sequence[Shift], reason: Reason) -> None:
        previous = await self.target.current()
        await self._append(
            "rollout.started",
            version=self.release.version,
            revision=self.release.revision,
            digest=self.release.image.digest,
            previous_digest=previous.digest if previous else None,
            reason=reason,
        )
        try:
            if not await self._is_there(previous):
                await self._replace(traffic)
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                failure = await self._undo(error, previous)
            if isinstance(error, Exception):
                raise failure from error
            raise

    async def _is_there(self, current: Deployed | None) -> bool:
        """Whether the environment runs just this already, and well; then that is recorded."""
        if (
            current is None
            or not current.healthy
            or current.fingerprint != self.target.fingerprint(self.release)
        ):
            return False
        try:
            async with self._step("smoke"):
                await self.smoke(self.environment.url)
        except Exception as error:
            # The same image in a new container may do better; if not, this one stays.
            self.say(f"{self.release.version} runs already, but: {describe(error)}")
            return False
        self.say(f"{self.release.version} ({self.release.image.short}) is there already")
        await self._record("unchanged", state="done", rollout=current.rollout)
        await self._finished("succeeded", self.release.image.digest, None)
        return True

    async def _replace(self, traffic: Sequence[Shift]) -> None:
        candidate = await self.target.prepare(self.release, rollout=self.id, step=self._step)
        for shift in traffic:
            async with self._step("shift", percent=shift.percent):
                await self.target.shift(candidate, shift.percent)
            if shift.bake:
                seconds = shift.bake.total_seconds()
                async with self._step("bake", percent=shift.percent, seconds=seconds):
                    await anyio.sleep(seconds)
        async with self._step("smoke"):
            await self.smoke(self.environment.url)
        # It is proven: from here on an interruption no longer undoes it.
        with anyio.CancelScope(shield=True):
            note = await self._retire_previous(candidate)
            await self._finished("succeeded", self.release.image.digest, note)
        self.say(
            f"{self.release.version} ({self.release.image.short}) is at {self.environment.url}"
        )

    async def _retire_previous(self, candidate: Candidate) -> str | None:
        """What could not be cleared away, or None; raises while the candidate is not current."""
        try:
            async with self._step("finish"):
                await self.target.finish(candidate)
        except Exception as error:
            if await self.target.pending() is not None:
                raise
            self.say(f"the previous release is not wholly removed yet: {describe(error)}")
            return f"the previous release is not wholly removed: {describe(error)}"
        return None

    async def _undo(self, error: BaseException, previous: Deployed | None) -> Exception:
        """Put back what ran before, record it, and give the error to raise."""
        cause = describe(error)
        restored: BaseException | None = None
        with anyio.move_on_after(_UNDO_PATIENCE) as patience:
            try:
                candidate = await self.target.pending()
                if candidate is not None:
                    self.say(
                        f"going back to {previous.version if previous else 'nothing'}: {cause}"
                    )
                    await self._quietly("restore", state="started", why=cause)
                    await self.target.restore(candidate, cause)
                    await self._quietly("restore", state="done")
                now = await self.target.current()
            except Exception as second:
                restored = second
        if patience.cancelled_caught:
            restored = TimeoutError(f"not done within {_UNDO_PATIENCE:g} s")
        if restored is not None:
            both = f"{cause}; and going back failed: {describe(restored)}"
            await self._finished_quietly("failed", previous, both)
            return RollbackFailed(
                f"the deployment to {self.environment.name} failed: {both}",
                remedy=f"buildonce resume {self.environment.name}",
            )
        if now is not None and now.rollout == self.id:
            # The release was in place when the record of it failed; the next one completes that.
            return error if isinstance(error, Exception) else RuntimeError(cause)
        await self._finished_quietly("rolled-back", now, cause)
        return RolledBack(
            self.environment.name,
            cause,
            restored=now.version if now else None,
            remedy=error.remedy if isinstance(error, BuildonceError) else None,
        )

    @asynccontextmanager
    async def _step(self, name: str, **data: Any) -> AsyncIterator[dict[str, Any]]:
        self.say(_TELL[name].format(**data) if name in _TELL else name)
        await self._record(name, state="started", **data)
        began = time.monotonic()
        found: dict[str, Any] = {}
        try:
            yield found
        except BaseException as error:
            seconds = time.monotonic() - began
            await self._quietly(name, state="failed", seconds=seconds, cause=describe(error))
            raise
        took = {"seconds": time.monotonic() - began}
        await self._record(name, state="done", **{**data, **took, **found})

    async def _record(self, step: str, **data: Any) -> None:
        await self._append("rollout.step", step=step, data=data)

    async def _finished(self, result: str, digest: str | None, cause: str | None) -> None:
        await self._append(
            "rollout.finished",
            result=result,
            digest=digest,
            seconds=time.monotonic() - self._began,
            cause=cause,
        )

    async def _quietly(self, step: str, **data: Any) -> None:
        # A ledger that fails must neither hide the first failure nor stop the way back.
        try:
            await self._record(step, **data)
        except LedgerError as error:
            self.say(f"not recorded: {describe(error)}")

    async def _finished_quietly(self, result: str, now: Deployed | None, cause: str) -> None:
        try:
            await self._finished(result, now.digest if now else None, cause)
        except LedgerError as error:
            self.say(f"not recorded: {describe(error)}")

    async def _append(self, kind: str, **data: Any) -> None:
        common = {"rollout": self.id, "environment": self.environment.name}
        await self.ledger.append(kind, run=self.run, data={**common, **data})


def describe(error: BaseException) -> str:
    """What went wrong, for a sentence: no type names where people wrote a message."""
    if isinstance(error, anyio.get_cancelled_exc_class() | KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(describe(inner) for inner in error.exceptions)
    if isinstance(error, BuildonceError):
        return error.message
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
