"""A release with all its evidence, as a pipeline leaves it, and ways to spoil it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from buildonce import predicates
from buildonce.config.policies import (
    FindingsRule,
    PolicyConfig,
    ProvenanceRule,
    VulnerabilityRule,
)
from buildonce.release import Image, Release
from buildonce.release.envelopes import Statement
from buildonce.release.evidence import Attestation, Signature, Verified
from buildonce.release.models import Listed, Record
from buildonce.release.policy import Decision, Dossier, evaluate

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
MADE = NOW - timedelta(hours=2)
KEY = "sha256:" + "5" * 64
REVISION = "ab" * 20
IMAGE = Image("registry.test/shop", "sha256:" + "1" * 64)
RELEASE = Release("2026.11.21+gabababa", REVISION, IMAGE, MADE, "sha256:" + "2" * 64)

STRICT = PolicyConfig(
    max_age=timedelta(days=30),
    tests=("unit_tests", "format_and_lint"),
    provenance=ProvenanceRule(
        builder=("https://builder.test/v1",),
        source=("https://git.test/acme/*",),
        branch=("main",),
        clean=True,
    ),
    sbom=("python", "image"),
    vulnerabilities=VulnerabilityRule(fail_on="high", database_max_age=timedelta(days=7)),
    sast=FindingsRule(fail_on="high"),
    secrets=True,
    licences=True,
    verified_in={"staging": timedelta(minutes=10)},
    status_max_age=timedelta(days=1),
)


def digest_of(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def attested(
    type_: str, name: str, predicate: Mapping[str, Any], *, created: datetime | None = MADE
) -> Attestation:
    return Attestation(
        type=type_,
        predicate=predicate,
        subject=IMAGE.digest,
        signed_by=KEY,
        digest=digest_of(f"{type_} {name} {predicate} {created}"),
        name=name,
        created=created,
    )


def test_result(name: str, result: str = "PASSED", *, failed: tuple[str, ...] = ()) -> Attestation:
    predicate = {
        "result": result,
        "configuration": [{"name": name, "annotations": {}}],
        "passedTests": ["test_one"],
        "warnedTests": [],
        "failedTests": list(failed),
    }
    return attested(predicates.TEST_RESULT, name, predicate)


def sbom(kind: str) -> Attestation:
    components = [{"type": "library", "name": "idna", "version": "3.6"}]
    predicate = {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": components}
    return attested(predicates.CYCLONEDX, f"sbom_{kind}", predicate)


def vulnerability(
    name: str,
    score: str | None,
    *,
    waived: str | None = None,
    severity: str | None = None,
    fixed: tuple[str, ...] = ("3.1.3", "4.0"),
) -> dict[str, Any]:
    return {
        "id": name,
        "severity": [{"method": "CVSS_V3", "score": score}] if score else [],
        "annotations": {
            "package": "jinja2",
            "version": "3.1.2",
            "fixed": list(fixed),
            "severity": severity,
            "waived": {"reason": "not reachable", "expires": waived} if waived else None,
        },
    }


def scan(
    *found: dict[str, Any], updated: datetime = NOW - timedelta(days=1), sample: bool = False
) -> Attestation:
    predicate = {
        "scanner": {
            "uri": "https://scanner.test",
            "version": "1",
            "db": {
                "uri": "https://osv.test",
                "version": "7",
                "lastUpdate": updated.isoformat(),
                "sample": sample,
            },
            "result": list(found),
        },
        "metadata": {"scanStartedOn": MADE.isoformat(), "scanFinishedOn": MADE.isoformat()},
    }
    return attested(predicates.VULNERABILITIES, "sca", predicate)


def sarif(name: str, *results: dict[str, Any], ended: bool = True) -> Attestation:
    rules = [
        {"id": "sql", "properties": {"security-severity": "8.8"}},
        {"id": "hash", "properties": {"security-severity": "5.0"}},
    ]
    run = {
        "tool": {"driver": {"name": "semgrep", "rules": rules}},
        "automationDetails": {"id": name},
        "invocations": [{"executionSuccessful": ended}],
        "results": list(results),
    }
    return attested(predicates.SARIF, name, {"version": "2.1.0", "runs": [run]})


def finding(
    rule: str, *, waived: bool = False, by: str = "external", **properties: Any
) -> dict[str, Any]:
    suppressions = {"suppressions": [{"kind": by}]} if waived else {}
    message = {"text": f"{rule} here"}
    return {"ruleId": rule, "message": message, "properties": properties, **suppressions}


def licences(result: str = "PASSED", *denied: str) -> Attestation:
    predicate = {"result": result, "denied": list(denied), "unknown": [], "waived": []}
    return attested(predicates.LICENCES, "licences", predicate)


def provenance(
    *,
    builder: str = "https://builder.test/v1",
    source: str = "git+https://git.test/acme/shop@refs/heads/main",
    commit: str = REVISION,
    dirty: bool | None = False,
) -> Attestation:
    dependency: dict[str, Any] = {"uri": source, "digest": {"gitCommit": commit}}
    if dirty is not None:
        dependency["annotations"] = {"dirty": dirty}
    base = {"uri": "docker://python", "digest": {"sha256": "3" * 64}}
    predicate = {
        "buildDefinition": {
            "buildType": "https://buildonce.test/image",
            "externalParameters": {"target": "image"},
            "resolvedDependencies": [dependency, base],
        },
        "runDetails": {"builder": {"id": builder}, "metadata": {"finishedOn": MADE.isoformat()}},
    }
    return attested(predicates.SLSA_PROVENANCE, "provenance", predicate)


def status(
    state: str,
    *,
    at: datetime = NOW - timedelta(hours=1),
    environments: list[str] | None = None,
    seen: tuple[Attestation, ...] = (),
    lifts: tuple[Attestation, ...] = (),
    advisories: tuple[dict[str, Any], ...] = (),
    **more: Any,
) -> Attestation:
    predicate = {
        "state": state,
        "at": at.isoformat(),
        "by": "ann",
        "reason": "because",
        "environments": environments,
        "advisories": list(advisories),
        "database": None,
        "lifts": [item.digest for item in lifts],
        "seen": [item.digest for item in seen],
        **more,
    }
    return attested(predicates.STATUS, "status", predicate, created=at)


EVIDENCE = (
    test_result("unit_tests"),
    test_result("format_and_lint"),
    provenance(),
    sbom("python"),
    sbom("image"),
    scan(vulnerability("CVE-1", "5.0")),
    sarif("sast", finding("hash")),
    sarif("secrets"),
    licences(),
)


def dossier(*evidence: Attestation, listed: tuple[Attestation, ...] | None = None) -> Dossier:
    """Everything in order, with this evidence, of which the record lists all but the statuses."""
    if listed is None:
        listed = tuple(item for item in evidence if item.type != predicates.STATUS)
    return Dossier(
        verified=Verified(IMAGE, (Signature(KEY),), evidence),
        record=Record(RELEASE, tuple(Listed(i.digest, i.type, i.name) for i in listed)),
        incomplete="",
        ran={"staging": timedelta(hours=1)},
    )


def with_instead(*instead: Attestation) -> Dossier:
    """The good dossier with these in place of those of the same type and name."""
    replaced = {(item.type, item.name) for item in instead}
    kept = [item for item in EVIDENCE if (item.type, item.name) not in replaced]
    return dossier(*kept, *instead)


GOOD = dossier(*EVIDENCE)


def decide(
    what: Dossier,
    policy: PolicyConfig = STRICT,
    *,
    release: Release = RELEASE,
    environment: str = "production",
    now: datetime = NOW,
) -> Decision:
    return evaluate(policy, what, release, environment=environment, now=now, name="strict")


def without_signature(what: Dossier) -> Dossier:
    return replace(what, verified=replace(what.verified, signatures=()))


POLICIES = """
[policies.production]
tests = ["unit_tests", "format_and_lint"]
sbom = ["python", "image"]
secrets = true
licences = true
sast = { fail_on = "high" }
vulnerabilities = { fail_on = "high", allow_sample = true }
provenance = { source = ["https://git.test/team/*"], branch = ["main"], clean = true }
max_age = "7d"

[environments.development]
port = 9001
policy = "none"

[environments.staging]
port = 9002

[environments.production]
port = 9003
policy = "production"
"""


def evidence(now: datetime, component: str = "3.7") -> list[Statement]:
    """What a commit stage leaves, with jinja2 of that version in the image."""
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "components": [
            {
                "type": "library",
                "name": "jinja2",
                "version": component,
                "purl": f"pkg:pypi/jinja2@{component}",
            }
        ],
    }
    items = [
        test_result("unit_tests"),
        test_result("format_and_lint"),
        scan(updated=now - timedelta(days=1), sample=True),
        sarif("sast"),
        sarif("secrets"),
        licences(),
    ]
    found = [Statement(item.type, item.predicate, item.name, now) for item in items]
    return [
        *found,
        Statement(predicates.CYCLONEDX, bom, "sbom_python", now),
        Statement(predicates.CYCLONEDX, bom, "sbom_image", now),
    ]
