"""Holding a lease while a block runs, wherever leases are kept: waiting, renewing, giving back.

    class Leases(StoredLeases):
        async def take(self, environment, run): ...      # it, or `Busy` with who has it

A store of leases has to take one or say who has it, all the rest is here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import anyio

from buildonce.delivery.clock import Clock
from buildonce.delivery.errors import EnvironmentBusy
from buildonce.delivery.lease import Lease, LeaseLost

TERM = timedelta(seconds=30)
"""How long a lease lasts without renewal; it is renewed three times in that."""

_REMIND = 60.0


class Taken(Lease, Protocol):
    """A lease that this process took."""

    async def release(self) -> None:
        """Give it back; one that is lost or cannot be reached is no failure."""


@dataclass(frozen=True)
class Busy:
    """Somebody has it.

    Attributes:
        holder: who: "run … (process …, since …)".
        silent: they did not renew it in time; whether they are gone shows when it is asked again.
    """

    holder: str
    silent: bool = False


class StoredLeases(ABC):
    """`Leases` that are kept somewhere: what is the same wherever that is.

    Args:
        term: how long a lease lasts without renewal.
        clock: the time.
        every: seconds between two attempts to take a lease that somebody has.
    """

    def __init__(self, *, term: timedelta, clock: Clock, every: float) -> None:
        self.term = term
        self.clock = clock
        self._every = every

    @abstractmethod
    async def take(self, environment: str, run: str) -> Taken | Busy:
        """Take it, or say who has it; a single attempt."""

    @asynccontextmanager
    async def hold(
        self,
        environment: str,
        *,
        run: str,
        wait: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> AsyncIterator[Lease]:
        """As `Leases.hold`."""
        began, told = self.clock.monotonic(), None
        while isinstance(found := await self.take(environment, run), Busy):
            message = f"environment {environment} is being deployed to by {found.holder}"
            if not wait and not found.silent:
                raise EnvironmentBusy(
                    message, remedy="wait for it to end, or give --wait to wait in this command"
                )
            now = self.clock.monotonic()
            if told is None or now - told >= _REMIND:
                silent = ", which does not renew its lease" if found.silent else ""
                waited = "" if told is None else f" for {now - began:.0f} s"
                say(f"{message}{silent}; waiting{waited}")
                told = now
            await self.clock.sleep(self._every)
        failure: Exception | None = None
        try:
            async with anyio.create_task_group() as group:
                renewing = anyio.CancelScope(shield=True)  # also while something is put back
                group.start_soon(_renew, found, renewing, self.clock, self.term.total_seconds() / 3)
                try:
                    yield found
                except Exception as error:
                    failure = error  # the task group would wrap it
                finally:
                    renewing.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await found.release()
        if failure is not None:
            raise failure


async def _renew(lease: Lease, scope: anyio.CancelScope, clock: Clock, every: float) -> None:
    with scope:
        while True:
            await clock.sleep(every)
            with suppress(LeaseLost):  # the holder hears of it before its next write
                await lease.check()


def lost(environment: str, how: str) -> LeaseLost:
    """The error of who lost it."""
    return LeaseLost(
        f"the lease on environment {environment} is lost: {how}; nothing more is done there by "
        "this process",
        remedy=f"buildonce status; then buildonce resume {environment}",
    )
