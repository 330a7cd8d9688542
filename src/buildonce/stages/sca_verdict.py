"""From vulnerabilities to findings and evidence: pure, so that every rule of it is tested."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from buildonce.advisories import Database, SbomPackage, Vulnerability
from buildonce.severity import Severity, at_least
from buildonce.stages.check import count
from buildonce.stages.finding import Finding, fingerprint
from buildonce.stages.waivers import Waived

Unscored = Severity | Literal["fail"]


@dataclass(frozen=True)
class Rules:
    """What makes a vulnerability fail the check.

    Args:
        fail_on: at this severity or above.
        unscored: what one without any score counts as; "fail": as `fail_on`.
        unfixed: whether one that no version mends fails too, or is only noted.
    """

    fail_on: Severity = "high"
    unscored: Unscored = "fail"
    unfixed: Literal["fail", "note"] = "fail"


@dataclass(frozen=True)
class Affected:
    """A vulnerability of one package, under all the names that it is installed by."""

    vulnerability: Vulnerability
    installed: tuple[str, ...]
    finding: Finding
    fails: bool


def judged(found: Iterable[Vulnerability], rules: Rules) -> list[Affected]:
    """Each vulnerability with its finding; binary packages of one source are one."""
    by_source: dict[tuple[str, str, str, str], list[Vulnerability]] = {}
    for vulnerability in found:
        package = vulnerability.package
        key = (vulnerability.id, package.ecosystem, package.name, package.version)
        by_source.setdefault(key, []).append(vulnerability)
    return [_affected(same, rules) for same in by_source.values()]


def _affected(same: Sequence[Vulnerability], rules: Rules) -> Affected:
    first = same[0]
    package = first.package
    installed = tuple(sorted({entry.package.installed for entry in same}))
    severity = _severity(first, rules)
    fails = at_least(severity, rules.fail_on) and (bool(first.fixed) or rules.unfixed == "fail")
    mended = f"fixed in {' or '.join(first.fixed)}" if first.fixed else "no version mends it yet"
    score = f"CVSS {first.score:g}" if first.score is not None else "no score"
    known = first.severity if first.severity != "unknown" else f"counted as {severity}"
    others = f" (also {', '.join(first.aliases)})" if first.aliases else ""
    finding = Finding(
        id=first.id,
        message=f"{_named(package, installed)}: {first.title} [{score}, {known}; {mended}]{others}",
        severity=severity,
        aliases=first.aliases,
        fingerprint=fingerprint(package.name, first.id, package.ecosystem),
        remedy=_remedy(first, installed),
    )
    return Affected(first, installed, finding, fails)


def _severity(found: Vulnerability, rules: Rules) -> Severity:
    if found.severity != "unknown":
        return found.severity
    return rules.fail_on if rules.unscored == "fail" else rules.unscored


def _named(package: SbomPackage, installed: Sequence[str]) -> str:
    if package.ecosystem == "PyPI":
        return f"{package.name} {package.version}"
    names = ", ".join(installed[:4]) + (" …" if len(installed) > 4 else "")
    return f"{package.name} {package.version} ({package.ecosystem}: {names})"


def _remedy(found: Vulnerability, installed: Sequence[str]) -> str:
    if not found.fixed:
        return f"do without {', '.join(installed)}, or waive {found.id} with a reason and a date"
    if found.package.ecosystem == "PyPI":
        return f"ask for {found.package.name}>={found.fixed[0]}, and lock again"
    return f"build on a base image that has {found.package.name} {found.fixed[0]}"


def below(affected: Sequence[Affected], rules: Rules) -> list[str]:
    """A note on what was found and does not fail."""
    quiet = [entry for entry in affected if not entry.fails]
    unfixed = [entry for entry in quiet if at_least(entry.finding.severity, rules.fail_on)]
    low = [entry for entry in quiet if entry not in unfixed]
    notes = []
    if low:
        notes.append(f"{len(low)} below {rules.fail_on}: {_list(low)}")
    if unfixed:
        notes.append(f"{len(unfixed)} that no version mends yet: {_list(unfixed)}")
    return notes


def _list(affected: Sequence[Affected]) -> str:
    shown = [f"{e.vulnerability.id} ({e.vulnerability.package.name})" for e in affected[:8]]
    return ", ".join(shown) + (" …" if len(affected) > 8 else "")


def summary(packages: int, failing: int, waived: int, rules: Rules, database: Database) -> str:
    """ "157 packages, nothing at or above high, against advisories of 2026-11-20 (…)"."""
    number = count(failing, "vulnerability").replace("vulnerabilitys", "vulnerabilities")
    found = number if failing else "nothing"
    accepted = f", {waived} waived" if waived else ""
    return (
        f"{count(packages, 'package')}, {found} at or above {rules.fail_on}{accepted}, "
        f"against {database}"
    )


def predicate(
    affected: Sequence[Affected],
    waived: Sequence[Waived],
    database: Database,
    *,
    version: str,
    ran_at: datetime,
) -> dict[str, Any]:
    """The scan as https://in-toto.io/attestation/vulns/v0.1 has it.

    All that was found is in it, also what is below the threshold or waived: a policy decides anew.
    """
    reasons = {entry.finding.fingerprint: entry.waiver for entry in waived}
    results = []
    for entry in affected:
        found = entry.vulnerability
        waiver = reasons.get(entry.finding.fingerprint)
        severity: list[dict[str, str]] = [{"method": "severity", "score": found.severity}]
        if found.score is not None:
            method = found.vector_type or "CVSS"
            severity.insert(0, {"method": method, "score": f"{found.score:.1f}"})
        annotations: Mapping[str, Any] = {
            "package": found.package.name,
            "ecosystem": found.package.ecosystem,
            "version": found.package.version,
            "installed": list(entry.installed),
            "aliases": list(found.aliases),
            "severity": found.severity,
            "fixed": list(found.fixed),
            "waived": {"reason": waiver.reason, "expires": waiver.expires.isoformat()}
            if waiver
            else None,
        }
        results.append({"id": found.id, "severity": severity, "annotations": annotations})
    moment = ran_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "scanner": {
            "uri": "pkg:golang/github.com/google/osv-scanner/v2",
            "version": version,
            "db": {
                "uri": database.source,
                "version": database.digest,
                "lastUpdate": database.newest.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "sample": database.sample,
            },
            "result": results,
        },
        "metadata": {"scanStartedOn": moment, "scanFinishedOn": moment},
    }
