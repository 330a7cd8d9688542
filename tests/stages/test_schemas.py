"""What we write against the schemas that others publish."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildonce.report import merge_junit
from buildonce.report.record import CheckRecord, Result, RunRecord, StageRecord
from buildonce.severity import SEVERITIES
from buildonce.stages import Failure, Finding, Waived, Waiver
from buildonce.stages.junit import as_published
from buildonce.stages.sarif import SCHEMA, Rule, write_sarif
from tests.schemas import junit_schema, sarif_schema

TEXTS = st.text(max_size=20)
FINDINGS = st.lists(
    st.builds(
        Finding, id=TEXTS.filter(bool), message=TEXTS, path=st.none() | TEXTS,
        line=st.none() | st.integers(0, 10**6), severity=st.sampled_from(SEVERITIES),
        cwe=st.just(()) | st.just(("CWE-89",)), fingerprint=TEXTS,
    ),
    max_size=3,
)  # fmt: skip
WAIVER = Waiver("sast", "r", "a reason", date(2027, 1, 31))


@given(FINDINGS, FINDINGS, FINDINGS)
def test_any_finding_of_any_check_is_valid_sarif(
    found: list[Finding], waived: list[Finding], silenced: list[Finding]
) -> None:
    text = write_sarif(
        "check", "tool", "1", found, waived=[Waived(one, WAIVER) for one in waived],
        suppressed=silenced, rules=[Rule("unused", "never found", "low", help="https://x.test/")],
    )  # fmt: skip
    sarif_schema().validate(json.loads(text))


def test_the_schema_is_the_one_that_our_logs_name() -> None:
    assert sarif_schema().schema["id"] == SCHEMA
    broken = json.loads(write_sarif("check", "tool", "1", [Finding("r", "m", "a.py", 1)]))
    del broken["runs"][0]["tool"]
    assert not sarif_schema().is_valid(broken)


REPORT = """\
<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest"
errors="0" failures="1" skipped="1" tests="3" time="0.012" timestamp="2026-11-21T16:00:00+00:00"
hostname="h"><testcase classname="t" name="a" file="t.py" line="1" time="0.001"/><testcase
classname="t" name="b" file="t.py" line="4" time="0.001"><properties><property name="k"
value="v"/></properties><failure message="m">text</failure></testcase><testcase classname="t"
name="c" file="t.py" line="9" time="0.000"><skipped type="pytest.skip" message="why">t</skipped>
</testcase></testsuite></testsuites>"""


def test_reports_of_tests_are_valid_for_jenkins() -> None:
    assert not junit_schema().is_valid(REPORT)  # as pytest writes it for us to read
    junit_schema().validate(as_published(REPORT))


@pytest.mark.parametrize("result", [*Result, None])
def test_the_report_of_a_run_is_valid_for_jenkins(result: Result | None) -> None:
    def check(name: str, **more: Any) -> CheckRecord:
        return CheckRecord(name=name, result=result, seconds=1234.5, summary="s\x1b[2J", **more)

    record = RunRecord(
        run="r", pipeline="p\x00", version="v", revision="r", started=datetime.now(UTC)
    )
    failures = (Failure("t::a", "bad \x1b[31m \ud800"),)
    checks = [check("unit_tests"), check("sa\x1bst", failures=failures)]
    record.stages.append(StageRecord("commit", checks=checks))
    merged = merge_junit(record, {("commit", "unit_tests"): as_published(REPORT)})
    junit_schema().validate(merged)
