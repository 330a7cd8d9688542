from __future__ import annotations

import json
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest
from defusedxml.ElementTree import fromstring
from hypothesis import given
from hypothesis import strategies as st

from buildonce.errors import ExitCode
from buildonce.release import Image, Release
from buildonce.report import (
    CheckRecord,
    Problem,
    Progress,
    Result,
    RolloutRecord,
    RunRecord,
    StageRecord,
    clear_reports,
    duration,
    merge_junit,
    summarize,
    write_reports,
)
from buildonce.stages import Failure

DIGEST = "sha256:" + "ab" * 32
FAILURE = Failure("tests/test_a.py::test_b", "one is not two", "tests/test_a.py", 3)
JUNIT = (
    '<testsuites><testsuite name="pytest" tests="2" failures="1">'
    '<testcase classname="tests.test_a" name="test_a"/>'
    '<testcase classname="tests.test_a" name="test_b"><failure message="no"/></testcase>'
    "</testsuite></testsuites>"
)


def run_record() -> RunRecord:
    record = RunRecord(
        "20261121T090000Z-abcdef", "dashboard", "2026.11.21+g1234567", "1" * 40, datetime.now(UTC)
    )
    record.stages = [
        StageRecord(
            "commit",
            Result.FAILED,
            12.3,
            checks=[
                CheckRecord("type_check", Result.PASSED, 0.2, True, "no type errors"),
                CheckRecord(
                    "unit_tests", Result.FAILED, 12.0, False, "1 of 2 tests failed", (FAILURE,)
                ),
                CheckRecord(
                    "build_image", Result.BROKEN, 1.0, None, "no base image", remedy="pull"
                ),
                CheckRecord("scan", Result.CANCELLED, 1.0, None, "cancelled"),
            ],
        )
    ]
    record.exit_code = ExitCode.CHECK_FAILED
    return record


def last_screen(record: RunRecord) -> str:
    stream = StringIO()
    summarize(record, stream)
    return stream.getvalue()


def test_the_last_screen_names_the_failing_test_and_the_remedy() -> None:
    text = last_screen(run_record())
    verdict = text[text.index("unit_tests failed") :]
    assert "tests/test_a.py::test_b: one is not two" in verdict
    assert "build_image broken: no base image" in verdict
    assert "try: pull" in verdict
    assert verdict.rstrip().splitlines()[-1].startswith("a check failed (exit code 1)")


def test_the_last_screen_shows_stages_checks_and_what_was_cached() -> None:
    lines = {
        line.split()[0]: line for line in last_screen(run_record()).splitlines() if line.split()
    }
    assert lines["commit"].split()[:2] == ["commit", "failed"]
    assert " ".join(lines["type_check"].split()) == "type_check passed 0.2 s cached no type errors"


def test_the_last_screen_of_a_delivery_has_the_release_and_the_urls() -> None:
    record = run_record()
    record.stages, record.exit_code = [], ExitCode.PASSED
    image = Image("registry.test/app", DIGEST)
    record.release = Release(record.version, record.revision, image, record.started, DIGEST)
    record.rollouts = [
        RolloutRecord("staging", "http://127.0.0.1:8102", True, DIGEST),
        RolloutRecord("production", "http://127.0.0.1:8103", False, DIGEST),
    ]
    record.files = ["out/junit.xml"]
    text = last_screen(record)
    for wanted in (
        "2026.11.21+g1234567",
        image.reference,
        "http://127.0.0.1:8102  deployed",
        "http://127.0.0.1:8103  runs there already",
        "out/junit.xml",
        "passed (exit code 0)",
    ):
        assert wanted in text


def test_what_fails_several_checks_alike_is_told_once() -> None:
    record = run_record()
    broken = [CheckRecord(name, Result.BROKEN, summary="no engine") for name in ("a", "b", "c")]
    record.stages[0].checks = broken
    assert "\na, b, c broken: no engine" in last_screen(record)


