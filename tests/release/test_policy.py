"""What each rule of a policy says to good evidence, to bad, and to none."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from buildonce import predicates
from buildonce.config.policies import (
    DEFAULT_POLICY,
    FindingsRule,
    PolicyConfig,
    ProvenanceRule,
    SignatureRule,
    VulnerabilityRule,
)
from buildonce.errors import ExitCode
from buildonce.release import Image
from buildonce.release.evidence import Attestation, Refused, Verified
from buildonce.release.models import Record
from buildonce.release.policy import Dossier, Line, PolicyDenied, evaluate
from buildonce.release.policy_patterns import matches

from . import policy_samples as samples
from .policy_samples import (
    EVIDENCE,
    GOOD,
    IMAGE,
    MADE,
    NOW,
    RELEASE,
    STRICT,
    attested,
    decide,
    dossier,
    finding,
    licences,
    provenance,
    sarif,
    scan,
    status,
    vulnerability,
    with_instead,
)


def only(what: Dossier, policy: PolicyConfig = STRICT, **options: Any) -> Line:
    """The one line that denies it."""
    (line,) = decide(what, policy, **options).failing
    assert line.remedy
    return line


def test_a_release_with_all_its_evidence_is_let_in() -> None:
    decision = decide(GOOD)
    assert decision.allowed, decision.failing
    assert [line.what for line in decision.lines] == [
        "signature", "image", "release record", "status", "provenance", "test unit_tests",
        "test format_and_lint", "secrets", "sast", "sbom python", "sbom image", "vulnerabilities",
        "licences", "verified in staging",
    ]  # fmt: skip
    assert decision.to_json()["allowed"] is True


def test_a_release_without_anything_is_denied_by_every_demand() -> None:
    decision = decide(Dossier(Verified(IMAGE)))
    assert not any(line.passed for line in decision.lines if line.what != "status")
    # "all" names no test: one line says that there is none.
    nothing = evaluate(
        DEFAULT_POLICY, Dossier(Verified(IMAGE)), RELEASE, environment="staging", now=NOW
    )
    assert [line.what for line in nothing.failing] == [
        "signature",
        "image",
        "release record",
        "tests",
    ]


def test_no_policy_allows_and_says_so() -> None:
    decision = evaluate(None, Dossier(Verified(IMAGE)), RELEASE, environment="dev", now=NOW)
    assert decision.allowed
    assert decision.lines[0].found == 'nothing was looked at: policy = "none"'


def test_a_decision_without_lines_allows_nothing() -> None:
    assert not replace(decide(GOOD), lines=()).allowed


def test_a_denial_tells_every_line_and_the_next_command() -> None:
    bad = with_instead(sarif("sast", finding("sql")), licences("FAILED", "jquery: GPL-3.0"))
    error = PolicyDenied(decide(bad))
    assert error.exit_code == ExitCode.POLICY_DENIED == 4
    assert "keeps 2026.11.21+gabababa (111111111111) out of production" in error.message
    assert "✗ sast: failed: sql: sql here; wanted: no finding at or above high" in error.message
    assert "✗ licences: failed: FAILED: jquery: GPL-3.0" in error.message
    assert error.remedy == "buildonce explain 2026.11.21+gabababa --for production"


@pytest.mark.parametrize(
    ("refused", "state", "found"),
    [
        ((), "missing", "the digest is not signed"),
        ((Refused("signature", "other-key", "signed by somebody else"),), "failed", "somebody"),
        ((Refused("attestation", "other-key", "not this one"),), "missing", "not signed"),
    ],
)
def test_signature(refused: tuple[Refused, ...], state: str, found: str) -> None:
    verified = replace(GOOD.verified, signatures=(), refused=refused)
    line = only(replace(GOOD, verified=verified))
    assert (line.what, line.state) == ("signature", state)
    assert found in line.found


def test_the_line_of_the_signature_names_whose_is_wanted() -> None:
    policy = PolicyConfig.model_validate(
        {"signature": {"keys": ["keys/release.pub"]}, "tests": ["unit_tests"]}
    )
    line = only(samples.without_signature(GOOD), policy)
    assert line.wanted == "a signature by keys/release.pub"
    assert SignatureRule().keys == ()


def test_evidence_of_another_digest_counts_for_nothing() -> None:
    other = Image(IMAGE.repository, "sha256:" + "9" * 64)
    verified = replace(
        GOOD.verified,
        attestations=tuple(replace(item, subject=other.digest) for item in EVIDENCE),
    )
    decision = decide(replace(GOOD, verified=verified))
    assert {line.what for line in decision.lines if line.passed} == {
        "signature", "image", "release record", "status", "verified in staging",
    }  # fmt: skip
    line = only(replace(GOOD, verified=replace(GOOD.verified, image=other)))
    assert (line.what, line.state) == ("signature", "error")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"version": "1"}, "version is 1, not 2026.11.21+gabababa"),
        ({"revision": "c" * 40}, "revision is"),
        ({"image": Image(IMAGE.repository, "sha256:" + "9" * 64)}, "digest is"),
        ({"configuration": "sha256:" + "9" * 64}, "configuration is"),
        ({"created": MADE + timedelta(minutes=1)}, "created is"),
    ],
)
def test_a_record_that_says_something_else(change: dict[str, Any], found: str) -> None:
    assert GOOD.record is not None
    line = only(replace(GOOD, record=replace(GOOD.record, release=replace(RELEASE, **change))))
    assert (line.what, line.state) == ("release record", "failed")
    assert found in line.found


def test_a_record_from_another_registry_is_the_same_record() -> None:
    assert GOOD.record is not None
    copied = replace(RELEASE, image=Image("elsewhere.test/shop", IMAGE.digest))
    assert decide(replace(GOOD, record=replace(GOOD.record, release=copied))).allowed


def test_no_record_says_why() -> None:
    policy = DEFAULT_POLICY
    line = only(replace(GOOD, record=None, record_problem="signed by another key"), policy)
    assert (line.what, line.state, line.found) == (
        "release record", "missing", "signed by another key",
    )  # fmt: skip


@pytest.mark.parametrize("gone", EVIDENCE, ids=lambda item: item.name)
def test_evidence_that_the_record_lists_is_missed(gone: Attestation) -> None:
    # Also where the policy does not ask for it: who takes away a result knows why.
    left = tuple(item for item in EVIDENCE if item is not gone)
    line = only(dossier(*left, listed=EVIDENCE), PolicyConfig(tests=()))
    assert (line.what, line.state) == (f"evidence {gone.name}", "missing")
    assert "the record lists it" in line.found


def test_evidence_that_was_altered_is_told_as_such() -> None:
    gone, *left = EVIDENCE
    bad = Refused("attestation", "altered", "it was changed", gone.type, gone.digest)
    what = dossier(*left, listed=EVIDENCE)
    what = replace(what, verified=replace(what.verified, refused=(bad,)))
    lines = decide(what).failing
    assert [(line.what, line.state, line.found) for line in lines] == [
        ("evidence unit_tests", "failed", "it was changed"),
        (
            "test unit_tests",
            "missing",
            "there is none (there are: format_and_lint); not believed: it was changed",
        ),
    ]
    # What is only noise beside good evidence is told, and denies nothing.
    noise = replace(GOOD, verified=replace(GOOD.verified, refused=(bad,)))
    assert decide(noise).allowed
    assert decide(noise).notes == ("attestation that is not believed: it was changed",)


@pytest.mark.parametrize(
    ("result", "state", "found"),
    [
        (samples.test_result("unit_tests", "FAILED", failed=("test_a", "test_b")), "failed",
         "FAILED: test_a; test_b"),
        (samples.test_result("unit_tests", "WARNED"), "failed", "WARNED"),
        (samples.test_result("unit_tests", failed=("test_a",)), "failed", "PASSED: test_a"),
        (samples.test_result("unit_tests", "GREEN"), "error", "result cannot be"),
        (attested(predicates.TEST_RESULT, "unit_tests", {}), "error", "result is missing"),
        (attested(predicates.TEST_RESULT, "unit_tests",
                  {**samples.test_result("unit_tests").predicate, "verdict": "fine"}),
         "error", "verdict is no field"),
        (attested(predicates.TEST_RESULT, "unit_tests",
                  samples.test_result("format_and_lint").predicate),
         "error", "it says that it is of 'format_and_lint'"),
    ],
)  # fmt: skip
def test_a_test_result(result: Attestation, state: str, found: str) -> None:
    line = only(with_instead(result))
    assert (line.what, line.state) == ("test unit_tests", state)
    assert found in line.found
    # "all" sees the same.
    assert only(with_instead(result), DEFAULT_POLICY).state == state


@pytest.mark.parametrize(
    ("bad", "found"),
    [
        (provenance(builder="https://evil.test"), "the builder is https://evil.test"),
        (provenance(source="git+https://git.test/evil/shop@refs/heads/main"), "git.test/evil/shop"),
        (provenance(source="git+https://git.test/acme/shop/../../evil@refs/heads/main"), "evil"),
        (provenance(source="git+https://git.test/acme/shop@refs/heads/wip"), "the branch is wip"),
        (provenance(source="git+https://git.test/acme/shop"), "the branch is not named"),
        (provenance(source=""), "the source is not named"),
        (provenance(commit="c" * 40), "the revision is cccccccccccc"),
        (provenance(dirty=True), "the source had changes"),
        (provenance(dirty=None), "it does not say whether"),
    ],
)
def test_provenance(bad: Attestation, found: str) -> None:
    line = only(with_instead(bad))
    assert (line.what, line.state) == ("provenance", "failed")
    assert found in line.found


def test_provenance_that_demands_nothing_still_demands_this_commit() -> None:
    policy = PolicyConfig(provenance=ProvenanceRule())
    assert decide(with_instead(provenance(builder="any", source="", dirty=None)), policy).allowed
    assert not decide(with_instead(provenance(commit="c" * 40)), policy).allowed


@pytest.mark.parametrize("kind", ["python", "image"])
def test_a_bill_of_materials_must_have_something_in_it(kind: str) -> None:
    empty = {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": []}
    line = only(with_instead(attested(predicates.CYCLONEDX, f"sbom_{kind}", empty)))
    assert (line.what, line.state) == (f"sbom {kind}", "error")


@pytest.mark.parametrize(
    ("bad", "state", "found"),
    [
        (scan(vulnerability("CVE-2", "9.8")), "failed",
         "CVE-2 (critical) in jinja2 3.1.2, fixed in 3.1.3 or 4.0"),
        (scan(vulnerability("CVE-2", "7.0")), "failed", "CVE-2 (high)"),
        # A score that nobody gave, or that is a vector, is none: it counts as bad enough.
        (scan(vulnerability("CVE-2", None)), "failed", "CVE-2 (no score)"),
        (scan(vulnerability("CVE-2", None, severity="unknown")), "failed", "CVE-2 (no score)"),
        (scan(vulnerability("CVE-2", "CVSS:3.1/AV:N")), "failed", "CVE-2 (no score)"),
        (scan(vulnerability("CVE-2", "9.8", waived="2026-11-20")), "failed",
         "its waiver ended on 2026-11-20"),
        (scan(vulnerability("CVE-2", "1.0", severity="high")), "failed", "CVE-2 (high)"),
        (scan(vulnerability("CVE-2", "1.0", severity="hihg")), "error", "severity cannot be"),
        (scan(updated=NOW - timedelta(days=8)), "failed", "the database is 8 d old"),
        (scan(updated=NOW + timedelta(days=1)), "error", "in the future"),
        (scan(sample=True), "failed", "sample of advisories only"),
        (attested(predicates.VULNERABILITIES, "sca", {"scanner": {"result": []}}), "error",
         "scanner.db is missing"),
    ],
)  # fmt: skip
def test_vulnerabilities(bad: Attestation, state: str, found: str) -> None:
    line = only(with_instead(bad))
    assert (line.what, line.state) == ("vulnerabilities", state)
    assert found in line.found


def test_vulnerabilities_that_are_accepted() -> None:
    waived = with_instead(scan(vulnerability("CVE-2", "9.8", waived="2026-11-21")))
    passed = next(line for line in decide(waived).lines if line.what == "vulnerabilities")
    assert passed.found.startswith(
        "1 known, none at or above high, 1 waived; database of 2026-11-20"
    )
    lenient = STRICT.model_copy(
        update={"vulnerabilities": VulnerabilityRule(fail_on="critical", allow_sample=True)}
    )
    old = scan(vulnerability("C", "8.0"), sample=True, updated=NOW - timedelta(days=400))
    assert decide(with_instead(old), lenient).allowed
    rule = VulnerabilityRule(unscored="low", unfixed="note")
    known = STRICT.model_copy(update={"vulnerabilities": rule})
    unfixed = vulnerability("C", "9.8", fixed=())
    assert decide(with_instead(scan(vulnerability("C", None), unfixed)), known).allowed
    assert not decide(with_instead(scan(unfixed)), STRICT).allowed


@pytest.mark.parametrize(
    ("bad", "state", "found"),
    [
        (sarif("sast", finding("sql")), "failed", "sql: sql here"),
        (sarif("sast", finding("hash", severity="critical")), "failed", "hash here"),
        (sarif("sast", finding("new-rule")), "failed", "new-rule"),
        (sarif("sast", *[finding("sql")] * 7), "failed", "and 2 more"),
        (replace(sarif("secrets"), name="sast"), "error", "it says that it is of 'secrets'"),
        (sarif("sast", ended=False), "error", "executionSuccessful"),
        (attested(predicates.SARIF, "sast", {"version": "2.1.0", "runs": []}), "error", "runs"),
        (sarif("secrets", finding("hash", severity="info")), "failed", "hash here"),
    ],
)
def test_findings(bad: Attestation, state: str, found: str) -> None:
    line = only(with_instead(bad))
    assert (line.what, line.state) == (bad.name, state)
    assert found in line.found


def test_findings_below_the_threshold_and_waived_ones_are_counted() -> None:
    what = with_instead(sarif("sast", finding("hash"), finding("sql", waived=True)))
    line = next(line for line in decide(what).lines if line.what == "sast")
    assert line.found == "1 below high, 1 waived"
    commented = finding("hash", waived=True, by="inSource")
    assert decide(with_instead(sarif("sast", commented))).allowed
    assert only(with_instead(sarif("secrets", commented))).what == "secrets"
    rejected = {**finding("sql"), "suppressions": [{"kind": "external", "status": "rejected"}]}
    assert only(with_instead(sarif("sast", rejected))).what == "sast"
    stricter = STRICT.model_copy(update={"sast": FindingsRule(fail_on="medium")})
    assert only(what, stricter).what == "sast"


def test_licences() -> None:
    line = only(with_instead(licences("FAILED", "jquery: GPL-3.0")))
    assert (line.what, line.state) == ("licences", "failed")
    assert only(with_instead(licences("PASSED", "jquery: GPL-3.0"))).state == "failed"


@pytest.mark.parametrize(
    ("ran", "state", "found"),
    [
        ({}, "missing", "this digest has not run in staging"),
        ({"production": timedelta(days=1)}, "missing", "has not run"),
        ({"staging": timedelta(minutes=9)}, "failed", "for 9 min"),
    ],
)
def test_soak(ran: dict[str, timedelta], state: str, found: str) -> None:
    line = only(replace(GOOD, ran=ran))
    assert (line.what, line.state) == ("verified in staging", state)
    assert found in line.found


def test_evidence_expires() -> None:
    month_later = NOW + timedelta(days=31)
    lines = decide(GOOD, now=month_later).failing
    assert {line.what for line in lines} >= {"test unit_tests", "sast", "sbom image", "provenance"}
    assert all("it expired: 31 d 2 h old" in i.found for i in lines if i.what.startswith("sbom"))
    # The same evidence made anew is fresh, and the old one does no harm.
    fresh = tuple(replace(item, created=month_later, digest=item.digest) for item in EVIDENCE)
    policy = PolicyConfig(max_age=timedelta(days=30))
    assert not decide(GOOD, policy, now=month_later).allowed
    assert decide(dossier(*fresh, *EVIDENCE), policy, now=month_later).allowed
    assert decide(dossier(*EVIDENCE, *fresh), policy, now=month_later).allowed


def test_evidence_without_a_time_or_of_the_future_is_not_fresh() -> None:
    timeless = tuple(replace(item, created=None) for item in EVIDENCE)
    assert decide(dossier(*timeless), PolicyConfig()).allowed
    lines = decide(dossier(*timeless)).failing
    assert lines and all("does not say when" in line.found for line in lines)
    early = tuple(replace(item, created=NOW + timedelta(hours=1)) for item in EVIDENCE)
    assert all("in the future" in line.found for line in decide(dossier(*early)).failing)


def test_of_two_with_one_name_the_newer_counts_whatever_the_order() -> None:
    good = samples.test_result("unit_tests")
    bad = replace(samples.test_result("unit_tests", "FAILED"), created=MADE + timedelta(minutes=1))
    mended = replace(good, created=MADE + timedelta(minutes=2), digest="sha256:" + "7" * 64)
    for order in ((good, bad), (bad, good)):
        assert not decide(dossier(*EVIDENCE, *order)).allowed
    for more in ((bad, mended), (mended, bad)):
        assert decide(dossier(*EVIDENCE, *more)).allowed
    # Equally new: both must be good.
    assert not decide(dossier(*EVIDENCE, replace(bad, created=MADE))).allowed


def test_a_withdrawal_denies_until_it_is_lifted_by_name() -> None:
    advisory = {"id": "CVE-9", "package": "idna", "version": "3.6", "severity": "high",
                "fixed": ["3.7"]}  # fmt: skip
    withdrawn = status("withdrawn", advisories=(advisory,))
    line = only(dossier(*EVIDENCE, withdrawn))
    assert (line.what, line.state) == ("status", "failed")
    assert line.found == (
        "withdrawn on 2026-11-21 11:00 UTC by ann: because: CVE-9 (high) in idna 3.6, fixed in 3.7"
    )
    lifted = status("reinstated", seen=(withdrawn,), lifts=(withdrawn,), at=NOW)
    for order in ((withdrawn, lifted), (lifted, withdrawn)):
        assert decide(dossier(*EVIDENCE, *order)).allowed
    # "good" and a reinstatement of something else lift nothing, and the old one does not come back.
    again = status("withdrawn", seen=(withdrawn, lifted), at=NOW + timedelta(minutes=1))
    good = status("good", seen=(withdrawn, lifted, again), at=NOW + timedelta(minutes=2))
    assert only(dossier(*EVIDENCE, withdrawn, lifted, again, good)).state == "failed"


def test_a_withdrawal_for_one_environment_leaves_the_others_alone() -> None:
    what = dossier(*EVIDENCE, status("withdrawn", environments=["production"]))
    assert not decide(what, environment="production").allowed
    assert decide(what, environment="staging").allowed


def test_a_status_that_was_taken_away_is_missed() -> None:
    withdrawn = status("withdrawn")
    later = status("good", seen=(withdrawn,))
    line = only(dossier(*EVIDENCE, later))
    assert (line.what, line.state) == ("status", "error")
    assert "a status was removed from the registry" in line.found
    # The newest leaves no name in the registry; a machine that has seen it remembers.
    assert decide(GOOD).allowed
    assert only(replace(GOOD, remembered=frozenset({withdrawn.digest}))).state == "error"


def test_a_release_must_be_found_good_from_time_to_time() -> None:
    later = NOW + timedelta(days=2)
    line = only(GOOD, now=later)
    assert (line.what, line.state, line.found) == ("status", "failed", "found good 2 d 2 h ago")
    assert line.remedy == "buildonce rescan 2026.11.21+gabababa"
    good = status("good", environments=["production"], at=later)
    assert decide(dossier(*EVIDENCE, good), now=later).allowed
    elsewhere = status("good", environments=["staging"], at=later)
    assert only(dossier(*EVIDENCE, elsewhere), now=later).what == "status"
    ahead = status("good", at=later + timedelta(hours=1))
    assert only(dossier(*EVIDENCE, ahead), now=later).state == "error"


@pytest.mark.parametrize(
    "broken",
    [
        attested(predicates.STATUS, "status", {}),
        status("fine"),
        status("withdrawn", environments=[]),
        status("good", until="2099-01-01"),
        status("good", at=NOW, database=1.0),
    ],
)
def test_a_status_that_cannot_be_understood_denies(broken: Attestation) -> None:
    line = only(dossier(*EVIDENCE, broken))
    assert (line.what, line.state) == ("status", "error")


@pytest.mark.parametrize(
    ("name", "pattern", "found"),
    [
        ("https://git.test/acme/shop", "https://git.test/acme/*", True),
        ("https://git.test/acme/shop/x", "https://git.test/acme/*", False),
        ("https://git.test/acme/shop/x", "https://git.test/acme/**", True),
        ("https://gitXtest/acme", "https://git.test/acme", False),
        ("main", "main", True),
        ("main2", "main", False),
        ("main\n", "main", False),
        ("release/1", "release/*", True),
        ("[a]", "[a]", True),
    ],
)
def test_patterns(name: str, pattern: str, found: bool) -> None:
    assert matches(name, [pattern]) is found


def test_a_record_lists_nothing_only_when_it_says_so() -> None:
    assert decide(replace(GOOD, record=Record(RELEASE)), PolicyConfig()).allowed
