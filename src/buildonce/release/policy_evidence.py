"""The rules about evidence: provenance, tests, findings, bills of materials, licences."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from buildonce import predicates
from buildonce.config.policies import VulnerabilityRule
from buildonce.release.evidence import Attestation
from buildonce.release.policy import Case, Line, State
from buildonce.release.policy_judging import (
    AGAIN,
    SKEW,
    LineOf,
    day,
    judged,
    listed,
    refused_of,
    span_of,
)
from buildonce.release.policy_patterns import matches
from buildonce.release.policy_predicates import (
    Database,
    Licences,
    Provenance,
    Sarif,
    Sbom,
    TestResult,
    Unreadable,
    Vulnerabilities,
    read,
)
from buildonce.severity import Severity, at_least


def tests(case: Case) -> Iterator[Line]:
    """The checks that the policy names have passed."""
    wanted = case.policy.tests
    if wanted == "all":
        names = sorted(
            {item.name for item in case.dossier.verified.of_type(predicates.TEST_RESULT)}
        )
        if not names:
            yield Line(
                "tests",
                "missing",
                refused_of(case, predicates.TEST_RESULT) or "there is no test result",
                "at least one test result, and all passed",
                AGAIN,
            )
    else:
        names = list(wanted)
    for name in names:
        yield from judged(
            case,
            f"test {name}",
            "passed",
            predicates.TEST_RESULT,
            name,
            lambda found, line, name=name: _test_result(found, line, name),  # type: ignore[misc]
        )


def _test_result(found: Attestation, line: LineOf, name: str) -> Iterator[Line]:
    result = read(TestResult, found)
    about = result.configuration[0].name
    if about != name:
        raise Unreadable(f"it says that it is of {about!r}")
    if result.result == "PASSED" and not result.failedTests:
        count = len(result.passedTests)
        yield line("passed", f"passed, {count} tests" if count else "passed")
    else:
        failing = result.failedTests or result.warnedTests
        yield line(
            "failed",
            f"{result.result}" + (f": {listed(failing)}" if failing else ""),
            "mend the source and release it anew",
        )


def provenance(case: Case) -> Iterator[Line]:
    """Who built it, and from what."""
    rule = case.policy.provenance
    if rule is None:
        return
    wanted = "; ".join(
        [
            *([f"builder {' or '.join(rule.builder)}"] if rule.builder else []),
            *([f"source {' or '.join(rule.source)}"] if rule.source else []),
            *([f"branch {' or '.join(rule.branch)}"] if rule.branch else []),
            "revision " + case.release.revision[:12],
            *(["no changes beside the commit"] if rule.clean else []),
        ]
    )

    def judge(found: Attestation, line: LineOf) -> Iterator[Line]:
        said = read(Provenance, found)
        source = said.source
        if source is None:
            raise Unreadable("it does not name one source (a dependency with a gitCommit)")
        address, _, branch = source.uri.removeprefix("git+").partition("@")
        branch = branch.removeprefix("refs/heads/")
        builder = said.runDetails.builder.id
        problems = []
        if rule.builder and not matches(builder, rule.builder):
            problems.append(f"the builder is {builder}")
        if rule.source and not (address and matches(address, rule.source)):
            problems.append(f"the source is {address or 'not named'}")
        if rule.branch and not (branch and matches(branch, rule.branch)):
            problems.append(f"the branch is {branch or 'not named'}")
        if source.digest["gitCommit"] != case.release.revision:
            problems.append(f"the revision is {source.digest['gitCommit'][:12]}")
        if rule.clean and source.annotations.get("dirty") is not False:
            dirty = "dirty" in source.annotations
            problems.append(
                "the source had changes beside the commit"
                if dirty
                else "it does not say whether the source had changes beside the commit"
            )
        if rule.clean and ".dirty." in case.release.version:
            problems.append(f"the version is {case.release.version}")
        if problems:
            yield line(
                "failed",
                "; ".join(dict.fromkeys(problems)),
                "release it by the right pipeline, from a commit of the right source",
            )
        else:
            at = f" on {branch}" if branch else ""
            yield line("passed", f"{builder} from {address or case.release.revision[:12]}{at}")

    yield from judged(case, "provenance", wanted, predicates.SLSA_PROVENANCE, None, judge)


def sboms(case: Case) -> Iterator[Line]:
    """There are the bills of materials that the policy names."""

    def judge(found: Attestation, line: LineOf) -> Iterator[Line]:
        bom = read(Sbom, found)
        yield line("passed", f"CycloneDX {bom.specVersion}, {len(bom.components)} components")

    for kind in case.policy.sbom:
        yield from judged(
            case,
            f"sbom {kind}",
            "a CycloneDX document with components",
            predicates.CYCLONEDX,
            (kind, f"sbom_{kind}", f"sbom-{kind}"),
            judge,
        )


def vulnerabilities(case: Case) -> Iterator[Line]:
    """No known vulnerability of the severity or worse, by a database that is fresh enough."""
    rule = case.policy.vulnerabilities
    if rule is None:
        return
    wanted = (
        f"none at or above {rule.fail_on}, by a database of the last "
        f"{span_of(rule.database_max_age)}" + ("" if rule.allow_sample else ", no sample")
    )

    def judge(found: Attestation, line: LineOf) -> Iterator[Line]:
        said = read(Vulnerabilities, found).scanner
        today = case.now.date()
        bad = [item for item in said.result if item.breaks(rule, today)]
        if bad:
            yield line(
                "failed",
                listed([str(item) for item in bad]),
                "take the fixed versions and release anew; or waive it in [[waivers]]",
            )
        unfit = _unfit(said.db, rule, case.now)
        if unfit is not None:
            yield line(*unfit)
        elif not bad:
            waived = sum(item.waived(today) for item in said.result)
            yield line(
                "passed",
                f"{len(said.result)} known, none at or above {rule.fail_on}"
                + (f", {waived} waived" if waived else "")
                + f"; {'sample' if said.db.sample else 'database'} of {day(said.db.lastUpdate)}",
            )

    yield from judged(case, "vulnerabilities", wanted, predicates.VULNERABILITIES, None, judge)


def _unfit(
    database: Database, rule: VulnerabilityRule, now: datetime
) -> tuple[State, str, str] | None:
    """Why a database proves nothing; None when it will do."""
    update = "buildonce advisories update, then release anew"
    age = now - database.lastUpdate
    if age < -SKEW:
        return "error", f"the database is of {day(database.lastUpdate)}, in the future", update
    if database.sample and not rule.allow_sample:
        return (
            "failed",
            "it was matched against a sample of advisories only",
            f"{update}; or allow_sample = true",
        )
    # A sample is as old as what is in it, and nobody brings it up to date.
    if age > rule.database_max_age and not database.sample:
        return "failed", f"the database is {span_of(age)} old", update
    return None


def sast(case: Case) -> Iterator[Line]:
    """The static analysis found nothing of the severity or worse."""
    rule = case.policy.sast
    if rule is not None:
        yield from _findings(case, "sast", rule.fail_on, comments_count=True)


def secrets(case: Case) -> Iterator[Line]:
    """The search for secrets was made and found none."""
    if case.policy.secrets:
        yield from _findings(case, "secrets", "info", comments_count=False)


def _findings(case: Case, name: str, fail_on: Severity, *, comments_count: bool) -> Iterator[Line]:
    threshold = "no finding" if fail_on == "info" else f"no finding at or above {fail_on}"

    def judge(found: Attestation, line: LineOf) -> Iterator[Line]:
        log = read(Sarif, found)
        if strangers := sorted(log.checks - {name}):
            raise Unreadable(f"it says that it is of {', '.join(map(repr, strangers))}")
        findings = log.findings(comments_count=comments_count)
        bad = [text for severity, text in findings if at_least(severity, fail_on)]
        if bad:
            yield line("failed", listed(bad), "mend the source, or waive it in [[waivers]]")
            return
        silenced = log.results - len(findings)
        yield line(
            "passed",
            (f"{len(findings)} below {fail_on}" if findings else "nothing found")
            + (f", {silenced} waived" if silenced else ""),
        )

    yield from judged(case, name, threshold, predicates.SARIF, name, judge)


def licences(case: Case) -> Iterator[Line]:
    """The licences of all components were allowed."""
    if not case.policy.licences:
        return

    def judge(found: Attestation, line: LineOf) -> Iterator[Line]:
        said = read(Licences, found)
        if said.result == "PASSED" and not said.denied:
            waived = f", {len(said.waived)} waived" if said.waived else ""
            yield line("passed", f"allowed{waived}")
        else:
            yield line(
                "failed",
                f"{said.result}: {listed([str(item) for item in said.denied or said.unknown])}",
                "replace the component, or waive it in [[waivers]]",
            )

    yield from judged(case, "licences", "allowed ones only", predicates.LICENCES, None, judge)
