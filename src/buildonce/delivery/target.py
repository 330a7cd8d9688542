"""What a rollout needs of the place that it deploys to: one interface for every kind of target.

A target is about one environment. It keeps what it knows where it survives this process (labels, a
proxy, an account), so that after a crash another process asks `pending()` and goes on from there.
Every method may be called again after it was interrupted: doing it twice is as doing it once.

    candidate = await target.prepare(release, rollout=id, step=step)   # runs, gets no traffic
    await target.shift(candidate, 100)                                 # traffic
    await target.finish(candidate)                                     # or: restore(candidate, why)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Protocol

from buildonce.release import Release

Step = Callable[..., AbstractAsyncContextManager[dict[str, Any]]]
"""`async with step("pull", reference=...) as data:` records a step before and after; what is put
into `data` is recorded with its end."""


@asynccontextmanager
async def unrecorded(name: str, **data: Any) -> AsyncIterator[dict[str, Any]]:
    """A `Step` that records nothing."""
    yield data


@dataclass(frozen=True)
class Deployed:
    """What an environment runs, as its target sees it.

    Attributes:
        version, revision, digest: of the release.
        started: when it was started there (UTC).
        url: where the environment answers.
        fingerprint: digest of all that it was started with; equal means "nothing to do".
        rollout: id of the rollout that brought it.
        healthy: whether it answers its health check through the environment's URL now.
        detail: why it is not healthy; empty when it is.
    """

    version: str
    revision: str
    digest: str
    started: datetime
    url: str
    fingerprint: str
    rollout: str
    healthy: bool
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """The attributes as JSON values; `started` in ISO 8601."""
        return {**asdict(self), "started": self.started.isoformat()}


@dataclass(frozen=True)
class Candidate:
    """A release that was started beside the one that serves.

    Attributes:
        id: the target's own name of it (a slot, a task set, a version).
        rollout: id of the rollout that it belongs to.
        release: what it runs.
        percent: share of the traffic that it was last given, 0 to 100.
    """

    id: str
    rollout: str
    release: Release
    percent: int = 0


class Target(Protocol):
    """One environment's place. Failures are raised as `DeliveryError`."""

    def fingerprint(self, release: Release) -> str:
        """What `Deployed.fingerprint` is once this release runs here as configured now."""

    async def current(self) -> Deployed | None:
        """What serves now; None when nothing was ever deployed. Changes nothing."""

    async def pending(self) -> Candidate | None:
        """The candidate that an interrupted rollout left behind. Changes nothing."""

    async def repair(self, say: Callable[[str], None]) -> None:
        """Make `current` answer again where it is dead (a reboot), and remove what is nobody's."""

    async def prepare(self, release: Release, *, rollout: str, step: Step) -> Candidate:
        """Fetch it by digest, start it, wait until it is healthy; it gets no traffic yet."""

    async def shift(self, candidate: Candidate, percent: int) -> None:
        """Give the candidate this share of the traffic and the previous one the rest."""

    async def finish(self, candidate: Candidate) -> None:
        """The candidate is the current one from now on; retire the previous one."""

    async def restore(self, candidate: Candidate, why: str) -> None:
        """Give all traffic back to the previous one and remove the candidate."""

    async def down(self) -> None:
        """Remove the environment wholly."""
