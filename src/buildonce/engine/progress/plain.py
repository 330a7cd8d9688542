"""A run as lines of text, for files, pipes and CI.

    [   0.4s] commit: started
    [  12.9s] commit / unit tests: exec pytest -q: failed after 8.1s: exit code: 1
             | FAILED tests/test_sum.py::test_sum - assert 3 == 4
    [  13.0s] commit: failed after 12.6s

One line for each start and end of a stage, one for each step that took longer than a second, and
the last lines of what failed. No colours, nothing rewritten.
"""

from __future__ import annotations

from collections.abc import Callable

from buildonce.engine.progress.model import Change, Kind, Model, Node
from buildonce.engine.progress.text import clean, duration, one_line

SHOWN_TAIL = 20
_WORTH_A_LINE = 1.0  # seconds
_PATIENCE = 0.5  # seconds that a step's span may come after it
_STILL_RUNNING = 60.0  # seconds between two signs of life; CI ends jobs that are silent


class PlainView:
    """Makes lines as the model changes.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, model: Model, clock: Callable[[], float]) -> None:
        self._model = model
        self._clock = clock
        self._start = clock()
        self._changes: list[tuple[float, Node, Change]] = []
        self._lines: list[str] = []
        self._last_sign = self._start
        model.listen(self._changed)

    def pending(self) -> str:
        """The lines since the last call."""
        self._settle(_PATIENCE)
        self._sign_of_life()
        lines, self._lines = self._lines, []
        return "".join(lines)

    def last(self, summary: str) -> str:
        """The lines since the last call, and the summary."""
        self._settle(0)
        self._line(summary, self._clock())
        return self.pending()

    def _changed(self, node: Node, change: Change) -> None:
        if change is not Change.LOGGED:
            self._changes.append((self._clock(), node, change))

    def _settle(self, patience: float) -> None:
        """Make lines of what has changed; what it belongs to may be told a moment later."""
        now = self._clock()
        settled = [
            entry
            for entry in self._changes
            if not entry[1].top.orphan or now - entry[0] >= patience
        ]
        self._changes = [entry for entry in self._changes if entry not in settled]
        for entry in sorted(settled, key=_order):
            when, (_, node, change) = _order(entry)[0], entry
            if change is Change.STARTED and _is_stage(node):
                self._line(f"{node.path}: started", when)
            elif change is Change.ENDED:
                self._ended(node, when)

    def _ended(self, node: Node, when: float) -> None:
        took = node.elapsed(when)
        if node.failed:
            error = one_line(node.error or "")
            detail = f": {error}" if error else ""
            self._line(f"{node.path}: failed after {duration(took)}{detail}", when)
            self._tail(node)
        elif (took >= _WORTH_A_LINE and not node.cached) or _is_stage(node):
            self._line(f"{node.path}: done in {duration(took)}", when)

    def _tail(self, node: Node) -> None:
        for line in list(node.tail.lines)[-SHOWN_TAIL:]:
            self._lines.append(f"           | {line}\n")

    def _sign_of_life(self) -> None:
        now = self._clock()
        if now - self._last_sign < _STILL_RUNNING:
            return
        running = [
            node
            for node in self._model.nodes()
            if node.running and not any(child.running for child in node.children)
        ]
        for node in running[:3]:
            self._line(f"{node.path}: still running after {duration(node.elapsed(now))}", now)

    def note(self, text: str) -> None:
        """A message of the tool itself."""
        for line in clean(text).splitlines():
            self._line(line, self._clock())

    def _line(self, text: str, when: float) -> None:
        self._last_sign = self._clock()
        self._lines.append(f"[{when - self._start:7.1f}s] {text}\n")


def _order(entry: tuple[float, Node, Change]) -> tuple[float, int]:
    """When it happened; at one time, starts from the outside in and ends from the inside out."""
    told, node, change = entry
    depth = len(list(node.ancestors()))
    if change is Change.STARTED:
        return node.started or told, depth
    return node.completed or told, -depth


def _is_stage(node: Node) -> bool:
    return node.kind is Kind.SPAN and node.parent is None
