"""A guard: looks at the watches of one rollout from its first shift to the end, and calls a halt.

    guard = Guard(watches, every=5, clock=clock, record=record, say=say)
    group.start_soon(guard.stand)             # raises Breached the moment that one is in breach
    await clock.sleep(interval)
    verdict = await guard.look()              # may the next step be taken?

A watch that cannot be seen (an error, no answer in time) is inconclusive: no news is no good news
and no bad news either.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import anyio

from buildonce.delivery.clock import Clock
from buildonce.delivery.errors import Breached
from buildonce.delivery.watch import Verdict, Watch

PATIENCE = 30.0
"""Seconds for a watch to answer."""

Record = Callable[[str, Verdict], Awaitable[None]]


class Guard:
    """Stands from the first shift on.

    Args:
        environment: whose rollout it is, for messages.
        watches: what it looks at.
        every: seconds between two looks.
        clock: the time.
        record: gets the name of a watch and its verdict whenever its state has changed.
        say: told what changed.
        check: called before each round; raising ends the guard with that (a lost lease).
    """

    def __init__(
        self,
        environment: str,
        watches: Sequence[Watch],
        *,
        every: float,
        clock: Clock,
        record: Record,
        say: Callable[[str], None],
        check: Callable[[], Awaitable[None]],
    ) -> None:
        self.environment = environment
        self.watches = tuple(watches)
        self.last: dict[str, Verdict] = {}
        self._every = every
        self._clock = clock
        self._record = record
        self._say = say
        self._check = check
        self._lock = anyio.Lock()

    async def stand(self) -> None:
        """Look for ever.

        Raises:
            Breached: a watch is in breach.
        """
        while True:
            await self._check()
            await self.look()
            await self._clock.sleep(self._every)

    async def look(self) -> Verdict:
        """Look at all watches now.

        Returns:
            Inconclusive when one is, else ok; `why` has them all.

        Raises:
            Breached: a watch is in breach.
        """
        async with self._lock:
            for watch in self.watches:
                verdict = await _seen(watch)
                before = self.last.get(watch.name)
                self.last[watch.name] = verdict
                if before is None or before.state != verdict.state:
                    if verdict.state != "ok" and before is not None:
                        self._say(f"{watch.name} is {_WORDS[verdict.state]}: {verdict.why}")
                    await self._record(watch.name, verdict)
                if verdict.state == "breach":
                    raise Breached(self.environment, watch.name, verdict.why)
        return self.verdict

    @property
    def verdict(self) -> Verdict:
        """What the last look saw, over all watches."""
        if not self.last:
            return Verdict("ok", "nothing is watched")
        unclear = [v for v in self.last.values() if v.state == "inconclusive"]
        shown = unclear or list(self.last.values())
        counted = [v.samples for v in self.last.values() if v.samples is not None]
        return Verdict(
            "inconclusive" if unclear else "ok",
            "; ".join(dict.fromkeys(v.why for v in shown)),
            min(counted) if counted else None,
        )


_WORDS = {"ok": "well", "breach": "in breach", "inconclusive": "inconclusive"}


async def _seen(watch: Watch) -> Verdict:
    try:
        with anyio.fail_after(PATIENCE):
            return await watch.look()
    except TimeoutError:
        return Verdict("inconclusive", f"{watch.name}: no answer within {PATIENCE:g} s")
    except Exception as error:
        cause = getattr(error, "message", None) or f"{type(error).__name__}: {error}"
        return Verdict("inconclusive", f"{watch.name} could not be seen: {cause}")
