"""One release's way through waves of environments, side by side and one after another.

    rollouts = await Promotion(release, [[pilot], [eu, us]], options, bake=minutes(10)).run()

All environments of a promotion stay open (the previous release kept, the watches looked at) until
the last one has baked; then all stay. A breach or failure anywhere before that, also in a wave long
done, brings all of them back: users never live with two releases because a rollout went wrong.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import anyio

from buildonce.config import EnvironmentConfig
from buildonce.delivery.approval import withdrawal_watch
from buildonce.delivery.decision import Decision
from buildonce.delivery.errors import RolledBack
from buildonce.delivery.gates import pass_gates
from buildonce.delivery.lease import Lease
from buildonce.delivery.options import Options
from buildonce.delivery.plan import Shift, checked, planned
from buildonce.delivery.recovery import recover
from buildonce.delivery.rollout import EnvironmentRollout, Milestones
from buildonce.delivery.saying import Wait, describe, first_failure
from buildonce.delivery.smoke import Smoke, http_smoke
from buildonce.delivery.target import Manifest, Target
from buildonce.ledger import Rollout
from buildonce.release import Release

_NEVER = timedelta(0)


@dataclass(frozen=True)
class Reached:
    """An environment that a wave has reached: all its traffic is on the new release.

    Attributes:
        environment, url: which, and where it answers.
        rollout: id of the rollout.
        brought_by: of the one that started what runs there: an earlier one where nothing changed.
        changed: whether anything did.
    """

    environment: EnvironmentConfig
    url: str
    rollout: str
    brought_by: str
    changed: bool


AfterWave = Callable[[Sequence[Reached]], Awaitable[None]]
"""Tests of a wave, before its bake; raising brings all environments back."""


@dataclass
class Promotion:
    """One under way.

    Args:
        release: what.
        waves: where, wave by wave.
        options: how.
        smoke: the smoke test of each environment; None asks its `smoke_path`.
        traffic: the steps; None for those that each environment is configured with.
        bake: how long to watch after each wave but the last.
        after_wave: tests of each wave.
        manifests: by environment, where a release goes back as it was.
        id: in the ledger; None for a deployment to one environment, which is a rollout only.
        resumed: it is in the ledger already.
        adopted: by environment, the rollouts of a killed process that are continued.
    """

    release: Release
    waves: Sequence[Sequence[EnvironmentConfig]]
    options: Options
    smoke: Smoke | None = None
    traffic: Sequence[Shift] | None = None
    bake: timedelta = _NEVER
    after_wave: AfterWave | None = None
    manifests: Mapping[str, Manifest] = field(default_factory=dict)
    id: str | None = None
    resumed: bool = False
    adopted: Mapping[str, Rollout] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._decision = Decision()
        self._turns = anyio.Semaphore(self.options.concurrency)
        self._milestones: dict[str, Milestones] = {}
        self._rollouts: list[EnvironmentRollout] = []

    async def run(self) -> list[Rollout]:
        """All of it; the rollouts as the ledger has them, in the order of the waves.

        Raises:
            RolledBack, RollbackFailed, …: as `deploy`.
        """
        clock = self.options.clock
        began = clock.monotonic()
        if self.id is not None and not self.resumed:
            names = [[place.name for place in wave] for wave in self.waves]
            await self._append(
                "promotion.started",
                version=self.release.version,
                revision=self.release.revision,
                digest=self.release.image.digest,
                waves=names,
                reason=self.options.reason,
                bake=self.bake.total_seconds(),
                concurrency=self.options.concurrency,
                tests=self.options.tests,
            )
        try:
            async with anyio.create_task_group() as group:
                try:
                    await self._through(group)
                except BaseException as error:
                    self._decision.undo(first_failure(error))
                    raise
        except BaseException as error:
            found = first_failure(error)
            failure = self._failure(found)
            with anyio.CancelScope(shield=True):
                await self._ended(failure, clock.monotonic() - began)
            if isinstance(found, Exception):
                raise failure from error
            if isinstance(error, BaseExceptionGroup):
                raise found from None
            raise
        await self._ended(None, clock.monotonic() - began)
        rollouts = [await self.options.ledger.rollout(m.rollout or "") for m in self._reached]
        return [one for one in rollouts if one is not None]

    @property
    def _reached(self) -> list[Milestones]:
        return list(self._milestones.values())

    async def _through(self, group: anyio.abc.TaskGroup) -> None:
        for number, wave in enumerate(self.waves, 1):
            members = {place.name: Milestones() for place in wave}
            self._milestones |= members
            if len(self.waves) > 1:
                self.options.progress(f"wave {number} of {len(self.waves)}: {', '.join(members)}")
                await self._step("wave", number=number, state="started")
            for place in wave:
                group.start_soon(self._one, place, number, members[place.name])
            for member in members.values():
                await member.shifted.wait()
            if self.after_wave is not None:
                await self.after_wave(
                    [
                        Reached(
                            environment=place,
                            url=member.url,
                            rollout=member.rollout or "",
                            brought_by=member.brought_by,
                            changed=member.changed,
                        )
                        for place, member in zip(wave, members.values(), strict=True)
                    ]
                )
                await self._step("wave", number=number, state="tested")
            for member in members.values():
                member.tested.set()
            for member in members.values():
                await member.baked.wait()
            changed = any(member.changed for member in members.values())
            if self.bake and changed and number < len(self.waves):
                await self._bake_between(number)
        await self._decision.commit(self._record_proven)

    async def _bake_between(self, number: int) -> None:
        wait = Wait(
            self.options.clock,
            self.options.progress,
            f"the time between wave {number} and {number + 1}, all alarms watched",
            self.bake,
        )
        await self._step("bake", wave=number, seconds=self.bake.total_seconds(), state="started")
        while await wait.sleep(30.0):
            pass
        await self._step("bake", wave=number, seconds=self.bake.total_seconds(), state="done")

    async def _record_proven(self) -> None:
        await self._step("proven")
        if self.id is None:
            for rollout in self._rollouts:
                if rollout.milestones.changed:
                    await rollout.record_proven()

    async def _one(self, place: EnvironmentConfig, wave: int, milestones: Milestones) -> None:
        options, adopted = self.options, self.adopted.get(place.name)
        try:
            async with self._turns:
                target = await options.open(place)
            manifest = self.manifests.get(place.name)
            if adopted is None:
                await pass_gates(self.release, place, target, manifest, options)
            leases = options.leases_of(place)
            async with leases.hold(
                place.name, run=options.run, wait=options.wait, say=options.progress
            ) as lease:
                target.fence = lease.token
                rollout = await self._rollout(
                    place, wave, target, lease, milestones, manifest, adopted
                )
                await rollout.run()
        except BaseException as error:
            found = first_failure(error)
            self._decision.undo(found, place.name)
            if milestones.failure is None and isinstance(found, Exception):
                milestones.failure = found
            raise

    async def _rollout(
        self,
        place: EnvironmentConfig,
        wave: int,
        target: Target,
        lease: Lease,
        milestones: Milestones,
        manifest: Manifest | None,
        adopted: Rollout | None,
    ) -> EnvironmentRollout:
        options = self.options
        if adopted is None:
            async with self._turns:
                await recover(target, place, ledger=options.ledger, progress=options.progress)
        digest = self.release.image.digest
        steps = self.traffic
        if adopted is not None and adopted.plan.get("steps"):
            steps = [Shift(p, timedelta(seconds=s)) for p, s in adopted.plan["steps"]]
        watches = (
            [] if options.reason == "rollback" else withdrawal_watch(self.release, place, options)
        )
        rollout = EnvironmentRollout(
            self.release,
            place,
            target,
            lease,
            options,
            traffic=checked(steps if steps is not None else planned(place.rollout)),
            smoke=self.smoke or http_smoke(place.smoke_path, digest=digest),
            decision=self._decision,
            turns=self._turns,
            milestones=milestones,
            watches=watches,
            manifest=manifest,
            promotion=self.id,
            wave=wave if self.id is not None else None,
            adopted=adopted,
        )
        self._rollouts.append(rollout)
        return rollout

    def _failure(self, error: BaseException) -> Exception:
        """The one error to raise for what became of all environments."""
        failures = {n: m.failure for n, m in self._milestones.items() if m.failure is not None}
        back = {n: f for n, f in failures.items() if isinstance(f, RolledBack)}
        worse = [f for n, f in failures.items() if n not in back and self._rollouts_began(n)]
        if worse:
            return worse[0]
        if len(back) == 1 and len(self._milestones) == 1:
            return next(iter(back.values()))
        if back:
            root = self._decision.cause or error
            where = f"{self._decision.where}: " if self._decision.where else ""
            versions = {failure.restored for failure in back.values()}
            first = next(iter(back.values()))
            return RolledBack(
                ", ".join(back),
                f"{where}{describe(root)}",
                restored=", ".join(sorted(v for v in versions if v)) or None,
                remedy=first.remedy,
                unclear=any(f.exit_code != RolledBack.exit_code for f in back.values()),
            )
        root = self._decision.cause or error
        return root if isinstance(root, Exception) else RuntimeError(describe(root))

    def _rollouts_began(self, name: str) -> bool:
        return self._milestones[name].rollout is not None

    async def _ended(self, failure: Exception | None, seconds: float) -> None:
        """Recorded, unless something is left for `resume`."""
        if self.id is None or not (failure is None or self._all_back()):
            return
        await self._append(
            "promotion.finished",
            result="succeeded" if failure is None else "rolled-back",
            seconds=max(0.0, seconds),
            cause=describe(failure) if failure is not None else None,
        )

    def _all_back(self) -> bool:
        began = [m for m in self._reached if m.rollout is not None]
        return self._decision.state == "undo" and all(
            isinstance(m.failure, RolledBack) or not m.changed for m in began
        )

    async def _step(self, step: str, **data: Any) -> None:
        if self.id is not None:
            await self._append("promotion.step", step=step, data=data)

    async def _append(self, kind: str, **data: Any) -> None:
        await self.options.ledger.append(
            kind, run=self.options.run, data={"promotion": self.id, **data}
        )
