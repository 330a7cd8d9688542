"""Holding a lease while a block runs, wherever leases are kept: waiting, renewing, giving back.

    def hold(self, environment, *, run, wait=False, say=quiet):
        return holding(lambda: self._take(environment, run), environment, term=self.term, …)

A store of leases has to take one or say who has it, all the rest is here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
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


@asynccontextmanager
async def holding(
    take: Callable[[], Awaitable[Taken | Busy]],
    environment: str,
    *,
    term: timedelta,
    clock: Clock,
    every: float,
    wait: bool,
    say: Callable[[str], None],
) -> AsyncIterator[Lease]:
    """Hold the lease that `take` takes while the block runs; see `Leases.hold`.

    Args:
        take: takes it, or says who has it.
        environment: for messages.
        term: how long it lasts without renewal.
        clock: by which it waits and renews.
        every: seconds between two attempts to take it.
        wait, say: as in `Leases.hold`.

    Raises (on entering):
        EnvironmentBusy: it is taken and `wait` is false.
    """
    began, told = clock.monotonic(), None
    while isinstance(found := await take(), Busy):
        message = f"environment {environment} is being deployed to by {found.holder}"
        if not wait and not found.silent:
            raise EnvironmentBusy(
                message, remedy="wait for it to end, or give --wait to wait in this command"
            )
        now = clock.monotonic()
        if told is None or now - told >= _REMIND:
            silent = ", which does not renew its lease" if found.silent else ""
            say(
                f"{message}{silent}; waiting"
                + ("" if told is None else f" for {now - began:.0f} s")
            )
            told = now
        await clock.sleep(every)
    failure: Exception | None = None
    try:
        async with anyio.create_task_group() as group:
            renewing = anyio.CancelScope(shield=True)  # also while something is put back
            group.start_soon(_renew, found, renewing, clock, term.total_seconds() / 3)
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
