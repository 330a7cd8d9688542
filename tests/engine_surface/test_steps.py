"""What is told of the daemon's steps."""

from __future__ import annotations

import time

import pytest

from buildonce.engine.buildkit import StatusUpdate
from buildonce.engine.events import EngineEvent, VertexEvent
from buildonce.engine.steps import Steps


def update(started: float | None, completed: float | None) -> StatusUpdate:
    status = StatusUpdate()
    vertex = status.vertexes.add(digest="sha256:1", name="exec make")
    if started is not None:
        vertex.started.FromNanoseconds(int(started * 1e9))
    if completed is not None:
        vertex.completed.FromNanoseconds(int(completed * 1e9))
    return status


@pytest.mark.parametrize(
    ("times", "cached"),
    [
        ([(None, None), (-60, -50)], True),  # another run of the same daemon did it, and still runs
        ([(-60, None), (-60, 5)], False),  # it was at it when this one came
        ([(1, None), (1, 2)], False),
        ([(1, 2)], False),
        ([(-3600, None), (-3600, -3599)], False),  # the daemon's clock is an hour behind ours
    ],
)
def test_a_step_that_ended_before_this_session_is_not_counted_as_run_by_it(
    times: list[tuple[float | None, float | None]], cached: bool
) -> None:
    events: list[EngineEvent] = []
    now = time.time()
    steps = Steps(events.append, lambda: None)
    for started, completed in times:
        steps.update(
            update(
                None if started is None else now + started,
                None if completed is None else now + completed,
            )
        )
    last = events[-1]
    assert isinstance(last, VertexEvent)
    assert last.cached is cached
