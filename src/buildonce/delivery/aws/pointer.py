"""Which release serves and which one is on trial, written where it survives us: in tags.

All of it is on one resource and written by one call, so that it changes as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from buildonce.delivery.lease import LeaseLost

_NOBODY = "none"


@dataclass(frozen=True)
class Entry:
    """One of the two.

    Attributes:
        id: the target's own name of what runs it: a slot, a task definition, a version.
        detail: more of that, where one name is not enough; no spaces.
        rollout: that brought it.
        since: when it was written.
    """

    id: str
    rollout: str
    since: datetime
    detail: str = "-"

    def to_text(self) -> str:
        return f"{self.id} {self.detail} {self.rollout} {self.since.isoformat(timespec='seconds')}"

    @classmethod
    def from_text(cls, text: str) -> Entry | None:
        if not text or text == _NOBODY:
            return None
        name, detail, rollout, since = text.split(" ")
        return cls(name, rollout, datetime.fromisoformat(since), detail)


@dataclass(frozen=True)
class Pointer:
    """What an environment's tags say.

    Attributes:
        active: serves when no rollout goes on.
        candidate: is being proven.
        fence: the greatest lease token that wrote here.
    """

    active: Entry | None = None
    candidate: Entry | None = None
    fence: int = 0

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Pointer:
        """Read our tags, by their names without prefix."""
        return cls(
            Entry.from_text(tags.get("active", "")),
            Entry.from_text(tags.get("candidate", "")),
            int(tags.get("fence", "0")),
        )

    def to_tags(self) -> dict[str, str]:
        return {
            "buildonce:active": self.active.to_text() if self.active else _NOBODY,
            "buildonce:candidate": self.candidate.to_text() if self.candidate else _NOBODY,
            "buildonce:fence": str(self.fence),
        }

    def fenced(self, fence: int, environment: str) -> Pointer:
        """The same, to be written under this lease.

        Raises:
            LeaseLost: a later lease has written already.
        """
        if fence and fence < self.fence:
            raise LeaseLost(
                f"{environment}: another deployment (lease {self.fence}) has taken over since this "
                f"one began (lease {fence}); nothing more was changed",
                remedy=f"buildonce status; buildonce resume {environment}",
            )
        return replace(self, fence=max(fence, self.fence))

    def finished(self) -> Pointer:
        """The candidate is the active one."""
        return replace(self, active=self.candidate or self.active, candidate=None)

    def without_candidate(self) -> Pointer:
        return replace(self, candidate=None)
