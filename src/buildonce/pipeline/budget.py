"""A time budget that stands still while a person is awaited.

budget = Budget(timedelta(minutes=30))
with budget.running():
    with budget.paused():          # an approval may take all night
        ...
budget.spent                       # whether it ended the block
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import anyio


class Budget:
    """How long a block may take.

    Args:
        allowed: None for ever.
    """

    def __init__(self, allowed: timedelta | None) -> None:
        self.allowed = allowed
        self._scope = anyio.CancelScope()
        self._waits = 0
        self._since = self._awaited = 0.0

    @property
    def spent(self) -> bool:
        """Whether it ended, or is ending, its block."""
        return self._scope.cancel_called

    @property
    def ended(self) -> bool:
        """Whether the block really gave way to it."""
        return self._scope.cancelled_caught

    @property
    def awaited(self) -> float:
        """Seconds for which people were awaited."""
        return self._awaited + (anyio.current_time() - self._since if self._waits else 0.0)

    @contextmanager
    def running(self) -> Iterator[None]:
        """End the block when the budget is spent."""
        if self.allowed is not None:
            self._scope.deadline = anyio.current_time() + self.allowed.total_seconds()
        with self._scope:
            yield

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time in the block does not count; side by side, the first begins and the last ends it."""
        if not self._waits:
            self._since = anyio.current_time()
            self._left = self._scope.deadline - self._since
            self._scope.deadline = float("inf")
        self._waits += 1
        try:
            yield
        finally:
            self._waits -= 1
            if not self._waits:
                self._awaited += anyio.current_time() - self._since
                self._scope.deadline = anyio.current_time() + self._left
