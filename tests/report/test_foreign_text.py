"""What a hostile repository or tool says reaches the terminal as text and as nothing else."""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime

from hypothesis import given
from hypothesis import strategies as st

from buildonce.report import Progress, summarize
from buildonce.report.record import CheckRecord, Result, RunRecord, StageRecord
from buildonce.stages import Failure, Finding, Waived, Waiver
from buildonce.visible import on_one_line, visible

ESCAPES = "\x1b[2J\x1b]0;title\x07\r\x9b31m\u202e\ud800"


def test_nothing_in_a_summary_is_obeyed() -> None:
    finding = Finding(f"rule{ESCAPES}", f"message{ESCAPES}", f"a\npassed {ESCAPES}.py", 3)
    waived = Waived(finding, Waiver("secrets", "rule", f"why{ESCAPES}", date(2027, 1, 1)))
    check = CheckRecord(
        name=f"secrets{ESCAPES}", result=Result.FAILED, summary=f"1 secret{ESCAPES}",
        failures=(finding, Failure(f"test{ESCAPES}", "failed")), waived=(waived,),
        notes=(f"note{ESCAPES}",), details=(f"detail{ESCAPES}",), remedy=f"remedy{ESCAPES}",
    )  # fmt: skip
    record = RunRecord(
        run="r", pipeline=f"p{ESCAPES}", version="v", revision=f"r{ESCAPES}",
        started=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    record.stages.append(StageRecord("commit", checks=[check]))
    screen, progress = io.StringIO(), io.StringIO()
    summarize(record, screen)
    Progress(progress, spans_shown=False).check(check)
    for text in (screen.getvalue(), progress.getvalue()):
        assert visible(text) == text
    # The second line of the file's name would say that all is well.
    assert not [line for line in screen.getvalue().splitlines() if line.startswith("passed \ufffd")]
    assert "a\ufffdpassed" in screen.getvalue()


@given(st.text())
def test_what_is_visible_is_written_and_printable(text: str) -> None:
    shown = visible(text)
    assert len(shown) == len(text)
    shown.encode("utf-8")
    assert all(c in "\n\t" or (c >= " " and not "\x7f" <= c <= "\x9f") for c in shown)
    assert "\n" not in on_one_line(text)
    json.loads(json.dumps(shown))
