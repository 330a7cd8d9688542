"""The planted repository through the real stages on the real engine: one run, many questions."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from buildonce.errors import ExitCode
from buildonce.stages.waivers import EXPIRED
from buildonce.toolchain import base_image
from buildonce.toolchain.tool_images import tool_images
from tests.loopback import registry
from tests.planted.running import Outcome, run
from tests.planted.table import Row, as_table
from tests.schemas import junit_schema, sarif_schema

pytestmark = pytest.mark.e2e

# Issue 5 asks for at least so many.
PLANTED = {"secrets": 15, "sast": 20, "sca": 6, "licences": 3, "infrastructure": 6, "examples": 40}


@pytest.fixture(scope="session")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    folder = tmp_path_factory.mktemp("planted")
    offline = base_image.made() is not None or os.environ.get("BUILDONCE_PROFILE") == "offline"
    with registry(folder / "registry") as address:
        if offline:
            anyio.run(base_image.publish, f"{address}/base/python:bookworm")
            for image in tool_images(address):
                anyio.run(image.publish)
        profile = {"BUILDONCE_PROFILE": "offline"} if offline else {}
        yield run(folder / "made", registry=address, more=profile)


@pytest.fixture(scope="session")
def rows(outcome: Outcome) -> dict[str, Row]:
    assert outcome.code == ExitCode.CHECK_FAILED, outcome.screen[-6000:]
    rows = outcome.rows()
    print(as_table(rows))
    return {row.check: row for row in rows}


@pytest.mark.parametrize("check", PLANTED)
def test_what_is_planted_is_found_and_look_alikes_are_not(rows: dict[str, Row], check: str) -> None:
    row = rows[check]
    assert (row.missed, row.alarms) == ([], [])
    assert len(row.wanted) >= PLANTED[check]
    assert row.alike >= len(row.wanted)


def test_no_secret_is_shown_anywhere(outcome: Outcome) -> None:
    files = [file for file in outcome.out.rglob("*") if file.is_file()]
    texts = [outcome.screen, *(file.read_text("utf-8", "replace") for file in files)]
    assert len(files) > 8
    for value in outcome.planted.values:
        # A key is many lines, and each of them gives away a part of it.
        parts = [part for part in value.splitlines() if len(part) > 10]
        assert not [part for part in parts if any(part in text for text in texts)]


def test_no_file_name_is_obeyed_by_the_terminal(outcome: Outcome) -> None:
    assert "red" in outcome.screen
    assert "\x1b" not in outcome.screen
    assert "Traceback" not in outcome.screen


def test_an_expired_waiver_fails_and_says_so(outcome: Outcome) -> None:
    assert f"{EXPIRED}: the waiver of generic-api-key in named/settings.py" in outcome.screen
    assert "expired on 2020-01-31" in outcome.screen
    found = [r for r in outcome.results("secrets") if "named/settings.py" in str(r)]
    assert found and not any(r["suppressions"] for r in found)


def test_a_waiver_of_another_file_silences_nothing(outcome: Outcome) -> None:
    assert "python-guessable-temporary-file in src/another.py" in outcome.screen
    assert "silences nothing" in outcome.screen
    found = [r for r in outcome.results("sast") if r["ruleId"] == "python-guessable-temporary-file"]
    assert found and not any(r["suppressions"] for r in found)


def test_a_waiver_in_force_is_shown(outcome: Outcome) -> None:
    assert "waived until 2999-01-31: a container with one user" in outcome.screen
    kinds = {
        result["ruleId"]: suppression["kind"]
        for result in outcome.results("sast")
        for suppression in result["suppressions"]
    }
    # A comment silences only what is below the threshold, and is counted.
    assert kinds == {"python-no-umask": "external", "python-subprocess-shell": "inSource"}
    assert (
        "1 waived, 1 suppressed in the source"
        in outcome.summary["stages"][0]["checks"][1]["summary"]
    )


def test_sboms_are_the_same_bytes_when_made_again(outcome: Outcome) -> None:
    for check, name in (("sbom_python", "python.cdx.json"), ("sbom_image", "image.cdx.json")):
        again = (outcome.out / "again" / name).read_bytes()
        assert (outcome.out / check / name).read_bytes() == again
        assert len(json.loads(again)["components"]) > 20


def test_sboms_are_valid_by_the_validator_of_cyclonedx(outcome: Outcome) -> None:
    said = (outcome.out / "valid.txt").read_text("utf-8").splitlines()
    assert said == ["python.cdx.json valid", "image.cdx.json valid"]


def test_every_report_is_valid_by_its_published_schema(outcome: Outcome) -> None:
    logs = sorted(outcome.out.rglob("*.sarif"))
    assert [log.stem for log in logs] == ["infrastructure", "licences", "sast", "sca", "secrets"]
    for log in logs:
        sarif_schema().validate(json.loads(log.read_text("utf-8")))
    reports = [outcome.out / "junit.xml", outcome.out / "infrastructure" / "junit.xml"]
    for report in reports:
        junit_schema().validate(report.read_text("utf-8"))


def test_links_are_not_followed_out_of_the_repository(outcome: Outcome) -> None:
    reports = [file.read_text("utf-8") for file in outcome.out.rglob("*.sarif")]
    assert reports
    for name in ("odd/outside", "odd/above", "odd/loop/", "odd/nowhere"):
        assert not [text for text in reports if name in text]
    assert not list(Path(outcome.planted.repository).glob("pwned"))


def test_a_history_that_cannot_be_read_is_never_a_pass(outcome: Outcome) -> None:
    said = json.loads((outcome.out / "histories.json").read_text("utf-8"))
    assert said.pop("whole") == "passed: no secrets in the files and 2 commits"
    assert set(said) == {"missing-file", "missing-commit", "damaged-file", "no-repository"}
    for name, text in said.items():
        assert text.startswith("ToolBroken: "), name
        assert "give `secrets` the whole `.git` folder" in text
