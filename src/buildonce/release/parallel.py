"""Many questions to a registry at once, a few at a time; the first failure is raised as it is.

manifests = await each(lambda child: registry.manifest(repository, child.digest), children)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import anyio

from buildonce.errors import leaves

T = TypeVar("T")
R = TypeVar("R")


async def each(
    function: Callable[[T], Awaitable[R]], items: Iterable[T], *, at_once: int = 8
) -> list[R]:
    """What `function` gives for each of the items, in their order.

    Args:
        at_once: how many of the calls may run at a time.
    """
    todo = list(items)
    results: dict[int, R] = {}
    limiter = anyio.CapacityLimiter(at_once)

    async def call(number: int, item: T) -> None:
        async with limiter:
            results[number] = await function(item)

    try:
        async with anyio.create_task_group() as tasks:
            for number, item in enumerate(todo):
                tasks.start_soon(call, number, item)
    except BaseExceptionGroup as group:
        # One reason is enough, and the callers speak of registry errors, not of groups of them.
        raise leaves(group)[0] from None
    return [results[number] for number in range(len(todo))]
