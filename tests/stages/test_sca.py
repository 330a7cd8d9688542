from __future__ import annotations

import json
from datetime import UTC, date, datetime

import pytest

from buildonce.advisories.matching import Vulnerability
from buildonce.advisories.packages import SbomPackage
from buildonce.advisories.sample import sample_database
from buildonce.stages.sca_scanner import AnswerUnreadable, answer, question
from buildonce.stages.sca_verdict import Rules, judged, predicate
from buildonce.stages.waivers import Waiver, apply_waivers

JINJA = SbomPackage("PyPI", "jinja2", "2.10", "Jinja2", "pkg:pypi/jinja2@2.10")
FOUND = Vulnerability(
    "CVE-1", ("PYSEC-1",), JINJA, "unknown", None, None, None, ("2.10.1",), "a flaw"
)


def test_an_unscored_vulnerability_fails_unless_configured() -> None:
    assert judged([FOUND], Rules())[0].fails
    assert not judged([FOUND], Rules(unscored="low"))[0].fails


def test_a_waiver_counts_to_its_last_day_and_the_evidence_tells_it() -> None:
    affected = judged([FOUND], Rules())
    findings = [entry.finding for entry in affected]
    waiver = Waiver("sca", "PYSEC-1", "not reachable", date(2026, 12, 1))
    after = apply_waivers("sca", findings, [waiver], today=date(2026, 12, 1))
    assert not after.findings
    ran_at = datetime(2026, 11, 21, tzinfo=UTC)
    document = predicate(affected, after.waived, sample_database(), version="2", ran_at=ran_at)
    (result,) = document["scanner"]["result"]
    assert result["annotations"]["waived"]["reason"] == "not reachable"
    assert document["scanner"]["db"]["sample"] is True
    late = apply_waivers("sca", findings, [waiver], today=date(2026, 12, 2))
    assert late.findings
    assert late.expired


def test_an_answer_that_leaves_out_a_package_is_not_believed() -> None:
    asked = json.loads(question([JINJA]))
    assert answer(json.dumps(asked), [JINJA]) == []
    with pytest.raises(AnswerUnreadable, match="jinja2"):
        answer('{"results": []}', [JINJA])
    with pytest.raises(AnswerUnreadable):
        answer("not JSON", [JINJA])
