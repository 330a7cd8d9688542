"""Which advisories are about which packages: pure, so that a release is judged without a container.

    for found in vulnerabilities(sbom, database):
        print(found.id, found.package.installed, found.severity, found.fixed)

The pipeline's own check asks osv-scanner too; this is also for an SBOM that was attested long ago,
and for a machine without it. It finds what osv-scanner 2.2.4 finds, and what that passes over:
records with a Git range before the range of versions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from packaging.version import InvalidVersion, Version

from buildonce.advisories.database import Database
from buildonce.advisories.debian_version import debian_key
from buildonce.advisories.packages import SbomPackage, SbomUnreadable, normal_name, packages_of
from buildonce.advisories.record import Advisory, Affected, Range
from buildonce.advisories.scores import Rated, score_of
from buildonce.errors import BuildonceError
from buildonce.severity import Severity, rank

Key = Callable[[str], Any]

_KEYS: Mapping[str, Key] = {"PyPI": Version, "Debian": debian_key, "Ubuntu": debian_key}
SUPPORTED = tuple(_KEYS)
"""Ecosystems whose versions can be compared here; osv-scanner knows more."""

_NUMBERED = ("CVE-", "GHSA-", "PYSEC-", "DEBIAN-CVE-")


class NotComparable(BuildonceError):
    """There are packages whose versions only osv-scanner can compare."""


@dataclass(frozen=True)
class Vulnerability:
    """A flaw that a package has.

    Args:
        id: the name most people know it by: the CVE's where there is one.
        aliases: its other names, sorted.
        package: what has it.
        severity: "unknown" when no source says.
        score: the highest CVSS base score; None when there is none.
        vector: the CVSS vector of that score.
        vector_type: "CVSS_V2", "CVSS_V3" or "CVSS_V4".
        fixed: versions that do not have it any more, for this package, oldest first.
        title: one line about it.
    """

    id: str
    aliases: tuple[str, ...]
    package: SbomPackage
    severity: Rated
    score: float | None
    vector: str | None
    vector_type: str | None
    fixed: tuple[str, ...]
    title: str

    @property
    def records(self) -> tuple[str, ...]:
        """Every name it has, the id first."""
        return (self.id, *self.aliases)


def vulnerabilities(
    sbom: str | bytes | Mapping[str, Any], database: Database
) -> tuple[Vulnerability, ...]:
    """What the database knows about the packages of an SBOM.

    Args:
        sbom: a CycloneDX document, JSON or parsed.
        database: as `Database.open` or `open_database` return it, which is to say: checked.

    Returns:
        Worst first. One for each flaw and package, also where several records tell of it.

    Raises:
        SbomUnreadable: it is no SBOM.
        NoAdvisories: the database has none for an ecosystem that the SBOM has packages of.
        NotComparable: an ecosystem's versions cannot be compared here.
    """
    if not isinstance(sbom, Mapping):
        try:
            sbom = json.loads(sbom)
        except (ValueError, RecursionError):
            raise SbomUnreadable("the SBOM is not JSON", remedy="write it anew") from None
        if not isinstance(sbom, Mapping):
            raise SbomUnreadable("the SBOM is no JSON object", remedy="write it anew")
    return grouped(find(packages_of(sbom).packages, database))


def find(packages: Iterable[SbomPackage], database: Database) -> list[tuple[SbomPackage, Advisory]]:
    """Each record that is about one of these packages, ungrouped; raises as `vulnerabilities`."""
    by_name: dict[str, dict[str, list[SbomPackage]]] = {}
    for package in packages:
        by_name.setdefault(package.database, {}).setdefault(package.name, []).append(package)
    database.require(by_name)
    for name in by_name:
        if name not in _KEYS:
            raise NotComparable(
                f"versions of {name} cannot be compared without osv-scanner",
                remedy="look at the `sca` evidence of the release, or run the pipeline's sca again",
            )
    hits: list[tuple[SbomPackage, Advisory]] = []
    for ecosystem, wanted in by_name.items():
        for advisory in database.about(ecosystem, wanted.keys()):
            names = {entry.package.name for entry in advisory.affected if entry.package}
            for name in {normal_name(ecosystem, name) for name in names} & wanted.keys():
                for package in wanted[name]:
                    if affects(advisory, package):
                        hits.append((package, advisory))
    return hits


def affects(advisory: Advisory, package: SbomPackage) -> bool:
    """Whether the package has the flaw, by OSV's own algorithm."""
    if advisory.withdrawn is not None:
        return False
    return any(_covers(affected, package) for affected in entries_for(advisory, package))


def entries_for(advisory: Advisory, package: SbomPackage) -> Iterator[Affected]:
    """The parts of an advisory that are about a package, of the same release."""
    for affected in advisory.affected:
        about = affected.package
        if (
            about is not None
            and about.ecosystem in (package.ecosystem, package.database)
            and normal_name(package.database, about.name) == package.name
        ):
            yield affected


