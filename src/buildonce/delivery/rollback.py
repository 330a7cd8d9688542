"""Going back: to the last good release other than the current one, by one command.

rollout = await rollback(production, project="dashboard", ledger=ledger, run=run)
"""

from __future__ import annotations

from typing import Any

from buildonce.config import EnvironmentConfig
from buildonce.delivery.errors import UnknownRelease
from buildonce.delivery.rollout import deploy
from buildonce.ledger import Ledger, Rollout
from buildonce.release import Release


async def rollback(
    environment: EnvironmentConfig, *, project: str, ledger: Ledger, run: str, **options: Any
) -> Rollout:
    """Deploy the last good release again; needs no approval, and is recorded as a rollback.

    Args:
        environment, project, ledger, run: as for `deploy`.
        options: those of `deploy` (target, progress, smoke, wait, …).

    Raises:
        UnknownRelease: no earlier release succeeded there.
        RolledBack, RollbackFailed, EnvironmentBusy: as `deploy`.
    """
    release = await previous_good(environment.name, ledger=ledger)
    return await deploy(
        release,
        environment,
        project=project,
        ledger=ledger,
        run=run,
        reason="rollback",
        **options,
    )


async def previous_good(environment: str, *, ledger: Ledger) -> Release:
    """The release that a rollback goes to: the newest that succeeded there, other than the current.

    A release that was rolled back from is not good until it is deployed with success again, so
    rolling back twice goes two releases back, and not forth.

    Raises:
        UnknownRelease: there is none, or the ledger has no record of it.
    """
    current = await ledger.current(environment)
    bad: set[str] = {current.digest} if current else set()
    for rollout in await ledger.rollouts(environment, limit=500):  # newest first
        if not rollout.succeeded:
            continue
        if rollout.digest not in bad:
            return await known_release(rollout.digest, ledger=ledger)
        if rollout.reason == "rollback" and rollout.previous_digest is not None:
            bad.add(rollout.previous_digest)
    raise UnknownRelease(
        f"there is no earlier good release of {environment} to go back to",
        remedy=f"buildonce history {environment}; then "
        f"buildonce deploy {environment} --release VERSION",
    )


async def known_release(name: str | None, *, ledger: Ledger) -> Release:
    """The release of that version or digest; with None, the newest.

    Raises:
        UnknownRelease: the ledger has none.
    """
    if name is None:
        found = next(iter(await ledger.releases(limit=1)), None)
    else:
        found = await ledger.release(name)
    if found is None:
        raise UnknownRelease(
            f"the ledger knows no release {name!r}" if name else "the ledger has no release yet",
            remedy="buildonce history shows what there is" if name else "make pipeline",
        )
    return Release.from_json(dict(found))
