"""A clock that the test holds: nothing waits, time is what was slept."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import anyio.lowlevel

BEGIN = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)


class SimulatedClock:
    """A `buildonce.delivery.clock.Clock` of which the simulation reads the time too."""

    def __init__(self) -> None:
        self._passed = 0.0
        self._lock = threading.Lock()

    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=self._passed)

    def monotonic(self) -> float:
        return self._passed

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)
        await anyio.lowlevel.checkpoint()

    def advance(self, seconds: float) -> None:
        """Let time pass, from any thread."""
        with self._lock:
            self._passed += seconds
