"""Matching the attested SBOMs of a release with the advisories of today.

    result = await rescan(release, database=open_database(…), desk=desk, by="ann")
    result.withdrawn                 # what an advisory now keeps the release out of, and why

Only SBOMs whose signature the environment trusts are read; nothing is built or pulled. Where an
advisory breaks an environment's policy that had let the release in, the release is withdrawn there.
Where none does, and the policy wants to hear so from time to time, that is attested as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from buildonce import predicates
from buildonce.advisories import Database
from buildonce.advisories import Vulnerability as Match
from buildonce.advisories.matching import SUPPORTED, find, grouped
from buildonce.advisories.packages import packages_of
from buildonce.config import Config
from buildonce.config.policies import VulnerabilityRule
from buildonce.release.evidence import Verified, read_evidence
from buildonce.release.models import Release
from buildonce.release.policy_check import remember_statuses, trust_of
from buildonce.release.policy_predicates import Advisory, Status, Vulnerability
from buildonce.release.policy_status import standing_of
from buildonce.release.policy_withdrawal import Desk, withdraw, write
from buildonce.severity import Severity

_CHECK = "sca"  # whose waivers count


@dataclass(frozen=True)
class Verdict:
    """What a rescan says of a release in an environment.

    Args:
        environment: where.
        state: withdrawn (just now), still-withdrawn, good, or unknown.
        why: one sentence.
        advisories: what breaks the policy there.
    """

    environment: str
    state: str
    why: str
    advisories: tuple[Advisory, ...] = ()


@dataclass(frozen=True)
class Rescan:
    """What a rescan says of a release."""

    release: Release
    verdicts: tuple[Verdict, ...]

    @property
    def good(self) -> bool:
        """Whether no environment keeps it out, and none could not be judged."""
        return all(verdict.state == "good" for verdict in self.verdicts)

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "version": self.release.version,
            "digest": self.release.image.digest,
            "good": self.good,
            "environments": [
                {
                    "environment": item.environment,
                    "state": item.state,
                    "why": item.why,
                    "advisories": [one.model_dump(mode="json") for one in item.advisories],
                }
                for item in self.verdicts
            ],
        }


async def rescan(
    release: Release,
    *,
    database: Database,
    desk: Desk,
    by: str,
    environments: Iterable[str] | None = None,
    now: datetime | None = None,
) -> Rescan:
    """Match a release's SBOMs with a database, and withdraw it where its policy is now broken.

    Args:
        release: which; its image's repository is read.
        database: checked, as `open_database` gives it.
        desk: what statuses are written with.
        by: who asks.
        environments: only for these; None: all whose policy speaks of vulnerabilities.
        now: the day by which waivers end; None: now.

    Raises:
        EvidenceUnavailable: the registry did not give a whole answer.
        BadDatabase: the database has nothing about the packages.
        BuildonceError: a status cannot be written.
    """
    now = now or datetime.now(UTC)
    config = desk.config
    verdicts: list[Verdict] = []
    broken: dict[tuple[Advisory, ...], list[str]] = {}
    hopeful: list[str] = []
    for name in environments or config.environments:
        _, policy = config.policy(name)
        if policy is None or policy.vulnerabilities is None:
            continue
        verified = await read_evidence(
            release.image, trust_of(policy, config), registry=desk.registry
        )
        await remember_statuses(release, verified, ledger=desk.ledger, run=desk.run)
        standing = standing_of(verified, environment=name)
        matched = match(verified, database, config, now.date())
        if isinstance(matched, str):
            verdicts.append(Verdict(name, "unknown", matched))
            continue
        rule = policy.vulnerabilities
        bad = tuple(_advisory(item, rule) for item in matched if item.breaks(rule, now.date()))
        known = {one.id for said in standing.withdrawals for one in said.status.advisories}
        told = "; ".join(map(str, bad[:5])) + (f"; and {len(bad) - 5} more" if bad[5:] else "")
        if new := tuple(one for one in bad if one.id not in known):
            broken.setdefault(new, []).append(name)
            verdicts.append(Verdict(name, "withdrawn", told, bad))
        elif standing.withdrawals:
            why = told or "; ".join(said.status.reason for said in standing.withdrawals)
            verdicts.append(Verdict(name, "still-withdrawn", why, bad))
        else:
            verdicts.append(Verdict(name, "good", f"nothing at or above {rule.fail_on}"))
            limit = policy.status_max_age
            # Half the time: the next rescan may be late. Each one is kept for ever.
            if limit and (standing.good_at is None or now - standing.good_at > limit / 2):
                hopeful.append(name)
    for advisories, names in broken.items():
        await withdraw(
            release,
            reason="advisories that became known after it was released",
            by=by,
            desk=desk,
            environments=names,
            advisories=advisories,
            database=database.newest,
            sample=database.sample,
            now=now,
        )
    if hopeful:
        await write(release, _good(hopeful, by, database, now), desk=desk)
    return Rescan(release, tuple(verdicts))


def match(
    verified: Verified, database: Database, config: Config, today: date
) -> list[Vulnerability] | str:
    """What the database knows about the attested SBOMs; or why nothing can be said."""
    boms = [item.predicate for item in verified.newest() if item.type == predicates.CYCLONEDX]
    if not boms:
        return "no SBOM that is trusted there lies beside the image"
    wanted = config.checks.get(_CHECK, {}).get("ecosystems") or (
        # A sample is about nearly nothing: what it lacks says nothing either way.
        list(database.ecosystems) if database.sample else list(SUPPORTED)
    )
    packages = {
        package for bom in boms for package in packages_of(bom).packages
        if package.database in wanted
    }  # fmt: skip
    if not packages:
        return f"its SBOMs have no package of {', '.join(wanted)}"
    waivers = [
        waiver
        for waiver in config.waivers
        if waiver.check == _CHECK and waiver.path is None and waiver.expires >= today
    ]
    found: dict[tuple[str, str, str], Vulnerability] = {}
    for hit in grouped(find(sorted(packages), database)):
        waiver = next((one for one in waivers if one.id in hit.records), None)
        waived = {"reason": waiver.reason, "expires": waiver.expires} if waiver else None
        item = _as_evidence(hit, waived)
        found[hit.id, hit.package.name, hit.package.version] = item
    return list(found.values())


def _as_evidence(hit: Match, waived: Mapping[str, Any] | None) -> Vulnerability:
    """A match in the form that the scan's own evidence has, so that one rule judges both."""
    return Vulnerability.model_validate(
        {
            "id": hit.id,
            "severity": [] if hit.score is None else [{"method": "CVSS", "score": hit.score}],
            "annotations": {
                "package": hit.package.name,
                "version": hit.package.version,
                "fixed": hit.fixed,
                "severity": hit.severity,
                "waived": waived,
            },
        }
    )


def _advisory(item: Vulnerability, rule: VulnerabilityRule) -> Advisory:
    unscored: Severity = rule.fail_on if rule.unscored == "fail" else rule.unscored
    return Advisory(
        id=item.id,
        package=item.annotations.package,
        version=item.annotations.version,
        severity=item.worst or unscored,
        fixed=item.annotations.fixed,
    )


def _good(environments: Sequence[str], by: str, database: Database, now: datetime) -> Status:
    return Status(
        state="good",
        at=now,
        by=by,
        reason="no advisory breaks the policy",
        environments=tuple(environments),
        advisories=(),
        database=database.newest,
        sample=database.sample,
        lifts=(),
        seen=(),
    )