def test_a_problem_outside_the_checks_is_told_last() -> None:
    record = run_record()
    record.stages = []
    record.problem = Problem("the registry refused the push", "free some space")
    assert "the registry refused the push\n  try: free some space\n" in last_screen(record)


def test_markup_in_messages_is_shown_as_it_is() -> None:
    record = run_record()
    record.problem = Problem("[bold]no[/bold] [/nonsense]")
    assert "[bold]no[/bold] [/nonsense]" in last_screen(record)


def cases(record: RunRecord, reports: dict[tuple[str, str], str]) -> dict[str, str]:
    """Each test case as "suite name" -> passed, or the tag that says otherwise."""
    root = fromstring(merge_junit(record, reports))

    def outcome(case: Element) -> str:
        return next((child.tag for child in case), "passed")

    return {
        f"{suite.get('name')} {case.get('name')}": outcome(case)
        for suite in root.iter("testsuite")
        for case in suite.iter("testcase")
    }


def test_junit_has_the_tests_of_a_check_and_every_other_check_as_one_test() -> None:
    assert cases(run_record(), {("commit", "unit_tests"): JUNIT}) == {
        "commit.type_check type_check": "passed",
        "commit.unit_tests test_a": "passed",
        "commit.unit_tests test_b": "failure",
        "commit.build_image build_image": "error",
        "commit.scan scan": "skipped",
    }


@pytest.mark.parametrize(
    "report",
    ["", "<html/>", "not xml", "<testsuites/>", '<!DOCTYPE a [<!ENTITY b "c">]><testsuites/>',
     '<testsuite><testcase name="all fine"/></testsuite>'],
)  # fmt: skip
def test_a_failed_check_stays_failed_whatever_its_report_says(report: str) -> None:
    found = cases(run_record(), {("commit", "unit_tests"): report})
    assert found["commit.unit_tests unit_tests"] == "failure"


@given(st.text(max_size=40), st.text(max_size=40))
def test_junit_is_xml_whatever_a_failure_says(summary: str, message: str) -> None:
    record = run_record()
    failure = Failure("id", message)
    record.stages[0].checks = [CheckRecord("a", Result.FAILED, 1, False, summary, (failure,))]
    assert fromstring(merge_junit(record, {})).tag == "testsuites"


def test_files_are_written_named_and_cleared_by_the_next_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "unit_tests").mkdir(parents=True)
    (out / "unit_tests" / "junit.xml").write_text(JUNIT)
    (out / "mine.txt").write_text("of the user")
    outside = tmp_path / "outside.txt"
    outside.write_text("not under out")
    record = run_record()
    record.stages[0].checks[1].files = ("out/unit_tests/junit.xml",)
    write_reports(record, out)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["exit_code"] == 1
    assert summary["result"] == "check-failed"
    assert summary["stages"][0]["checks"][1]["failures"][0]["id"] == FAILURE.id
    assert summary["files"] == ["out/unit_tests/junit.xml", "out/junit.xml", "out/summary.json"]
    assert "test_b" in (out / "junit.xml").read_text()

    summary["files"].append("out/../outside.txt")
    (out / "summary.json").write_text(json.dumps(summary))
    clear_reports(out)
    assert sorted(file.name for file in out.rglob("*") if file.is_file()) == ["mine.txt"]
    assert outside.exists()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"files": 3}', '{"files": [1, "../.."]}'])
def test_clearing_survives_any_summary(tmp_path: Path, text: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "summary.json").write_text(text)
    clear_reports(out)
    assert not (out / "summary.json").exists()


def test_progress_is_a_line_for_each_end() -> None:
    stream = StringIO()
    progress = Progress(stream, spans_shown=False)
    progress.stage(StageRecord("commit"))
    progress.check(CheckRecord("lint", Result.PASSED, 0.25, True, "no findings"))
    assert stream.getvalue() == "commit\n  lint passed in 0.2 s (cached): no findings\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (99.96, "1 min 40 s"), (125, "2 min 5 s"),
     (3599.6, "1 h 0 min"), (3720, "1 h 2 min")],
)  # fmt: skip
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text
