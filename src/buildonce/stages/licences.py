"""Licences of what was built, by SPDX rules.

check = await licences([python_sbom], also=[image_sbom], deny=["AGPL-*"], unknown="fail")
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import dagger

from buildonce.advisories import SbomUnreadable
from buildonce.advisories.packages import walk_components
from buildonce.predicates import LICENCES
from buildonce.stages.check import Check, count, latest
from buildonce.stages.evidence import Evidence, json_file, text_file
from buildonce.stages.finding import Finding, fingerprint
from buildonce.stages.licences_policy import LicenceRules, Verdict, declared
from buildonce.stages.sarif import write_sarif
from buildonce.stages.sca import read_sboms
from buildonce.stages.waivers import Waiver, apply_waivers

ALLOWED: Final = (
    *("0BSD", "Apache-2.0", "BlueOak-1.0.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0"),
    *("CC0-1.0", "CNRI-Python", "HPND", "ISC", "MIT", "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0"),
    *("PostgreSQL", "Python-2.0", "UPL-1.0", "Unlicense", "W3C", "Zlib", "ZPL-2.1"),
)
"""Licences that ask for little; the default of `allow`."""

DENIED: Final = ("AGPL-*", "BUSL-*", "CC-BY-NC-*", "Elastic-2.0", "SSPL-1.0")
"""Licences that reach over the network, or are not for every use; the default of `deny`."""


@dataclass(frozen=True)
class Licensed:
    """A component and what is said of its licence."""

    name: str
    version: str
    purl: str
    licences: tuple[str, ...]
    verdict: Verdict
    strict: bool

    @property
    def id(self) -> str:
        """Its package URL without version and qualifiers: what a waiver names."""
        return self.purl.partition("?")[0].rpartition("@")[0] or self.purl

    @property
    def said(self) -> str:
        """ "MIT AND GPL-3.0-only", or "no licence"."""
        return " AND ".join(self.licences) or "no licence"


async def licences(
    sboms: Sequence[Check | dagger.File],
    *,
    also: Sequence[Check | dagger.File] = (),
    allow: Sequence[str] = ALLOWED,
    deny: Sequence[str] = DENIED,
    unknown: Literal["fail", "warn"] = "fail",
    waivers: Sequence[Waiver] = (),
) -> Check:
    """Judge the licence of each component.

    Args:
        sboms: SBOMs whose every component must have an allowed licence; usually sbom_python's.
        also: SBOMs in which only denied licences count, usually sbom_image's: the licences of an
            operating system's packages are as many as their files'.
        allow: SPDX identifiers, `*` for anything; empty: all of SPDX but the denied.
        deny: SPDX identifiers; they win over `allow`.
        unknown: what a component comes to whose licence is in neither list, not readable, or not
            there: "fail", or "warn" for a note.
        waivers: accepted components, by package URL without version ("pkg:pypi/name").

    Returns:
        Failures named by package URL. Reports: licences.sarif, licences.json.

    Raises:
        SbomUnreadable: an SBOM is none.

    Example:
        check = await licences([python], also=[image], deny=["AGPL-*", "GPL-3.0-*"])
    """
    rules = LicenceRules(tuple(allow), tuple(deny))
    components = judged(await read_sboms(sboms), rules, strict=True)
    if also:
        known = {component.id for component in components}
        system = judged(await read_sboms(also), rules, strict=False)
        components += [component for component in system if component.id not in known]
    failing = [finding for finding in map(_finding, components) if finding is not None]
    denied = [finding for finding in failing if finding.severity == "high"]
    vague = [finding for finding in failing if finding.severity == "medium"]
    after = apply_waivers("licences", failing if unknown == "fail" else denied, waivers)
    notes = list(after.notes)
    if unknown == "warn" and vague:
        notes.append(f"{len(vague)} unknown: {', '.join(finding.id for finding in vague[:8])}")
    waived = {entry.finding.id for entry in after.waived}
    passed = not after.findings and not after.expired
    document = {
        "result": "PASSED" if passed else "FAILED",
        "denied": _entries(components, Verdict.DENIED, waived),
        "unknown": _entries(components, Verdict.UNKNOWN, waived),
        "waived": [
            {
                "package": entry.finding.id,
                "reason": entry.waiver.reason,
                "expires": entry.waiver.expires.isoformat(),
            }
            for entry in after.waived
        ],
        "allowed": _entries(components, Verdict.ALLOWED, set()),
        "policy": {"allow": list(allow), "deny": list(deny), "unknown": unknown},
    }
    shown = [*after.findings, *(vague if unknown == "warn" else ())]
    sarif = write_sarif("licences", "buildonce", "", shown, waived=after.waived)
    report = json_file("licences.json", document)
    return Check(
        name="licences",
        passed=passed,
        summary=_summary(components, len(after.findings), len(after.waived)),
        failures=(*after.findings, *after.expired),
        reports={"licences.sarif": text_file("licences.sarif", sarif), "licences.json": report},
        ran_at=latest(*(sbom.ran_at for sbom in (*sboms, *also) if isinstance(sbom, Check))),
        evidence=(Evidence(LICENCES, report, "licences"),),
        waived=after.waived,
        notes=tuple(notes),
    )


def judged(
    documents: Iterable[Mapping[str, Any]], rules: LicenceRules, *, strict: bool
) -> list[Licensed]:
    """Each component once, by name; of two that say different things, the one that says something.

    Args:
        strict: whether an unknown licence of these counts.
    """
    found: dict[str, Licensed] = {}
    for document in documents:
        components = document.get("components")
        if document.get("bomFormat") != "CycloneDX" or not isinstance(components, list):
            raise SbomUnreadable("the SBOM is no CycloneDX document with components")
        for component in walk_components(components):
            purl = component.get("purl")
            if not isinstance(purl, str):
                continue
            stated = tuple(declared(component))
            verdicts = [rules.verdict(text) for text in stated]
            one = Licensed(
                name=str(component.get("name", "")),
                version=str(component.get("version", "")),
                purl=purl,
                licences=stated,
                verdict=min(verdicts, default=Verdict.UNKNOWN),
                strict=strict,
            )
            before = found.get(one.id)
            if (
                before is None
                or (one.licences and not before.licences)
                or (one.licences and one.verdict < before.verdict)
            ):
                found[one.id] = one
    return [found[name] for name in sorted(found)]


def _finding(component: Licensed) -> Finding | None:
    if component.verdict is Verdict.ALLOWED:
        return None
    if component.verdict is Verdict.UNKNOWN and not component.strict:
        return None
    denied = component.verdict is Verdict.DENIED
    cause = "is denied" if denied else "is neither allowed nor denied"
    if not component.licences:
        cause = "is declared"
    return Finding(
        id=component.id,
        message=f"{component.name} {component.version}: {component.said} {cause}",
        severity="high" if denied else "medium",
        fingerprint=fingerprint(component.id, "licence", component.said),
        remedy="do without it; or add its licence under [checks.licences], or waive it by its name",
    )


def _entries(
    components: Iterable[Licensed], verdict: Verdict, left_out: set[str]
) -> list[dict[str, str]]:
    return [
        {"package": one.id, "version": one.version, "licence": one.said}
        for one in components
        if one.verdict is verdict and one.id not in left_out and (one.strict or verdict == 0)
    ]


def _summary(components: Sequence[Licensed], failing: int, waived: int) -> str:
    looked = sum(component.strict for component in components)
    others = len(components) - looked
    more = f", {others} more for denied ones" if others else ""
    accepted = f", {waived} waived" if waived else ""
    found = f"{failing} not acceptable" if failing else "all acceptable"
    return f"licences of {count(looked, 'package')}{more}: {found}{accepted}"
