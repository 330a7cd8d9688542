"""What a release must pass before an environment is touched: evidence, windows, people."""

from __future__ import annotations

from buildonce.config import EnvironmentConfig
from buildonce.delivery.approval import wait_for_approval
from buildonce.delivery.errors import WindowClosed
from buildonce.delivery.options import Options
from buildonce.delivery.target import Manifest, Target
from buildonce.delivery.windows import closed
from buildonce.release import Release


async def pass_gates(
    release: Release,
    place: EnvironmentConfig,
    target: Target,
    manifest: Manifest | None,
    options: Options,
) -> None:
    """Return once the release may enter.

    Neither windows nor people stop a rollback, or what runs there already.

    Raises:
        PolicyDenied: its evidence does not suffice.
        WindowClosed: it may not be deployed to now.
        ApprovalRefused: somebody refused it.
    """
    if options.verify is not None:
        await options.verify(release, place)
    if options.reason == "rollback":
        return
    if await _runs_there(release, target, manifest):
        return
    check_window(place, options)
    if place.approval is None:
        return
    if await wait_for_approval(release, place, options=options):
        # Time has passed: what was true before it may be so no more.
        check_window(place, options)
        if options.verify is not None:
            await options.verify(release, place)


def check_window(place: EnvironmentConfig, options: Options) -> None:
    """Raise WindowClosed where the environment's windows do not allow a deployment now."""
    closure = closed(place.windows, options.clock.now())
    if closure is not None:
        raise WindowClosed(
            f"{place.name} is not deployed to now: {closure}",
            remedy=f"try again then; buildonce rollback {place.name} is possible at any time",
        )


async def _runs_there(release: Release, target: Target, manifest: Manifest | None) -> bool:
    current = await target.current()
    return (
        current is not None
        and current.healthy
        and current.fingerprint == target.fingerprint(release, manifest)
    )
