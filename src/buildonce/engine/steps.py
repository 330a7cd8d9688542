"""The daemon's progress as the session's events: which step ran, for whom, with what output."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from buildonce.engine.buildkit import StatusUpdate
from buildonce.engine.events import LogEvent, NoteEvent, OnEvent, VertexEvent
from buildonce.engine.giving_way import IN_THE_WAY
from buildonce.engine.text import text

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from buildonce.engine.buildkit.proto.control_pb2 import Vertex

LAST_WORDS = 4096  # bytes
# What runs a command: ours, and a Dockerfile's. The rest only matters when it takes long or fails.
_COMMAND = re.compile(r"^exec |\] RUN ")


class Steps:
    """Turns the daemon's updates into events."""

    def __init__(self, on_event: OnEvent, asker: Callable[[], str | None]) -> None:
        self._on_event = on_event
        self._asker = asker
        self._spans: dict[str, str] = {}
        self._said: dict[str, bytes] = {}
        self._noted: set[str] = set()
        self._began = time.time()
        self._running: set[str] = set()  # seen running, and not seen to end well
        self._now: set[str] = set()  # those of them that have not ended

    def note(self, text: str) -> None:
        """Tell the user something, once."""
        if text not in self._noted:
            self._noted.add(text)
            self._on_event(NoteEvent(text))

    def asked_for(self, digests: Iterable[str]) -> None:
        """Note who asks for these vertices now; the first asker of a vertex owns it."""
        span = self._asker()
        if span is not None:
            for digest in digests:
                self._spans.setdefault(digest, span)

    def runs(self, digest: str) -> bool:
        """Whether the step has begun and not ended, as far as the daemon has told."""
        return digest in self._now

    def last_words(self, digest: str) -> str:
        """The end of what a step that failed has printed."""
        return text(self._said.get(digest, b"")).strip()

    def update(self, status: StatusUpdate) -> None:
        """Take one update of the daemon."""
        for vertex in status.vertexes:
            name = vertex.name
            self._on_event(
                VertexEvent(
                    id=vertex.digest,
                    parent_span=self._spans.get(vertex.digest),
                    name=name,
                    started=_seconds(vertex.started) if vertex.HasField("started") else None,
                    completed=_seconds(vertex.completed) if vertex.HasField("completed") else None,
                    cached=vertex.cached or self._is_of_another_run(vertex),
                    error=None if IN_THE_WAY.search(vertex.error) else vertex.error or None,
                    internal=_COMMAND.search(name) is None,
                )
            )
            if vertex.HasField("started"):
                self._now.add(vertex.digest)
            if vertex.HasField("completed"):
                self._now.discard(vertex.digest)
            if vertex.HasField("completed") and not vertex.error:
                self._running.discard(vertex.digest)
                self._said.pop(vertex.digest, None)
        for log in status.logs:
            self._said[log.vertex] = (self._said.get(log.vertex, b"") + log.msg)[-LAST_WORDS:]
            self._on_event(LogEvent(log.vertex, log.stream, log.msg))

    def _is_of_another_run(self, vertex: Vertex) -> bool:
        """Whether a step had ended when this session began, in one that shares the daemon.

        The daemon then tells of it as if it ran now. That it was never seen running has to be
        known too: the daemon may be elsewhere, with another clock.
        """
        if not vertex.HasField("completed"):
            if vertex.HasField("started"):
                self._running.add(vertex.digest)
            return False
        return vertex.digest not in self._running and _seconds(vertex.completed) < self._began


def _seconds(stamp: Timestamp) -> float:
    return float(stamp.seconds) + float(stamp.nanos) / 1e9
