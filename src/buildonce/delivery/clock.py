"""The time as delivery sees it: every wait goes through a clock, so that tests can hold it.

await clock.sleep(60)
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

import anyio


class Clock(Protocol):
    """What time it is, and waiting."""

    def now(self) -> datetime:
        """The time, UTC: for records, expiries and windows. May jump."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back: for measuring."""

    async def sleep(self, seconds: float) -> None:
        """Wait; 0 lets others run."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


SYSTEM_CLOCK = SystemClock()
