"""After a crash: what a killed process left is brought to an end, forward or back.

    await recover(target, staging, ledger=ledger)      # back, unless it was proven; holds the lease

A rollout that was proven stays, any other gives way to what ran before. Doing so twice, or being
killed while doing so, changes nothing of that.
"""

from __future__ import annotations

from datetime import UTC, datetime

from buildonce.config import EnvironmentConfig
from buildonce.delivery.options import Progress, quiet
from buildonce.delivery.target import Target
from buildonce.ledger import Ledger, Rollout


async def recover(
    target: Target, environment: EnvironmentConfig, *, ledger: Ledger, progress: Progress = quiet
) -> list[str]:
    """Bring what killed processes left unfinished to an end, and what has died back to life.

    The caller holds the environment's lease, so whoever began these rollouts is gone. A candidate
    that was proven stays; any other gives way to what ran before.

    Returns:
        The ids of the rollouts that it finished.
    """
    unfinished = [r for r in await ledger.rollouts(environment.name) if r.result is None]
    pending = await target.pending()
    if pending is not None:
        mine = next((r for r in unfinished if r.id == pending.rollout), None)
        version = pending.release.version
        if mine is not None and pending.percent == 100 and await proven(mine, ledger):
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


async def proven(rollout: Rollout, ledger: Ledger) -> bool:
    """Whether the rollout is only to be brought to its end: it, or all of its promotion."""
    if rollout.passed("proven"):
        return True
    if rollout.promotion is None:
        return False
    promotions = await ledger.promotions(limit=None)
    return any(one.proven for one in promotions if one.id == rollout.promotion)
