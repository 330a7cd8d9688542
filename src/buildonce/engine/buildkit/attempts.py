"""Solving so that what failed may be tried again.

The daemon remembers a failure for as long as any job knows of the operation that failed, and
answers with it without running anything. In a build that stays open for hours a step could then
never be retried. So each graph is first solved in a job of its own, which is closed if it fails,
and only what has succeeded is solved, from memory then, in the build's job that stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from hashlib import sha256
from typing import Any

from buildonce.engine.buildkit.errors import SolveError
from buildonce.engine.buildkit.job import Job
from buildonce.engine.buildkit.progress import Progress
from buildonce.engine.buildkit.proto import gateway_pb2, ops_pb2

# How long what a failed command has left stays readable, in seconds.
KEEP = 10.0


def vertices(definition: ops_pb2.Definition) -> list[str]:
    """The digests of a definition's operations; the last is the terminal's."""
    return ["sha256:" + sha256(data).hexdigest() for data in getattr(definition, "def")]


class Attempts:
    """The jobs for one try each of one build."""

    def __init__(self, open_job: Callable[[], Job], progress: Progress) -> None:
        self._open = open_job
        self._progress = progress
        self._good: set[str] = set()  # terminals of graphs that have succeeded
        self._failed: dict[str, Job] = {}  # by the vertex that failed
        self._closing: set[asyncio.Task[None]] = set()

    async def solve(
        self, request: gateway_pb2.SolveRequest, main: Job
    ) -> gateway_pb2.SolveResponse:
        """Solve, so that `main` never learns of a failure.

        Raises:
            SolveError: a step failed; `SolveError.job` is where its mounts are, for a while.
        """
        digests = vertices(request.Definition)
        if not digests or digests[-1] in self._good:
            return await main.call("Solve", request, gateway_pb2.SolveResponse, request.Definition)
        for digest in digests:
            if digest in self._failed:
                await self._end(self._failed.pop(digest))
        job = self._open()
        self._progress.claim(job.ref, digests)
        try:
            await job.call("Solve", request, gateway_pb2.SolveResponse, request.Definition)
            answer = await main.call(
                "Solve", request, gateway_pb2.SolveResponse, request.Definition
            )
        except SolveError as error:
            error.job = job
            self._keep(error.vertex or "", job)
            raise
        except BaseException:
            self._close(self._end(job))
            raise
        self._good.add(digests[-1])
        self._close(job.close())
        return answer

    def _keep(self, vertex: str, job: Job) -> None:
        earlier = self._failed.pop(vertex, None)
        if earlier is not None:
            self._close(self._end(earlier))
        self._failed[vertex] = job

        def expire() -> None:
            if self._failed.get(vertex) is job:
                del self._failed[vertex]
                self._close(self._end(job))

        asyncio.get_running_loop().call_later(KEEP, expire)

    async def _end(self, job: Job) -> None:
        """Close a job that came to nothing; the next one tells about its vertices, once it has
        told all it had to."""
        await job.close()
        self._progress.release(job.ref)

    def _close(self, closing: Coroutine[Any, Any, None]) -> None:
        # Nobody need wait for it.
        task = asyncio.create_task(closing)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """End what is left."""
        for job in self._failed.values():
            self._close(job.close())
        self._failed.clear()
        if self._closing:
            await asyncio.wait(list(self._closing))
