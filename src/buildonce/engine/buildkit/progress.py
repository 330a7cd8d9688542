"""Following what the daemon does for several jobs as if it were one.

The daemon tells every job about all of its operations from their beginning, even those that
another job of ours has already told about. Each operation is taken from one job only: the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from buildonce.engine.buildkit.calls import CONTROL, Caller
from buildonce.engine.buildkit.errors import BuildkitError
from buildonce.engine.buildkit.proto import control_pb2

OnStatus = Callable[[control_pb2.StatusResponse], None]

# What a daemon still has to say when a job has ended arrives within this time, in seconds.
LAST_WORDS = 3.0


class Progress:
    """Where the jobs of one build tell what they do."""

    def __init__(self, on_status: OnStatus | None) -> None:
        self._on_status = on_status
        self._tellers: dict[str, str] = {}  # jobs by vertex

    def claim(self, job: str, vertices: Iterable[str]) -> None:
        """Let `job` tell about those vertices that no other tells about."""
        for vertex in vertices:
            self._tellers.setdefault(vertex, job)

    def release(self, job: str) -> None:
        """Let another job tell about the vertices of one that has come to nothing."""
        self._tellers = {v: teller for v, teller in self._tellers.items() if teller != job}

    def follow(self, caller: Caller, job: str) -> asyncio.Task[None] | None:
        """Follow a job until it has ended; None when nobody listens."""
        if self._on_status is None:
            return None
        return asyncio.create_task(self._follow(caller, job, self._on_status))

    async def _follow(self, caller: Caller, job: str, on_status: OnStatus) -> None:
        request = control_pb2.StatusRequest(Ref=job)
        updates = caller.stream(CONTROL + "Status", request, control_pb2.StatusResponse)
        try:
            async for update in updates:
                mine = self._filter(job, update)
                if mine is not None:
                    on_status(mine)
        except BuildkitError:
            return  # the job itself says what is wrong

    def _filter(
        self, job: str, update: control_pb2.StatusResponse
    ) -> control_pb2.StatusResponse | None:
        def mine(vertex: str) -> bool:
            return self._tellers.setdefault(vertex, job) == job

        result = control_pb2.StatusResponse(
            vertexes=[v for v in update.vertexes if mine(v.digest)],
            statuses=[s for s in update.statuses if mine(s.vertex)],
            logs=[entry for entry in update.logs if mine(entry.vertex)],
            warnings=[w for w in update.warnings if mine(w.vertex)],
        )
        return result if result.ByteSize() else None


async def last_words(task: asyncio.Task[None] | None) -> None:
    """Wait a while for the end of what a job that has ended tells."""
    if task is None:
        return
    await asyncio.wait([task], timeout=LAST_WORDS)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
