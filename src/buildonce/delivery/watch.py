"""A watch: something that is looked at again and again while a release is being proven.

    verdict = await watch.look()        # Verdict("breach", "errors: 7.1 % of 140 requests, …", 140)

A watch judges the candidate since the watch was made. One "breach" takes the traffic back, so a
watch that wants several in a row, or M of N, says "inconclusive" until it has them. What becomes of
a verdict that stays inconclusive is the rollout's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

Judgement = Literal["ok", "breach", "inconclusive"]


@dataclass(frozen=True)
class Verdict:
    """What a watch sees.

    Attributes:
        state: "breach" is bad news; "inconclusive" is no news: a metric that is missing, cannot be
            read, or rests on fewer samples than wanted. No news is neither good nor bad.
        why: one sentence with the figures, for people and for the ledger.
        samples: how many samples it rests on; None where they are not counted (an alarm's state).
    """

    state: Judgement
    why: str
    samples: int | None = None


class Watch(Protocol):
    """One alarm, one metric with a threshold, …; made by `Target.watches` for one candidate."""

    @property
    def name(self) -> str:
        """Unique in the environment; what messages call it."""

    async def look(self) -> Verdict:
        """Look once. Raising says that it could not be seen: that is inconclusive."""
