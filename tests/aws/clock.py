"""A clock that the test holds: nothing waits, and time passes only when nobody works any more.

    async with clock.running():
        await deploy(…, clock=clock)        # hours of bakes, in milliseconds

Who sleeps is woken in order, each only once everybody else sleeps too: no task is left that could
run, and no thread works for one. So two who wait side by side see the same times as in real life.
"""

from __future__ import annotations

import asyncio
import heapq
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, TypeVar

import anyio.lowlevel
import anyio.to_thread

BEGIN = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)

_T = TypeVar("_T")


class SimulatedClock:
    """A `buildonce.delivery.clock.Clock` of which the simulation reads the time too."""

    def __init__(self) -> None:
        self._passed = 0.0
        self._lock = threading.Lock()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._serial = count()
        self._at_work = 0
        self._looking = False
        self._held: asyncio.AbstractEventLoop | None = None

    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=self._passed)

    def monotonic(self) -> float:
        return self._passed

    async def sleep(self, seconds: float) -> None:
        if self._held is None:
            # Nobody looks whether others work: whoever sleeps is alone.
            self.advance(seconds)
            await anyio.lowlevel.checkpoint()
            return
        woken = self._held.create_future()
        heapq.heappush(self._sleepers, (self._passed + seconds, next(self._serial), woken))
        self._look_soon()
        await woken

    def advance(self, seconds: float) -> None:
        """Let time pass, from any thread."""
        with self._lock:
            self._passed += seconds

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While the block runs, time passes when all of its tasks sleep; work in threads counts."""
        run_sync: Callable[..., Awaitable[Any]] = anyio.to_thread.run_sync

        async def counted(function: Callable[..., _T], *args: object, **options: Any) -> _T:
            with self.busy():
                found: _T = await run_sync(function, *args, **options)
                return found

        self._held = asyncio.get_running_loop()
        anyio.to_thread.run_sync = counted  # type: ignore[assignment]
        try:
            yield
        finally:
            anyio.to_thread.run_sync = run_sync  # type: ignore[assignment]
            self._held = None
            self._sleepers.clear()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Time stands while the block runs: for real waits, such as that for a registry."""
        self._at_work += 1
        try:
            yield
        finally:
            self._at_work -= 1
            self._look_soon()

    def _look_soon(self) -> None:
        if self._held is not None and not self._looking:
            self._looking = True
            self._held.call_soon(self._look)

    def _look(self) -> None:
        self._looking = False
        if self._held is None:
            return
        if self._at_work:
            return  # whoever works looks again at the end
        if self._held._ready:  # type: ignore[attr-defined]  # others can still run
            self._look_soon()
            return
        while self._sleepers:
            until, _, woken = heapq.heappop(self._sleepers)
            if woken.done():  # cancelled meanwhile
                continue
            with self._lock:
                self._passed = max(self._passed, until)
            woken.set_result(None)
            if self._sleepers:
                self._look_soon()
            return
