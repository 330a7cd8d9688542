"""What a rollout does, told to people and to the ledger: each step before it is done and after.

    async with recorder.step("shift", percent=10) as found:
        ...
        found["answers"] = 40            # recorded with the step's end

Nothing is recorded once the environment's lease is lost: by then it is another's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from buildonce.delivery.decision import Decision
from buildonce.delivery.lease import Lease
from buildonce.delivery.options import Options
from buildonce.delivery.saying import TELL, describe
from buildonce.ledger import LedgerError


class Recorder:
    """Writes the events of one rollout.

    Args:
        rollout: its id.
        environment: where.
        lease: held while it goes on.
        options: has the ledger, the run, the clock and who is told.
        decision: has the cause, where a step was ended because of another environment.
    """

    def __init__(
        self, rollout: str, environment: str, lease: Lease, options: Options, decision: Decision
    ) -> None:
        self._common = {"rollout": rollout, "environment": environment}
        self._environment = environment
        self._lease = lease
        self._options = options
        self._decision = decision
        self._began = options.clock.monotonic()

    def say(self, text: str) -> None:
        """Tell people."""
        self._options.progress(f"{self._environment}: {text}")

    async def started(self, **data: Any) -> None:
        """The rollout begins."""
        await self._append("rollout.started", **data)

    @asynccontextmanager
    async def step(self, name: str, **data: Any) -> AsyncIterator[dict[str, Any]]:
        """Record a step before and after it; what is put into the dictionary goes with its end."""
        self.say(TELL[name].format(**data) if name in TELL else name)
        await self.record(name, state="started", **data)
        clock = self._options.clock
        began = clock.monotonic()
        found: dict[str, Any] = {}
        try:
            yield found
        except BaseException as error:
            cause = describe(error)
            if isinstance(error, anyio.get_cancelled_exc_class()) and self._decision.cause:
                cause = describe(self._decision.cause)
            took = clock.monotonic() - began
            await self.quietly(name, state="failed", seconds=took, cause=cause, **found)
            raise
        took = clock.monotonic() - began
        await self.record(name, state="done", **{**data, "seconds": took, **found})

    async def record(self, step: str, **data: Any) -> None:
        """Record one fact of it."""
        await self._append("rollout.step", step=step, data=data)

    async def finished(
        self, result: str, digest: str | None, cause: str | None, **more: Any
    ) -> None:
        """Record its end, and what runs now."""
        seconds = max(0.0, self._options.clock.monotonic() - self._began)
        await self._append(
            "rollout.finished", result=result, digest=digest, seconds=seconds, cause=cause, **more
        )

    async def quietly(self, step: str, **data: Any) -> None:
        """As `record`; a ledger that fails neither hides the first failure nor stops the way back.

        Raises:
            LeaseLost: as always.
        """
        try:
            await self.record(step, **data)
        except LedgerError as error:
            self.say(f"not recorded: {describe(error)}")

    async def finished_quietly(
        self, result: str, digest: str | None, cause: str, **more: Any
    ) -> None:
        """As `finished`, with the same patience."""
        try:
            await self.finished(result, digest, cause, **more)
        except LedgerError as error:
            self.say(f"not recorded: {describe(error)}")

    async def _append(self, kind: str, **data: Any) -> None:
        with anyio.CancelScope(shield=True):
            await self._lease.check()
        ledger, run = self._options.ledger, self._options.run
        await ledger.append(kind, run=run, data={**self._common, **data})
