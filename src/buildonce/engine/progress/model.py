"""What a run has done and is doing: a tree of the program's spans and the engine's steps.

    model = Model()
    model.apply(SpanEvent("a1…", None, "commit", started=…))
    model.apply(VertexEvent("sha256:…", "a1…", "exec pytest", started=…))
    model.roots[0].children[0].running        # True

Pure data: no clock, no output. Views look at it, or listen to what changes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from buildonce.engine.events import (
    Event,
    LogEvent,
    NoteEvent,
    SpanEvent,
    SpanLogEvent,
    VertexEvent,
)
from buildonce.engine.progress.text import clean, one_line

TAIL_LINES = 40
_LONGEST_LINE = 1_000  # characters
_MOST_NODES = 20_000  # more than that is counted, not shown


class Kind(Enum):
    SPAN = "span"  # of the user's program
    STEP = "step"  # of the engine


class Change(Enum):
    STARTED = "started"
    ENDED = "ended"
    LOGGED = "logged"


class Tail:
    """The last lines of a log, whole lines whatever pieces they come in."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=TAIL_LINES)
        self._pending: dict[int, bytes] = {}

    def add(self, stream: int, data: bytes) -> None:
        """Take the next piece of a stream."""
        *whole, rest = (self._pending.get(stream, b"") + data).split(b"\n")
        for line in whole[-TAIL_LINES:]:
            self.add_line(line.decode("utf-8", "replace"))
        self._pending[stream] = rest[-4 * _LONGEST_LINE :]

    def add_line(self, line: str) -> None:
        self.lines.append(clean(line[: 4 * _LONGEST_LINE]).expandtabs(4)[:_LONGEST_LINE])

    def flush(self) -> None:
        """Take what has no newline yet as a line."""
        for rest in self._pending.values():
            if rest:
                self.add_line(rest.decode("utf-8", "replace"))
        self._pending.clear()


@dataclass(eq=False, slots=True)
class Node:
    """A span or a step.

    Attributes:
        parent: None at the top, and while the parent has not been heard of.
        started, completed: seconds since the epoch.
        error: why it failed; the empty string when nothing is said about it.
        orphan: its parent has not been heard of (a client tells of its spans after 0.1 s).
    """

    id: str
    kind: Kind
    name: str = ""
    parent: Node | None = None
    children: list[Node] = field(default_factory=list)
    started: float | None = None
    completed: float | None = None
    cached: bool = False
    error: str | None = None
    internal: bool = False
    orphan: bool = False
    tail: Tail = field(default_factory=Tail)

    @property
    def running(self) -> bool:
        return self.started is not None and self.completed is None

    @property
    def failed(self) -> bool:
        return self.error is not None

    @property
    def top(self) -> Node:
        """The outermost node that it is known to stand under; itself when there is none."""
        return next(reversed([self, *self.ancestors()]))

    def ancestors(self) -> Iterator[Node]:
        node = self.parent
        while node is not None:
            yield node
            node = node.parent

    def elapsed(self, now: float) -> float:
        """Seconds from its start to its end, or to `now`."""
        if self.started is None:
            return 0.0
        return max(0.0, (self.completed if self.completed is not None else now) - self.started)

    def walk(self) -> Iterator[Node]:
        """This node and all below it."""
        pending = [self]
        while pending:
            node = pending.pop()
            yield node
            pending.extend(reversed(node.children))

    @property
    def path(self) -> str:
        """Its name under the names of the spans around it."""
        names = [node.name for node in self.ancestors() if node.kind is Kind.SPAN]
        return " / ".join([*reversed(names), self.name])


Listener: TypeAlias = Callable[[Node, Change], None]


@dataclass(slots=True)
class Counts:
    """How the engine's steps ended."""

    executed: int = 0
    cached: int = 0
    failed: int = 0


