"""Deploying: to one environment, or to waves of them.

rollout = await deploy(release, staging, project="dashboard", ledger=ledger, run=run)
await promote(release, [[pilot], [eu, us]], project=…, ledger=ledger, run=run, bake=minutes(10))
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from buildonce.config import EnvironmentConfig
from buildonce.delivery.options import Options, Progress, Reason, quiet
from buildonce.delivery.plan import Shift, checked
from buildonce.delivery.promotion import AfterWave, Promotion
from buildonce.delivery.smoke import Smoke
from buildonce.delivery.target import Manifest, Target
from buildonce.ledger import Rollout, new_run_id
from buildonce.release import Release

_NONE = timedelta(0)


async def deploy(
    release: Release,
    environment: EnvironmentConfig,
    *,
    project: str,
    ledger: Any,
    run: str,
    smoke: Smoke | None = None,
    progress: Progress = quiet,
    target: Target | None = None,
    traffic: Sequence[Shift] | None = None,
    reason: Reason = "deploy",
    manifest: Manifest | None = None,
    after_wave: AfterWave | None = None,
    home: Path | None = None,
    **options: Any,
) -> Rollout:
    """Bring the release into the environment, or leave the environment as it was.

    Args:
        release: what is deployed, by its digest.
        environment: where.
        project, ledger, run, progress, home: as in `Options`.
        smoke: gets the environment's URL once all traffic is on the new release, and raises
            `SmokeFailed` (or anything else) to have it rolled back; None asks `smoke_path`.
        target: the environment's place; None makes the one that its configuration names.
        traffic: the steps in which traffic moves, the last one of 100 percent; None for those that
            the environment is configured with.
        reason: a rollback needs no approval and heeds no window.
        manifest: of an earlier deployment, to be configured as that was.
        after_wave: tests, once all traffic is on the new release and before the bake.
        options: more of `Options`: clock, verify, approvers, actor, awaiting, wait, leases.

    Returns:
        The rollout as the ledger has it; its last step is "unchanged" when there was nothing to do.

    Raises:
        RolledBack: it failed, and what ran before answers again.
        RollbackFailed: it failed, and so did putting back what ran before.
        NotFinished: it is proven and serves; `buildonce resume` ends it.
        EnvironmentBusy: another process deploys to it. LeaseLost: one does so by now.
        ApprovalRefused, WindowClosed: it may not, or not now. Nothing was changed.
    """
    if traffic is not None:
        checked(traffic)

    async def given(_: EnvironmentConfig) -> Target:
        assert target is not None
        return target

    promotion = Promotion(
        release,
        [[environment]],
        Options(
            project=project,
            ledger=ledger,
            run=run,
            progress=progress,
            reason=reason,
            home=home,
            target=given if target is not None else None,
            **options,
        ),
        smoke=smoke,
        traffic=traffic,
        after_wave=after_wave,
        manifests={environment.name: manifest} if manifest is not None else {},
    )
    (rollout,) = await promotion.run()
    return rollout


async def promote(
    release: Release,
    waves: Sequence[Sequence[EnvironmentConfig]],
    *,
    bake: timedelta = _NONE,
    smoke: Smoke | None = None,
    after_wave: AfterWave | None = None,
    **options: Any,
) -> list[Rollout]:
    """As `deliver`, with the parts of its `Options` as keyword arguments."""
    how = Options(**options)
    return await deliver(release, waves, how, bake=bake, smoke=smoke, after_wave=after_wave)


async def deliver(
    release: Release,
    waves: Sequence[Sequence[EnvironmentConfig]],
    options: Options,
    *,
    bake: timedelta = _NONE,
    smoke: Smoke | None = None,
    after_wave: AfterWave | None = None,
) -> list[Rollout]:
    """Bring the release into all these environments, wave by wave, or leave all as they were.

    Args:
        release: what is deployed, by its digest.
        waves: environments; those of a wave side by side, each with its own approval and windows.
        options: how.
        bake: how long to watch after each wave but the last, before the next.
        smoke, after_wave: as for `deploy`, for each environment, each wave.

    Returns:
        The rollouts, in the order of the waves.

    Raises:
        As `deploy`; `RolledBack` names all environments that went back.
    """
    several = sum(len(wave) for wave in waves) > 1
    promotion = Promotion(
        release,
        waves,
        options,
        smoke=smoke,
        bake=bake,
        after_wave=after_wave,
        id=new_run_id() if several else None,
    )
    return await promotion.run()