def _covers(affected: Affected, package: SbomPackage) -> bool:
    if package.version in affected.versions:
        return True
    key = _KEYS[package.database]
    try:
        version = key(package.version)
    except (InvalidVersion, ValueError):
        # It cannot be placed between others. To say "not affected" would be a guess.
        return any(_usable(entry) for entry in affected.ranges)
    if package.database == "PyPI" and version in _listed(affected.versions):
        return True
    return any(_usable(entry) and _within(version, entry, key) for entry in affected.ranges)


def _listed(versions: Iterable[str]) -> set[Version]:
    """The listed versions, so that "1.0" is found as "1.0.0" too."""
    listed = set()
    for text in versions:
        try:
            listed.add(Version(text))
        except InvalidVersion:
            continue
    return listed


def _usable(entry: Range) -> bool:
    return entry.type in ("ECOSYSTEM", "SEMVER")


def _within(version: Any, entry: Range, key: Key) -> bool:
    """Whether a version is between the events of a range that begin and end the flaw."""
    events: list[tuple[Any, str]] = []
    affected_from_start = False
    for event in entry.events:
        for kind, text in event.items():
            if kind == "introduced" and text == "0":
                affected_from_start = True
                continue
            if kind not in ("introduced", "fixed", "last_affected", "limit"):
                continue
            try:
                events.append((key(text), kind))
            except (InvalidVersion, ValueError):
                if kind == "introduced":
                    affected_from_start = True  # unreadable: taken as early as can be
    inside = affected_from_start
    for bound, kind in sorted(events, key=lambda event: event[0]):
        if kind == "introduced" and version >= bound:
            inside = True
        elif (kind in ("fixed", "limit") and version >= bound) or (
            kind == "last_affected" and version > bound
        ):
            inside = False
    return inside


def fixed_in(advisory: Advisory, package: SbomPackage) -> list[str]:
    """Versions that mend it and come after the installed one."""
    key = _KEYS.get(package.database)
    found: dict[str, Any] = {}
    for affected in entries_for(advisory, package):
        for entry in filter(_usable, affected.ranges):
            for text in (event["fixed"] for event in entry.events if "fixed" in event):
                try:
                    if key is None or key(text) > key(package.version):
                        found[text] = key(text) if key else text
                except (InvalidVersion, ValueError):
                    found[text] = key("0") if key else text
    return sorted(found, key=lambda text: found[text])


def grouped(hits: Iterable[tuple[SbomPackage, Advisory]]) -> tuple[Vulnerability, ...]:
    """One vulnerability for all records that tell of the same flaw in the same package."""
    by_package: dict[SbomPackage, list[Advisory]] = {}
    for package, advisory in hits:
        by_package.setdefault(package, []).append(advisory)
    found = [
        _vulnerability(package, same)
        for package, advisories in by_package.items()
        for same in _same_flaw(advisories)
    ]
    return tuple(sorted(found, key=_worst_first))


def _worst_first(found: Vulnerability) -> tuple[Any, ...]:
    # Unknown ones before all: somebody has to look.
    badness = 99 if found.severity == "unknown" else rank(found.severity)
    return (-badness, -(found.score or 0), found.package, found.id)


def _same_flaw(advisories: list[Advisory]) -> list[list[Advisory]]:
    """Records that share a name, directly or through a third one."""
    groups: list[tuple[set[str], list[Advisory]]] = []
    for advisory in {advisory.id: advisory for advisory in advisories}.values():
        names, members = set(advisory.names), [advisory]
        for group in [group for group in groups if group[0] & names]:
            names |= group[0]
            members += group[1]
            groups.remove(group)
        groups.append((names, members))
    return [members for _, members in groups]


def _vulnerability(package: SbomPackage, advisories: list[Advisory]) -> Vulnerability:
    advisories = sorted(advisories, key=lambda advisory: advisory.id)
    names = {name for advisory in advisories for name in advisory.names}
    own = {advisory.id for advisory in advisories}
    name = min(names, key=lambda name: (_popularity(name), name not in own, name))
    rated = [
        (rating_score, rating)
        for advisory in advisories
        for rating in advisory.vectors
        if (rating_score := score_of(rating.score)) is not None
    ]
    worst = max(rated, key=lambda pair: pair[0], default=None)
    severities: list[Rated] = [
        advisory.severity_for(affected)
        for advisory in advisories
        for affected in entries_for(advisory, package)
    ]
    known: list[Severity] = [severity for severity in severities if severity != "unknown"]
    severity = sorted(known, key=rank)[-1] if known else None
    fixed = {text: None for advisory in advisories for text in fixed_in(advisory, package)}
    return Vulnerability(
        id=name,
        aliases=tuple(sorted(names - {name})),
        package=package,
        severity="unknown" if severity is None else severity,
        score=worst[0] if worst else None,
        vector=worst[1].score if worst else None,
        vector_type=worst[1].type if worst else None,
        fixed=tuple(fixed),
        title=advisories[0].title,
    )


def _popularity(name: str) -> int:
    return next((i for i, prefix in enumerate(_NUMBERED) if name.startswith(prefix)), 9)
