"""A lease on an environment: one rollout at a time, also when its holder is cut off and comes back.

    async with leases.hold("production", run=run) as lease:
        await lease.check()             # before each write: still mine, and longer so
        ...

A lease ends by itself when it is not renewed. Each holder gets a token greater than all before it
(a fence): what is written with a smaller token than the last one seen comes from somebody who lost
the lease without noticing, and is refused by those who can tell.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from buildonce.delivery.errors import DeliveryError


class LeaseLost(DeliveryError):
    """Somebody else may be deploying to the environment: whoever gets this writes nothing more."""


class Lease(Protocol):
    """Held. It is renewed in the background while the block that holds it runs."""

    @property
    def token(self) -> int:
        """Greater than that of every earlier holder of this environment's lease; at least 1."""

    async def check(self) -> None:
        """Return while the lease is held, and renew it.

        Raises:
            LeaseLost: it expired or was taken, or that cannot be found out in time.
        """


class Leases(Protocol):
    """Where leases are kept: SQLite on this machine, DynamoDB for a team."""

    def hold(
        self,
        environment: str,
        *,
        run: str,
        wait: bool = False,
        say: Callable[[str], None] = ...,
    ) -> AbstractAsyncContextManager[Lease]:
        """Hold the environment's lease while the block runs.

        Args:
            environment: its name.
            run: id of the run that wants it, for those who find it taken.
            wait: wait for the holder instead of failing.
            say: told whom it waits for, and from time to time for how long.

        Raises (on entering):
            EnvironmentBusy: it is taken and `wait` is false; the message names the holder.
        """

    async def holder(self, environment: str) -> str | None:
        """Who holds it ("run … (process …, since …)"); None when it is free. Changes nothing."""
