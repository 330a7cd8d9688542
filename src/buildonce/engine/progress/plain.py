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
        self._lines: list[str] = []
        self._last_sign = self._start
        model.listen(self._changed)

    def pending(self) -> str:
        """The lines since the last call."""
        self._sign_of_life()
        lines, self._lines = self._lines, []
        return "".join(lines)

    def last(self, summary: str) -> str:
        """The lines since the last call, and the summary."""
        self._line(summary)
        return self.pending()

    def _changed(self, node: Node, change: Change) -> None:
        if change is Change.STARTED and _is_stage(node):
            self._line(f"{node.path}: started")
        elif change is Change.ENDED:
            self._ended(node)

    def _ended(self, node: Node) -> None:
        took = node.elapsed(self._clock())
        if node.failed:
            error = one_line(node.error or "")
            self._line(
                f"{node.path}: failed after {duration(took)}" + (f": {error}" if error else "")
            )
            self._tail(node)
        elif (took >= _WORTH_A_LINE and not node.cached) or _is_stage(node):
            self._line(f"{node.path}: done in {duration(took)}")

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
            self._line(f"{node.path}: still running after {duration(node.elapsed(now))}")

    def note(self, text: str) -> None:
        """A message of the tool itself."""
        for line in clean(text).splitlines():
            self._line(line)

    def _line(self, text: str) -> None:
        self._last_sign = self._clock()
        self._lines.append(f"[{self._last_sign - self._start:7.1f}s] {text}\n")


def _is_stage(node: Node) -> bool:
    return node.kind is Kind.SPAN and node.parent is None
