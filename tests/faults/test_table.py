"""A sample of the fault table (`make faults` is all of it), and that it would say what is wrong."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from buildonce.ledger import Event

from .rows import Pair, Row, Step, pairs_of, show, steps_of

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = 30


def run(path: Path, *options: str) -> list[dict[str, Any]]:
    """The table's rows, by a process of its own: what forks must not have threads."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", "--json", str(path), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert path.exists(), done.stderr
    found: list[dict[str, Any]] = json.loads(path.read_text())
    assert (done.returncode == 0) == all(row["problem"] is None for row in found)
    return found


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """A sample of all of it."""
    return run(tmp_path_factory.mktemp("faults") / "rows.json", "--sample", str(SAMPLE))


def test_two_of_the_pairs(tmp_path: Path) -> None:
    """That the table itself is in order, where nobody waits for the sample."""
    found = run(tmp_path / "rows.json", "--targets", "local", "--sample", "2")
    assert [row["problem"] for row in found] == [None, None]


def test_every_environment_ends_on_one_release_and_nothing_is_left(
    rows: list[dict[str, Any]],
) -> None:
    assert len(rows) >= 20
    assert [row for row in rows if row["problem"] is not None] == []
    assert {row["ends"] for row in rows} <= {"old", "new"}


def test_the_sample_has_all_targets_kills_and_half_of_the_faults(
    rows: list[dict[str, Any]],
) -> None:
    targets = Counter(row["pair"]["target"] for row in rows)
    assert set(targets) == {"local", "ecs weighted", "ecs canary", "lambda"}
    assert sum(row["first"] == "killed" for row in rows) >= 4
    assert len({row["pair"]["fault"] for row in rows}) >= 6
    assert any(row["resumed"] != "nothing to do" for row in rows)


def test_a_release_that_was_killed_ends_as_resume_says(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if row["first"] == "killed" and row["resumed"] in ("succeeded", "rolled-back"):
            assert row["ends"] == {"succeeded": "new", "rolled-back": "old"}[row["resumed"]], row


def _event(number: int, kind: str, **data: Any) -> Event:
    from datetime import UTC, datetime

    return Event(number, datetime(2026, 1, 1, tzinfo=UTC), "run", kind, data)


def test_a_new_step_joins_the_table_by_itself() -> None:
    events = [
        _event(1, "rollout.started"),
        _event(2, "rollout.step", step="dance", data={"state": "started"}),
        _event(3, "rollout.step", step="watch", data={"state": "ok"}),
        _event(4, "rollout.step", step="dance", data={"state": "done"}),
        _event(5, "rollout.step", step="dance", data={"state": "started"}),
        _event(6, "release.created"),
        _event(7, "rollout.finished"),
    ]
    steps = steps_of(events)
    assert [str(step) for step in steps] == [
        "rollout.started",
        "dance started",
        "dance done",
        "dance started #2",
        "rollout.finished",
    ]
    pairs = pairs_of("local", "rollout", steps, ["throttle"])
    assert sum(pair.fault == "kill -9" for pair in pairs) == 2 * len(steps)
    assert [str(p.step) for p in pairs if p.fault == "throttle"] == [
        "rollout.started",
        "dance started",
        "dance started #2",
        "rollout.finished",
    ]


def test_what_is_wrong_is_told() -> None:
    pair = Pair("local", "rollout", Step("smoke started"), "after", "kill -9")
    good = Row(pair, "killed", "succeeded", "new", None, 1.0)
    assert good.checked() == good
    unharmed = Row(pair, "done", "nothing to do", "new", None, 1.0)
    assert "it was not killed" in (unharmed.checked().problem or "")
    bad = Row(pair, "killed", "nothing to do", "old", "a candidate is left", 1.0)
    console = Console(width=120, file=io.StringIO())
    show([good, bad], console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "local rollout: kill -9 after smoke started: killed, then nothing to do" in text
    assert "a candidate is left" in text
    assert "2 pairs, 2 of them kills; 1 exceptions" in text
