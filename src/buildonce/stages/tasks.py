"""Things that a stage does side by side, and the one error that it ends with.

    async with tasks() as group:
        group.start_soon(scan, files)
        group.start_soon(scan, history)

Whoever calls a stage function is to meet the error that it documents, and no group around it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

from buildonce.errors import leaves


@asynccontextmanager
async def tasks() -> AsyncIterator[TaskGroup]:
    """A task group that raises the first error of its tasks as it is.

    The others' are lost: they were cancelled, or would fail for the same cause.
    """
    try:
        async with anyio.create_task_group() as group:
            yield group
    except BaseExceptionGroup as failed:
        first = leaves(failed)[0]
        raise first from first.__cause__
