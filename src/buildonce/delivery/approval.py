"""Approvals: a person's word that this digest may enter that environment, kept in the ledger.

    await decide(release, "production", given=True, actor="ann", ledger=ledger, run=run)
    await wait_for_approval(release, production, ledger=ledger, say=print)

An approval is of a digest and an environment, so it survives the pipeline that waits for it, and
says nothing about the next digest. Of several words on the same pair the newest counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio

from buildonce.config import EnvironmentConfig
from buildonce.delivery.errors import ApprovalRefused
from buildonce.ledger import Event, Ledger
from buildonce.release import Release

_LOOK_AGAIN = 1.0  # seconds
_REMIND = 60.0

_KINDS = ("approval.given", "approval.refused")


async def decide(
    release: Release,
    environment: str,
    *,
    given: bool,
    actor: str,
    ledger: Ledger,
    run: str,
    reason: str | None = None,
) -> Event:
    """Record that `actor` approves (or, with `given` false, refuses) the release there."""
    data: dict[str, Any] = {
        "environment": environment,
        "actor": actor,
        "version": release.version,
        "digest": release.image.digest,
        "reason": reason,
    }
    return await ledger.append(
        "approval.given" if given else "approval.refused", run=run, data=data
    )


async def wait_for_approval(
    release: Release,
    environment: EnvironmentConfig,
    *,
    ledger: Ledger,
    say: Callable[[str], None],
) -> Event:
    """Wait until somebody decides; returns the approval. The caller's time budget ends the wait.

    Raises:
        ApprovalRefused: somebody refused.
    """
    began = anyio.current_time()
    reminded: float | None = None
    command = f"buildonce approve {environment.name} --release {release.version}"
    while True:
        if (decision := await _decision(release, environment.name, ledger)) is not None:
            break
        now = anyio.current_time()
        if reminded is None or now - reminded >= _REMIND:
            waited = f" for {now - began:.0f} s" if reminded is not None else ""
            say(
                f"{environment.name}: waiting{waited} for the approval of {release.version} "
                f"({release.image.short}); give it with `{command}`, or `buildonce reject …`"
            )
            reminded = now
        await anyio.sleep(_LOOK_AGAIN)
    actor, reason = decision.data["actor"], decision.data.get("reason")
    because = f": {reason}" if reason else ""
    if decision.kind == "approval.refused":
        raise ApprovalRefused(
            f"{actor} refused {release.version} for {environment.name}{because}",
            remedy=f"{command}  # to decide otherwise",
        )
    say(f"{environment.name}: {actor} approved {release.version}{because}")
    return decision


async def _decision(release: Release, environment: str, ledger: Ledger) -> Event | None:
    for event in reversed(await ledger.events(kinds=_KINDS)):
        data = event.data
        if data["environment"] == environment and data.get("digest") == release.image.digest:
            return event
    return None
