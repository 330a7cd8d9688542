"""The state of each environment, and what sets staging apart from production.

The dashboard reaches no environment but its own, each has a network of its own; health is therefore
what the last rollout left behind, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from buildonce.dashboard.formatting import as_time
from buildonce.ledger import Ledger, Release, Rollout

_ORDER = ("development", "staging", "pilot", "production")


@dataclass(frozen=True)
class Health:
    """`state` is serving, rolling-out, restored, failing, unknown or empty; `words` explain it."""

    state: str
    words: str


@dataclass(frozen=True)
class Environment:
    """What runs in one environment.

    Attributes:
        current: the rollout that brought it; None before the first success.
        latest: the newest rollout, whatever became of it.
        release: the release record of `current`; None when the ledger has none.
        here: whether this dashboard runs there.
        mismatch: the digest this dashboard was started as, when the ledger says another one.
    """

    name: str
    current: Rollout | None
    latest: Rollout | None
    release: Release | None
    health: Health
    here: bool
    mismatch: str | None


@dataclass(frozen=True)
class Difference:
    """One line of the comparison of two environments."""

    what: str
    left: str
    right: str

    @property
    def same(self) -> bool:
        return self.left == self.right


@dataclass(frozen=True)
class Comparison:
    """Two environments side by side; `ahead` are the releases that `right` has yet to see."""

    left: str
    right: str
    differences: tuple[Difference, ...]
    ahead: tuple[Release, ...]

    @property
    def same(self) -> bool:
        return all(difference.same for difference in self.differences)


async def environments(ledger: Ledger, *, here: str = "", digest: str = "") -> list[Environment]:
    """All environments the ledger knows, in the order a release passes through them."""
    names = await ledger.environments()
    if here and here not in names:
        names.append(here)
    names.sort(key=lambda name: (_ORDER.index(name) if name in _ORDER else 0, name))
    return [await _environment(ledger, name, here, digest) for name in names]


async def compare(
    ledger: Ledger, known: Sequence[Environment], left: str = "staging", right: str = "production"
) -> Comparison | None:
    """What sets two environments apart; None unless something runs in both."""
    by_name = {environment.name: environment for environment in known}
    one, other = by_name.get(left), by_name.get(right)
    if one is None or other is None or one.current is None or other.current is None:
        return None
    a, b = one.current, other.current
    differences = [
        Difference("version", a.version, b.version),
        Difference("revision", a.revision, b.revision),
        Difference("image", a.digest, b.digest),
    ]
    ahead: tuple[Release, ...] = ()
    if one.release and other.release:
        differences.append(
            Difference(
                "configuration", one.release["configuration"], other.release["configuration"]
            )
        )
        if a.digest != b.digest:
            ahead = _between(await ledger.releases(limit=500), other.release, one.release)
    return Comparison(left, right, tuple(differences), ahead)


async def _environment(ledger: Ledger, name: str, here: str, digest: str) -> Environment:
    current = await ledger.current(name)
    latest = next(iter(await ledger.rollouts(name, limit=1)), None)
    is_here = bool(here) and name == here
    return Environment(
        name=name,
        current=current,
        latest=latest,
        release=await _release(ledger, current) if current else None,
        health=_health(current, latest),
        here=is_here,
        mismatch=digest if is_here and current and digest not in ("", current.digest) else None,
    )


async def _release(ledger: Ledger, rollout: Rollout) -> Release | None:
    # Two commits may give the same image: the version tells which of them was rolled out.
    by_version = await ledger.release(rollout.version)
    return by_version or await ledger.release(rollout.digest)


def _health(current: Rollout | None, latest: Rollout | None) -> Health:
    if latest is None:
        return Health("empty", "nothing was ever deployed here")
    match latest.state:
        case "succeeded":
            return Health("serving", "the last rollout succeeded")
        case "running":
            return Health("rolling-out", f"{latest.version} is being rolled out")
        case "unfinished":
            return Health("unknown", f"the rollout of {latest.version} never ended")
    if latest.running_digest is None:
        return Health("failing", f"the rollout of {latest.version} left nothing running")
    if current is not None and latest.running_digest == current.digest:
        return Health("restored", f"{latest.version} was taken back, the previous release serves")
    return Health("unknown", f"{latest.version} failed and something unrecorded serves")


def _between(releases: Sequence[Release], older: Release, newer: Release) -> tuple[Release, ...]:
    after, until = as_time(older["created"]), as_time(newer["created"])
    assert after is not None and until is not None
    found = []
    for release in releases:
        created = as_time(release["created"])
        if created is not None and after < created <= until:
            found.append(release)
    return tuple(found)