class Model:
    """Everything known about a run.

    Args:
        root: the span of the run itself; its children are the top of the tree.
    """

    def __init__(self, root: str | None = None) -> None:
        self._root = root
        self._spans: dict[str, Node] = {}
        self._steps: dict[str, Node] = {}
        self._orphans: dict[str, list[Node]] = {}
        self._listeners: list[Listener] = []
        self.roots: list[Node] = []
        self.counts = Counts()

    def listen(self, listener: Listener) -> None:
        """Call `listener` with each node that starts, ends or logs."""
        self._listeners.append(listener)

    def apply(self, event: Event) -> None:
        """Take note of an event. Events may come in any order, and again."""
        match event:
            case SpanEvent():
                self._span(event)
            case VertexEvent():
                self._step(event)
            case LogEvent():
                if node := self._steps.get(event.vertex):
                    node.tail.add(event.stream, event.data)
                    self._tell(node, Change.LOGGED)
            case SpanLogEvent():
                if node := self._spans.get(event.span):
                    for line in event.text.splitlines()[-TAIL_LINES:]:
                        node.tail.add_line(line)
                    self._tell(node, Change.LOGGED)
            case NoteEvent():
                pass  # of the machine, not of any step

    def _span(self, event: SpanEvent) -> None:
        if event.id == self._root:
            return
        node = self._spans.get(event.id)
        if node is None:
            if len(self._spans) >= _MOST_NODES:
                return
            node = self._spans[event.id] = Node(event.id, Kind.SPAN, one_line(event.name))
            node.started = event.started
            self._place(node, event.parent)
            for orphan in self._orphans.pop(event.id, ()):
                orphan.orphan = False
                self._move(orphan, node)
            self._tell(node, Change.STARTED)
        node.name = one_line(event.name)
        if event.completed is not None and node.completed is None:
            node.completed = event.completed
            node.error = event.error
            node.tail.flush()
            self._tell(node, Change.ENDED)

    def _step(self, event: VertexEvent) -> None:
        node = self._steps.get(event.id)
        if node is None:
            node = Node(event.id, Kind.STEP, one_line(event.name), internal=event.internal)
            if len(self._steps) < _MOST_NODES:
                self._steps[event.id] = node
                self._place(node, event.parent_span)
        if node.completed is not None:
            return  # asked for again: the first time says whether it ran
        if event.started is not None and node.started is None:
            node.started = event.started
            if not event.cached and event.completed is None:
                self._tell(node, Change.STARTED)
        if event.completed is not None or event.cached:
            node.completed = event.completed or event.started
            node.cached = event.cached
            node.error = None if event.error is None else clean(event.error)
            node.tail.flush()
            self._count(node)
            self._tell(node, Change.ENDED)

    def _count(self, node: Node) -> None:
        if node.failed:
            self.counts.failed += 1
        elif not node.internal and node.cached:
            self.counts.cached += 1
        elif not node.internal:
            self.counts.executed += 1

    def _place(self, node: Node, parent: str | None) -> None:
        found = self._spans.get(parent) if parent else None
        if found and found is not node:
            self._move(node, found)
            return
        self.roots.append(node)
        if parent and parent != self._root:
            # A span ends after those within it, and a client that sends only ended spans tells of
            # it last.
            node.orphan = True
            self._orphans.setdefault(parent, []).append(node)

    def _move(self, node: Node, parent: Node) -> None:
        if node is parent or node in parent.ancestors():
            return  # a broken client; what is wrong with it is not for us to say
        if node.parent is None and node in self.roots:
            self.roots.remove(node)
        node.parent = parent
        parent.children.append(node)

    def _tell(self, node: Node, change: Change) -> None:
        for listener in self._listeners:
            listener(node, change)

    def nodes(self) -> Iterator[Node]:
        """All nodes, those above before those below."""
        for root in self.roots:
            yield from root.walk()


def summary(model: Model, seconds: float) -> str:
    """The run in one line: `7 executed, 12 cached, 3.2s`."""
    counts = model.counts
    failed = f", {counts.failed} failed" if counts.failed else ""
    return f"{counts.executed} executed, {counts.cached} cached{failed}, {seconds:.1f} s"
