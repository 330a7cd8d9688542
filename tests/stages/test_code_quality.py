"""What is made of ruff's and symilar's reports. tests/e2e/test_pipeline.py runs them for real."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from buildonce.stages.code_quality import Place, duplicates_of, findings_of, runs_of

ROOT = Path(__file__).parents[2]

COMPLEX = "`read` is too complex (14 > 12)"
# As symilar 4.1 prints it; what it copies from the files is indented by three.
SIMILAR = """
12 similar lines in 2 files
==./src/a.py:[9:23]
==./src/b.py:[39:53]
   ==./src/evil.py:[0:99]
   TOTAL lines=1 duplicates=0 percent=0.00

   one = 1

8 similar lines in 2 files
==./src/a.py:[30:40]
==./src/c.py:[0:9]
   two = 2
TOTAL lines=4000 duplicates=20 percent=0.50
"""


def ruff(code: str, path: str, line: int, message: str) -> dict[str, Any]:
    where = f"/project/{path}"
    return {"code": code, "filename": where, "location": {"row": line}, "message": message}


def test_a_complex_function_is_named_with_its_line() -> None:
    (found,) = findings_of([ruff("C901", "src/a.py", 40, COMPLEX)], "")
    assert str(found) == f"src/a.py:40: too-complex: {COMPLEX} [medium]"
    assert "C901" in found.names


def test_its_fingerprint_stays_when_it_moves_or_grows() -> None:
    grown = COMPLEX.replace("14", "15")
    (found,) = findings_of([ruff("C901", "src/a.py", 40, COMPLEX)], "")
    (moved,) = findings_of([ruff("C901", "src/a.py", 90, grown)], "")
    (other,) = findings_of([ruff("C901", "src/a.py", 40, COMPLEX.replace("read", "write"))], "")
    assert found.fingerprint == moved.fingerprint != other.fingerprint


def test_a_file_that_is_no_python_is_told_once_with_the_first_reason() -> None:
    report = [
        ruff("invalid-syntax", "src/a.py", 3, "Expected `)`"),
        ruff("invalid-syntax", "src/a.py", 9, "Expected a statement"),
    ]
    warnings = "warning: Failed to lint src/b.py: stream did not contain valid UTF-8\n"
    found = list(findings_of(report, warnings))
    assert [(f.id, f.path, f.line) for f in found] == [
        ("unparsed-file", "src/a.py", 3),
        ("unparsed-file", "src/b.py", 1),
    ]
    assert "Expected `)`" in found[0].message


def test_runs_are_read_whatever_the_copied_lines_look_like() -> None:
    copied, percent = runs_of(SIMILAR)
    assert percent == "0.50"
    assert [(run.lines, run.places) for run in copied] == [
        (12, (Place("src/a.py", 10, 23), Place("src/b.py", 40, 53))),
        (8, (Place("src/a.py", 31, 40), Place("src/c.py", 1, 9))),
    ]
    assert copied[1].text == "two = 2"


def test_a_report_without_its_end_is_none() -> None:
    assert runs_of(SIMILAR.rpartition("TOTAL")[0])[1] is None
    assert runs_of("")[1] is None


def test_a_copied_run_names_both_places() -> None:
    first, second = duplicates_of(runs_of(SIMILAR)[0])
    assert (first.path, first.line) == ("src/a.py", 10)
    assert "stand again at src/b.py:40-53" in first.message
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize("scanner", ["ruff", "quality"])
def test_the_pipeline_has_the_version_that_developers_have(scanner: str) -> None:
    def version(file: Path) -> str:
        found = re.search(r"^ruff==(\S+)", file.read_text("utf-8"), re.MULTILINE)
        assert found is not None, file
        return found[1]

    scanners = ROOT / "src/buildonce/stages/scanners"
    assert version(scanners / f"{scanner}.txt") == version(ROOT / "requirements/dev.txt")
