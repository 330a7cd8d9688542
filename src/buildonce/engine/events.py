"""What the engine tells while it works: steps that start and end, and what they print.

The spans of the user's program, under which those steps are shown, are told in the same way.

    on_event(VertexEvent("sha256:1f…", parent_span="00f067aa0ba902b7", name="exec make test",
                         started=now))
    on_event(LogEvent("sha256:1f…", stream=1, data=b"12 passed\\n"))
    on_event(VertexEvent("sha256:1f…", parent_span="00f067aa0ba902b7", name="exec make test",
                         started=now, completed=later))

An event says all that is known about its step; the newest one counts. Times are seconds since the
epoch, as `time.time()` gives them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

STDOUT = 1
STDERR = 2


@dataclass(frozen=True, slots=True)
class VertexEvent:
    """One step of the engine: a command, a pull, a copy.

    Attributes:
        id: stays the same through the step's life; unique in the session.
        parent_span: the span (16 hex digits, of the query's `traceparent`) that asked for it.
        cached: its result was there already; nothing ran.
        error: why it failed, in one line where possible; None while it has not.
        internal: plumbing that only matters when it fails or takes long.
    """

    id: str
    parent_span: str | None
    name: str
    started: float | None = None
    completed: float | None = None
    cached: bool = False
    error: str | None = None
    internal: bool = False


@dataclass(frozen=True, slots=True)
class LogEvent:
    """A piece of what a step printed; pieces need not end at the ends of lines.

    Attributes:
        vertex: the `VertexEvent.id` it belongs to.
        stream: 1 for standard output, 2 for standard error.
    """

    vertex: str
    stream: int
    data: bytes


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """A span of the user's program (a stage, a check): sent when it starts and when it ends.

    Attributes:
        id, parent: 16 hex digits; None for a span without parent.
        error: its status, when that is an error; may be the empty string.
    """

    id: str
    parent: str | None
    name: str
    started: float
    completed: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class SpanLogEvent:
    """A log record of the user's program, within a span."""

    span: str
    text: str


@dataclass(frozen=True, slots=True)
class NoteEvent:
    """Something that the user should know of this machine; told once a session."""

    text: str


EngineEvent: TypeAlias = VertexEvent | LogEvent | NoteEvent
Event: TypeAlias = EngineEvent | SpanEvent | SpanLogEvent
OnEvent: TypeAlias = Callable[[EngineEvent], None]
