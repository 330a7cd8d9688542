"""Going back: to the last good release other than the current one, by one command.

rollout = await rollback(production, project="dashboard", ledger=ledger, run=run)

It goes back with the whole release: the image and the configuration that it was given then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from buildonce.config import EnvironmentConfig
from buildonce.delivery.deploying import deploy
from buildonce.delivery.errors import UnknownRelease
from buildonce.delivery.naming import known_release
from buildonce.delivery.plan import ALL_AT_ONCE
from buildonce.delivery.target import Manifest
from buildonce.ledger import Ledger, Rollout
from buildonce.release import Release


@dataclass(frozen=True)
class Good:
    """A release that did well.

    Attributes:
        release: it.
        manifest: by which its target can bring it back as it was; None where that was not recorded.
    """

    release: Release
    manifest: Manifest | None


async def rollback(
    environment: EnvironmentConfig, *, project: str, ledger: Ledger, run: str, **options: Any
) -> Rollout:
    """Deploy the last good release again, as it was, all at once.

    It needs no approval, heeds no window, skips steps and bakes, and is recorded as a rollback.

    Args:
        environment, project, ledger, run: as for `deploy`.
        options: those of `deploy` (target, progress, smoke, wait, …).

    Raises:
        UnknownRelease: no earlier release succeeded there.
        RolledBack, RollbackFailed, EnvironmentBusy: as `deploy`.
    """
    good = await previous_good(environment.name, ledger=ledger)
    if good.manifest is None and "progress" in options:
        options["progress"](
            f"{environment.name}: how {good.release.version} was configured is not recorded; it "
            "gets the present configuration"
        )
    return await deploy(
        good.release,
        environment,
        project=project,
        ledger=ledger,
        run=run,
        reason="rollback",
        manifest=good.manifest,
        traffic=ALL_AT_ONCE,
        **options,
    )


async def previous_good(environment: str, *, ledger: Ledger) -> Good:
    """What a rollback goes to: the newest that succeeded there, other than the current.

    Another configuration of the same image is another one. What was rolled back from is not good
    until it is deployed with success again, so rolling back twice goes two back, and not forth.

    Raises:
        UnknownRelease: there is none, or the ledger has no record of it.
    """
    current = await ledger.current(environment)
    bad: list[tuple[str, Manifest | None]] = []
    if current is not None:
        bad.append((current.digest, current.manifest))
    rollouts = [r for r in await ledger.rollouts(environment, limit=500) if r.succeeded]
    for number, rollout in enumerate(rollouts):  # newest first
        if not any(_same((rollout.digest, rollout.manifest), other) for other in bad):
            release = await known_release(rollout.version, ledger=ledger)
            if release.image.digest != rollout.digest:
                release = await known_release(rollout.digest, ledger=ledger)
            return Good(release, rollout.manifest)
        if rollout.reason == "rollback" and rollout.previous_digest is not None:
            before = next(iter(rollouts[number + 1 :]), None)
            known = before is not None and before.digest == rollout.previous_digest
            bad.append((rollout.previous_digest, before.manifest if before and known else None))
    raise UnknownRelease(
        f"there is no earlier good release of {environment} to go back to",
        remedy=f"buildonce history {environment}; then "
        f"buildonce deploy {environment} --release VERSION",
    )


def _same(one: tuple[str, Manifest | None], other: tuple[str, Manifest | None]) -> bool:
    if one[0] != other[0]:
        return False
    return one[1] is None or other[1] is None or one[1] == other[1]
