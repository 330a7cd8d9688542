"""Whether a release is still good: signed statuses on its digest, added and never taken away.

    standing = standing_of(verified, environment="production")
    standing.withdrawals          # those that count there and that nothing lifts
    standing.removed              # statuses that others mention and that are gone

A status never replaces another. A withdrawal counts until a reinstatement lifts it by name, so the
order in which a registry lists them does not matter and no older reinstatement can be shown again
for a newer withdrawal. Each status names all that were there when it was written: whoever takes one
away leaves its name behind in every later one. Only the newest can go unnoticed by a reader who has
never seen it; `status_max_age` of a policy says for how long (docs/policy.md, "Withdrawal").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from buildonce import predicates
from buildonce.release.evidence import Attestation, Verified
from buildonce.release.policy_predicates import Status, Unreadable, read


@dataclass(frozen=True)
class Said:
    """A status and the digest that it goes by."""

    digest: str
    status: Status

    def counts_in(self, environment: str) -> bool:
        """Whether it says something about that environment."""
        return self.status.environments is None or environment in self.status.environments


@dataclass(frozen=True)
class Standing:
    """What the statuses of a release come to in an environment.

    Args:
        withdrawals: those in force, oldest first.
        removed: digests of statuses that were there once and are no longer.
        unreadable: why a status cannot be understood, for each such.
        good_at: when a rescan last found it good for this environment.
        all: every status that could be read.
    """

    withdrawals: tuple[Said, ...]
    removed: frozenset[str]
    unreadable: tuple[str, ...]
    good_at: datetime | None
    all: tuple[Said, ...]


def standing_of(
    verified: Verified, *, environment: str, remembered: Iterable[str] = ()
) -> Standing:
    """Read the statuses.

    Args:
        verified: the release's verified evidence.
        environment: where the release wants to go.
        remembered: digests of statuses that were seen on an earlier day.
    """
    said, unreadable = read_statuses(verified.of_type(predicates.STATUS))
    present = {item.digest for item in said} | {
        item.digest for item in verified.of_type(predicates.STATUS)
    }
    mentioned = {digest for item in said for digest in (*item.status.seen, *item.status.lifts)}
    lifted = {
        digest for item in said if item.status.state == "reinstated" for digest in item.status.lifts
    }
    here = [item for item in said if item.counts_in(environment)]
    return Standing(
        withdrawals=tuple(
            item for item in here if item.status.state == "withdrawn" and item.digest not in lifted
        ),
        removed=frozenset((mentioned | set(remembered)) - present),
        unreadable=tuple(unreadable),
        good_at=max((i.status.at for i in here if i.status.state == "good"), default=None),
        all=tuple(said),
    )


def in_force(verified: Verified) -> tuple[Said, ...]:
    """Every withdrawal that nothing lifts, wherever it counts."""
    said, _ = read_statuses(verified.of_type(predicates.STATUS))
    lifted = {d for item in said if item.status.state == "reinstated" for d in item.status.lifts}
    return tuple(
        item for item in said if item.status.state == "withdrawn" and item.digest not in lifted
    )


def read_statuses(attestations: Sequence[Attestation]) -> tuple[list[Said], list[str]]:
    """The statuses, oldest first, and why each of the others cannot be understood."""
    said: list[Said] = []
    unreadable: list[str] = []
    for attestation in attestations:
        try:
            said.append(Said(attestation.digest, read(Status, attestation)))
        except Unreadable as error:
            unreadable.append(f"the status {attestation.digest[:19]} cannot be understood: {error}")
    said.sort(key=lambda item: (item.status.at, item.digest))
    return said, unreadable
