"""A run as the lines of a tree that fits a terminal.

    ✘ commit 12.6s
      ✔ lint 2.1s
      ✘ unit tests 8.1s
        ✘ exec pytest -q 8.0s  exit code: 1
          FAILED tests/test_sum.py::test_sum - assert 3 == 4
    ● acceptance 0.4s
      ● exec curl http://web 0.3s

What runs or failed is shown with all around it; what is done is one line, what was cached none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from buildonce.engine.progress.model import Kind, Model, Node
from buildonce.engine.progress.text import RESET, duration, one_line

_DIM, _RED, _GREEN, _YELLOW = "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"
_SHOW_STEP_AFTER = 0.3  # seconds; shorter ones would only flicker
_SHOW_INTERNAL_AFTER = 2.0
_TAIL_OF_FAILED = 8
_TAIL_OF_RUNNING = 1


@dataclass(frozen=True, slots=True)
class Line:
    """One line before it is cut to the terminal's width.

    Attributes:
        weight: what goes first when the screen is too small: the lowest.
    """

    text: str
    weight: int
    style: str = ""


def render(
    model: Model, *, now: float, width: int, height: int, cut: Callable[[str, int], str]
) -> list[str]:
    """The tree in at most `height` lines, each cut by `cut(text, width)`."""
    lines = [line for root in model.roots for line in _node(root, 0, now)]
    return [_styled(line, width, cut) for line in _fit(lines, height)]


def final(model: Model, *, now: float, width: int, cut: Callable[[str, int], str]) -> list[str]:
    """What stays on the screen after the run: stages, and what failed."""
    lines = [
        line
        for root in model.roots
        if root.kind is Kind.SPAN or root.failed
        for line in _node(root, 0, now)
    ]
    return [_styled(line, width, cut) for line in lines]


def _node(node: Node, level: int, now: float) -> Iterable[Line]:
    busy_below = any(below.running or below.failed for below in node.walk() if below is not node)
    took = node.elapsed(now)
    if node.kind is Kind.STEP and not node.failed:
        shown_after = _SHOW_INTERNAL_AFTER if node.internal else _SHOW_STEP_AFTER
        if not node.running or took < shown_after:
            return
    if node.failed:
        mark, style, weight = "✘", _RED, 3
    elif node.running:
        mark, style, weight = "●", _YELLOW, 2
    else:
        mark, style, weight = "✔", _GREEN, 1
    error = f"  {one_line(node.error or '', 100)}" if node.error else ""
    indent = "  " * level
    note = _note(node)
    yield Line(f"{indent}{mark} {node.name} {duration(took)}{note}{error}", weight, style)
    if node.running or node.failed:
        count = _TAIL_OF_FAILED if node.failed else _TAIL_OF_RUNNING
        if not busy_below:
            for text in list(node.tail.lines)[-count:]:
                yield Line(f"{indent}  {text}", weight - 1, _DIM)
    if node.running or node.failed or busy_below:
        for child in node.children:
            yield from _node(child, level + 1, now)


def _note(node: Node) -> str:
    if node.kind is not Kind.SPAN:
        return ""
    steps = [below for below in node.walk() if below.kind is Kind.STEP and not below.internal]
    if steps and all(step.cached for step in steps):
        return " (cached)"
    return ""


def _fit(lines: list[Line], height: int) -> list[Line]:
    if len(lines) <= height:
        return lines
    room = max(1, height - 1)
    ranked = sorted(range(len(lines)), key=lambda i: (-lines[i].weight, i))
    shown = sorted(ranked[:room])
    return [*(lines[i] for i in shown), Line(f"… {len(lines) - room} more", 0, _DIM)]


def _styled(line: Line, width: int, cut: Callable[[str, int], str]) -> str:
    return f"{line.style}{cut(line.text, width)}{RESET}"
