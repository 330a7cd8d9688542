"""What a run shows: the model, and the two views of it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildonce.engine.events import LogEvent, SpanEvent, SpanLogEvent, VertexEvent
from buildonce.engine.progress import text
from buildonce.engine.progress.live import LiveView
from buildonce.engine.progress.model import Change, Model, Node, summary
from buildonce.engine.progress.plain import PlainView

ROOT, A, B = "00" * 7 + "01", "00" * 7 + "0a", "00" * 7 + "0b"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Screen:
    """A terminal that knows as much as `LiveView` needs."""

    def __init__(self, columns: int = 60, rows: int = 24) -> None:
        self.columns, self.rows = columns, rows
        self.lines = [""]
        self.row = self.column = 0
        self.cursor = True

    def size(self) -> tuple[int, int]:
        return self.columns, self.rows

    def write(self, characters: str) -> None:
        for part in re.findall("\x1b\\[[?0-9;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", characters):
            if part == "\n":
                self.row, self.column = self.row + 1, 0
                if self.row == len(self.lines):
                    self.lines.append("")
            elif part == "\r":
                self.column = 0
            elif part.endswith("A") and part[0] == "\x1b":
                self.row -= int(part[2:-1])
                assert self.row >= 0
            elif part == "\x1b[J":
                self.lines[self.row] = self.lines[self.row][: self.column]
                del self.lines[self.row + 1 :]
            elif part in ("\x1b[?25l", "\x1b[?25h"):
                self.cursor = part.endswith("h")
            elif part[0] == "\x1b":
                assert part.endswith("m"), f"not a colour: {part!r}"
            else:
                line = self.lines[self.row].ljust(self.column)
                line = line[: self.column] + part + line[self.column + len(part) :]
                assert len(line) <= self.columns, f"this line would wrap: {line!r}"
                self.lines[self.row], self.column = line, self.column + len(part)

    @property
    def shown(self) -> list[str]:
        return [line.rstrip() for line in self.lines if line.strip()]


def span(id_: str, name: str, parent: str | None = ROOT, **more: Any) -> SpanEvent:
    return SpanEvent(id_, parent, name, started=more.pop("started", 1_000.0), **more)


def step(id_: str, parent: str | None = A, **more: Any) -> VertexEvent:
    return VertexEvent(id_, parent, f"exec {id_}", started=more.pop("started", 1_000.0), **more)


# -- text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("plain ü 漢\ttab", "plain ü 漢\ttab"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]52;c;Y2xpcGJvYXJk\x1b\\after", "after"),
        ("\x1bP1;2q sixel \x1b\\after", "after"),
        ("a\x1b[2J\x1b[1;1Hb", "ab"),
        ("\x9b2Ja\x9d0;t\x9cb", "ab"),
        ("\x1bcreset", "reset"),
        ("\x1b]8;;http://evil\x07link\x1b]8;;\x07", "link"),
        ("10%\r20%\r30%\nnext", "30%\nnext"),
        ("dos\r\nline", "dos\nline"),
        ("bell\a back\b", "bell back"),
        ("abc\u202edef\u2066", "abcdef"),
        ("\x1b", ""),
        ("\x1b[", ""),
        ("\x1b]never ends", ""),
        ("\x00\x7f", ""),
    ],
)
def test_hostile_text_is_made_safe(hostile: str, shown: str) -> None:
    assert text.clean(hostile) == shown


def test_colours_may_stay() -> None:
    assert text.clean("\x1b[1;31mred\x1b[0m\x1b[2J", colours=True) == "\x1b[1;31mred\x1b[0m"


@given(st.text(alphabet="\x1b\x9b\x9d[]PmJ;0?ab\r\n\x07\\\u202e\t ", max_size=60))
def test_nothing_a_terminal_obeys_is_left(hostile: str) -> None:
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text.clean(hostile))
    coloured = text.clean(hostile, colours=True)
    without = re.sub("\x1b\\[[0-9;:]*m", "", coloured)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", without)


def test_cleaning_takes_time_in_proportion() -> None:
    import time

    begun = time.process_time()  # of this process: however busy the machine is
    for unit in ("\x1b]", "\x1b[", "\x1b[0;", "\r", "\x1bP\x1b"):
        text.clean(unit * 100_000, colours=True)
    assert time.process_time() - begun < 3


# -- model --------------------------------------------------------------------------------------


def test_steps_stand_under_the_spans_that_asked_for_them() -> None:
    model = Model(ROOT)
    model.apply(span(A, "commit"))
    model.apply(span(B, "lint", parent=A))
    model.apply(step("x", parent=B))
    (commit,) = model.roots
    (lint,) = commit.children
    assert [node.name for node in lint.children] == ["exec x"]
    assert lint.children[0].path == "commit / lint / exec x"
    assert lint.children[0].running


def test_events_may_come_before_their_parents() -> None:
    model = Model(ROOT)
    model.apply(step("x", parent=B))
    model.apply(span(B, "lint", parent=A, completed=1_001.0))
    model.apply(span(A, "commit", completed=1_002.0))
    (commit,) = model.roots
    assert commit.children[0].children[0].name == "exec x"


def test_spans_that_are_each_others_parents_do_no_harm() -> None:
    model = Model(ROOT)
    model.apply(span(A, "a", parent=B))
    model.apply(span(B, "b", parent=A))
    model.apply(span("cc" * 8, "c", parent="cc" * 8))
    assert {node.name for node in model.nodes()} == {"a", "b", "c"}


def test_what_ran_and_what_was_cached_is_counted_once() -> None:
    model = Model()
    model.apply(step("ran"))
    model.apply(step("ran", completed=1_001.0))
    model.apply(step("ran", completed=1_001.0, cached=True))
    model.apply(step("kept", cached=True))
    model.apply(step("kept", completed=1_001.0))
    model.apply(VertexEvent("plumbing", None, "p", 1_000.0, 1_001.0, internal=True))
    model.apply(step("broken", completed=1_001.0, error="exit code: 1"))
    assert summary(model, 3.25) == "1 executed, 1 cached, 1 failed, 3.2 s"


def test_logs_come_in_pieces_and_only_the_last_lines_are_kept() -> None:
    model = Model()
    model.apply(step("x"))
    for number in range(100):
        model.apply(LogEvent("x", 1, f"line {number}\nhalf of ".encode()))
        model.apply(LogEvent("x", 2, "€\n".encode()[:2]))
        model.apply(LogEvent("x", 2, "€\n".encode()[2:]))
    model.apply(step("x", completed=1_001.0))
    lines = list(model.roots[0].tail.lines)
    assert len(lines) == 40
    assert "half of line 99" in lines
    assert "€" in lines
    assert lines[-1] == "half of "


def test_log_records_of_spans_are_kept() -> None:
    model = Model(ROOT)
    model.apply(span(A, "commit"))
    model.apply(SpanLogEvent(A, "careful\n\x1b[2Jnow"))
    model.apply(SpanLogEvent("ff" * 8, "of a span unknown"))
    assert list(model.roots[0].tail.lines) == ["careful", "now"]


def test_listeners_hear_each_change_once() -> None:
    heard: list[tuple[str, Change]] = []
    model = Model(ROOT)
    model.listen(lambda node, change: heard.append((node.name, change)))
    model.apply(span(A, "commit"))
    model.apply(span(A, "commit"))
    model.apply(span(A, "commit", completed=1_001.0))
    model.apply(span(A, "commit", completed=1_001.0))
    assert heard == [("commit", Change.STARTED), ("commit", Change.ENDED)]


# -- plain --------------------------------------------------------------------------------------


def test_plain_lines() -> None:
    clock, model = Clock(), Model(ROOT)
    view = PlainView(model, clock)
    model.apply(span(A, "commit"))
    model.apply(span(B, "lint", parent=A))
    model.apply(step("short", completed=1_000.5))
    model.apply(step("long", completed=1_008.0))
    model.apply(step("cached", completed=1_008.0, cached=True))
    model.apply(step("bad", parent=B))
    model.apply(LogEvent("bad", 1, b"\x1b[31mFAILED\x1b[0m test_sum\x1b]0;x\x07\n"))
    clock.now += 9
    model.apply(step("bad", parent=B, completed=1_009.0, error="exit code: 1\nmore"))
    model.apply(span(B, "lint", parent=A, completed=1_009.0, error=""))
    model.apply(span(A, "commit", completed=1_009.0, error=""))
    assert view.pending() + view.last("summary") == (
        "[    0.0s] commit: started\n"
        "[    8.0s] commit / exec long: done in 8.0s\n"
        "[    9.0s] commit / lint / exec bad: failed after 9.0s: exit code: 1 more\n"
        "           | FAILED test_sum\n"
        "[    9.0s] commit / lint: failed after 9.0s\n"
        "[    9.0s] commit: failed after 9.0s\n"
        "[    9.0s] summary\n"
    )


def test_what_takes_long_gives_a_sign_of_life() -> None:
    clock, model = Clock(), Model(ROOT)
    view = PlainView(model, clock)
    model.apply(span(A, "commit"))
    model.apply(step("slow"))
    view.pending()
    clock.now += 59
    assert view.pending() == ""
    clock.now += 2
    assert view.pending() == "[   61.0s] commit / exec slow: still running after 1m01s\n"
    assert view.pending() == ""


# -- live ---------------------------------------------------------------------------------------


class Shown:
    def __init__(self, **options: Any) -> None:
        self.clock, self.model, self.screen = Clock(), Model(ROOT), Screen()
        self.view = LiveView(self.model, self.screen, clock=self.clock, **options)

    def paint(self) -> list[str]:
        self.screen.write(self.view.pending())
        return self.screen.shown


def test_the_tree_follows_the_model() -> None:
    shown = Shown()
    shown.model.apply(span(A, "commit"))
    shown.model.apply(span(B, "lint", parent=A))
    shown.model.apply(step("x", parent=B))
    shown.model.apply(LogEvent("x", 1, b"checking\n"))
    shown.clock.now += 2
    assert shown.paint() == [
        "● commit 2.0s",
        "  ● lint 2.0s",
        "    ● exec x 2.0s",
        "      checking",
    ]
    assert not shown.screen.cursor
    shown.model.apply(step("x", parent=B, completed=1_002.0))
    shown.model.apply(span(B, "lint", parent=A, completed=1_002.0))
    assert shown.paint() == ["● commit 2.0s", "  ✔ lint 2.0s"]
    shown.model.apply(span(A, "commit", completed=1_002.0))
    assert shown.paint() == ["✔ commit 2.0s"]
    shown.screen.write(shown.view.last("1 executed"))
    assert shown.screen.shown == ["✔ commit 2.0s", "1 executed"]
    assert shown.screen.cursor


def test_failures_keep_their_last_lines() -> None:
    shown = Shown()
    shown.model.apply(span(A, "commit"))
    shown.model.apply(step("x"))
    for number in range(30):
        shown.model.apply(LogEvent("x", 1, f"line {number}\n".encode()))
    shown.model.apply(step("x", completed=1_003.0, error="exit code: 1"))
    shown.model.apply(span(A, "commit", completed=1_003.0, error=""))
    shown.screen.write(shown.view.last("1 failed"))
    assert shown.screen.shown[:3] == [
        "✘ commit 3.0s",
        "  ✘ exec x 3.0s  exit code: 1",
        "    line 22",
    ]
    assert shown.screen.shown[-2:] == ["    line 29", "1 failed"]


def test_cached_steps_take_no_line() -> None:
    shown = Shown()
    shown.model.apply(span(A, "commit"))
    shown.model.apply(step("x", completed=1_000.0, cached=True))
    shown.model.apply(span(A, "commit", completed=1_000.5))
    assert shown.paint() == ["✔ commit 0.5s (cached)"]


def test_output_of_the_program_scrolls_above() -> None:
    shown = Shown()
    shown.model.apply(span(A, "commit"))
    shown.paint()
    for number in range(5):
        shown.view.output(f"line {number}\r\n".encode())
        shown.paint()
    assert shown.screen.shown == [*(f"line {n}" for n in range(5)), "● commit 0.0s"]


def test_output_in_pieces_even_of_characters() -> None:
    shown = Shown()
    data = "grün 漢字 ✔\nnext".encode()
    for byte in data:
        shown.view.output(bytes([byte]))
        shown.paint()
    shown.screen.write(shown.view.last("end"))
    assert shown.screen.shown == ["grün 漢字 ✔", "next", "end"]


def test_output_cannot_move_the_cursor() -> None:
    shown = Shown()
    shown.model.apply(span(A, "commit"))
    shown.view.output(b"\x1b[10A\x1b[2J\x1b]0;title\x07\x1b[32mgreen\x1b[0m\n")
    assert shown.paint() == ["green", "● commit 0.0s"]


def test_a_progress_bar_shows_its_last_state() -> None:
    shown = Shown()
    for number in range(5):
        shown.view.output(f"\r{number}/5".encode())
        shown.paint()
    assert shown.paint() == ["4/5"]
    shown.view.output(b"\n")
    assert shown.paint() == ["4/5"]


def test_a_question_gets_the_screen_until_it_is_answered() -> None:
    shown = Shown(interactive=True)
    shown.model.apply(span(A, "commit"))
    shown.view.output(b"name? ")
    assert shown.paint() == ["name?", "● commit 0.0s"]
    shown.clock.now += 0.2
    assert shown.paint() == ["name?"]
    assert shown.screen.cursor
    assert (shown.screen.row, shown.screen.column) == (0, 6)
    shown.clock.now += 1
    assert shown.paint() == ["name?"]
    shown.screen.write("bob\n")  # the terminal's echo
    shown.view.output(b"hello bob\nmore\n")
    assert shown.paint() == ["name? bob", "hello bob", "more", "● commit 1.2s"]


def test_dots_that_come_slowly_are_one_line() -> None:
    shown = Shown(interactive=True)
    for _ in range(4):
        shown.view.output(b".")
        shown.paint()
        shown.clock.now += 0.3
        shown.paint()
    shown.view.output(b" done\n")
    assert shown.paint() == [".... done"]


def test_long_lines_and_many_lines_fit_the_screen() -> None:
    shown = Shown()
    shown.model.apply(span(A, "commit " + "x" * 300))
    for number in range(100):
        shown.model.apply(step(f"{number} 漢字{'y' * 100}"))
    shown.view.output(b"z" * 300)
    shown.clock.now += 1
    lines = shown.paint()
    assert len(lines) <= shown.screen.rows
    assert lines[-1].startswith("…")
    assert "more" in lines[-1]


def test_failures_are_shown_before_what_runs_when_space_is_short() -> None:
    shown = Shown()
    for number in range(100):
        shown.model.apply(step(str(number), parent=None))
    shown.model.apply(step("bad", parent=None, completed=1_001.0, error="no"))
    shown.clock.now += 1
    assert any("exec bad" in line for line in shown.paint())


def test_nothing_is_written_when_nothing_changed() -> None:
    shown = Shown()
    shown.model.apply(span(A, "commit", completed=1_001.0))
    shown.paint()
    assert shown.view.pending() == ""


def test_no_colours_when_not_wanted() -> None:
    shown = Shown(colours=False)
    shown.model.apply(span(A, "commit"))
    assert "m●" not in shown.view.pending()


@given(
    st.lists(
        st.one_of(
            st.builds(
                SpanEvent,
                st.sampled_from([A, B, ROOT]),
                st.sampled_from([None, A, B, ROOT]),
                st.text(max_size=20),
                st.just(1_000.0),
                st.sampled_from([None, 1_001.0]),
                st.sampled_from([None, "", "bad\x1b[2J"]),
            ),
            st.builds(
                VertexEvent,
                st.sampled_from(["x", "y", "z"]),
                st.sampled_from([None, A, B, "ee" * 8]),
                st.text(max_size=20),
                st.sampled_from([None, 1_000.0]),
                st.sampled_from([None, 1_001.0]),
                st.booleans(),
                st.sampled_from([None, "", "bad"]),
            ),
            st.builds(LogEvent, st.sampled_from(["x", "q"]), st.just(1), st.binary(max_size=20)),
            st.binary(max_size=30),
        ),
        max_size=30,
    )
)
def test_any_order_of_anything_leaves_the_screen_whole(events: list[Any]) -> None:
    shown = Shown(interactive=True)
    lines = PlainView(shown.model, shown.clock)
    for event in events:
        if isinstance(event, bytes):
            shown.view.output(event)
        else:
            shown.model.apply(event)
        shown.clock.now += 0.2
        characters = shown.view.pending()
        rest = re.sub("\x1b\\[(\\?25[lh]|[0-9]+A|J|[0-9;:]*m)|[\r\n\t]", "", characters)
        assert not re.search("[\x00-\x1f\x7f-\x9f]", rest)
    shown.view.last("end")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", lines.pending())
    assert isinstance(next(shown.model.nodes(), Node("", shown.model)), Node)  # type: ignore[arg-type]
