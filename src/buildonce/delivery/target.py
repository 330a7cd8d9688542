"""What a rollout needs of the place that it deploys to: one interface for every kind of target.

A target is about one environment. It keeps what it knows where it survives this process (labels, a
proxy, an account), so that after a crash another process asks `pending()` and goes on from there.
Every method may be called again after it was interrupted: doing it twice is as doing it once.

    candidate = await target.prepare(release, rollout=id, step=step)   # runs, gets no traffic
    await target.shift(candidate, 100)                                 # traffic
    await target.finish(candidate)                                     # or: restore(candidate, why)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Protocol

from buildonce.delivery.watch import Watch
from buildonce.release import Release

Manifest = Mapping[str, Any]
"""JSON by which a target can bring back just what it ran: the configuration as it was then, a task
definition, a function's version. It is kept in the ledger, so secrets are in it by reference only.
The target alone reads it; two are of the same configuration when they are equal."""

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
        manifest: by which it can be brought back; empty where the target has none.
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
    manifest: Manifest = field(default_factory=dict)

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
        url: where this candidate alone answers, with traffic or without; None where nowhere.
        manifest: as in `Deployed`.
    """

    id: str
    rollout: str
    release: Release
    percent: int = 0
    url: str | None = None
    manifest: Manifest = field(default_factory=dict)


@dataclass(frozen=True)
class Counts:
    """Answers to users' requests, by the balancer's own counters.

    Attributes:
        new, old: given by the candidate, and by what ran before it.
        failed: how many of all were of status 5xx, also those that nobody but the balancer gave.
    """

    new: int
    old: int
    failed: int

    def since(self, before: Counts) -> Counts:
        """Only those after an earlier count; all, where a new balancer began at zero meanwhile."""
        less = (self.new - before.new, self.old - before.old, self.failed - before.failed)
        return self if min(less) < 0 else Counts(*less)

    def to_json(self) -> dict[str, Any]:
        """The counts, and the candidate's share of the answers in percent (None of none)."""
        total = self.new + self.old
        share = round(100 * self.new / total, 2) if total else None
        return {**asdict(self), "share": share}


class Target(Protocol):
    """One environment's place. Failures are raised as `DeliveryError`.

    Attributes:
        fence: token of the lease under which it is written to, set by the rollout; 0 for none. A
            target that can, refuses to write with a smaller one than the last it saw (`LeaseLost`).
        native: the platform moves the traffic in steps by itself (ECS): the one `shift(…, 100)`
            begins that, returns when it is done, and may be cancelled.
    """

    fence: int
    native: bool

    @property
    def back_within(self) -> float:
        """Seconds in which `restore` must be done; nothing interrupts it before."""

    async def url(self) -> str:
        """Where the environment answers its users."""

    def fingerprint(self, release: Release, manifest: Manifest | None = None) -> str:
        """What `Deployed.fingerprint` is once this release runs here, configured as `prepare`."""

    async def current(self) -> Deployed | None:
        """What serves now; None when nothing was ever deployed. Changes nothing."""

    async def pending(self) -> Candidate | None:
        """The candidate that an interrupted rollout left behind. Changes nothing."""

    async def repair(self, say: Callable[[str], None]) -> None:
        """Make `current` answer again where it is dead (a reboot), and remove what is nobody's."""

    async def prepare(
        self, release: Release, *, rollout: str, step: Step, manifest: Manifest | None = None
    ) -> Candidate:
        """Fetch it by digest, start it, wait until it is healthy; it gets no traffic yet.

        Args:
            manifest: of an earlier deployment, to be configured as that was (a rollback goes back
                with the whole release); None means as the environment is configured now.

        Raises:
            ManifestLost: what the manifest refers to is gone.
        """

    def watches(self, candidate: Candidate) -> Sequence[Watch]:
        """What to watch while the candidate is being proven, as the environment is configured.

        Asked for before the first shift, and again by whoever continues the rollout after a crash.
        """

    async def counts(self, candidate: Candidate) -> Counts | None:
        """Answers so far; None where the target does not count them."""

    async def shift(self, candidate: Candidate, percent: int) -> None:
        """Give the candidate this share of the traffic and the previous one the rest."""

    async def finish(self, candidate: Candidate) -> None:
        """The candidate is the current one from now on; retire the previous one."""

    async def restore(self, candidate: Candidate, why: str) -> None:
        """Give all traffic back to the previous one and remove the candidate."""

    async def down(self) -> None:
        """Remove the environment wholly."""
