"""What delivery says: steps as they begin, waits and what they are for, failures in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import anyio

from buildonce.delivery.clock import Clock
from buildonce.errors import BuildonceError, leaves

TELL = {
    "pull": "pulling {reference}",
    "start": "starting {container}",
    "healthy": "waiting for GET {path} to succeed",
    "preview": "smoke test at {url}, before it has traffic",
    "shift": "{percent} % of the traffic to the new release",
    "bake": "watching for {seconds:g} s with {percent} % of the traffic",
    "smoke": "smoke test",
    "finish": "retiring the previous release",
}
"""What is said when a step begins; the steps of other targets may have other names."""

_REMIND = 60.0


class Wait:
    """A wait that says what it is for, how long it may be, and from time to time how long it was.

    Args:
        clock: by which it waits.
        say: told.
        what: it waits for: "the approval of 1.2".
        at_most: when it gives up; None for never.
    """

    def __init__(
        self,
        clock: Clock,
        say: Callable[[str], None],
        what: str,
        at_most: timedelta | None = None,
    ) -> None:
        self._clock = clock
        self._say = say
        self._what = what
        self._limit = at_most.total_seconds() if at_most is not None else None
        self._began = self._told = clock.monotonic()
        self._silent = True

    @property
    def waited(self) -> float:
        """Seconds so far."""
        return self._clock.monotonic() - self._began

    async def sleep(self, seconds: float) -> bool:
        """Wait a little; False when the time is over."""
        left = None if self._limit is None else self._limit - self.waited
        if left is not None and left <= 0:
            return False
        if self._silent:
            limit = f", for {self._limit:g} s at most" if self._limit is not None else ""
            self._say(f"waiting for {self._what}{limit}")
            self._silent = False
        elif self._clock.monotonic() - self._told >= _REMIND:
            self._say(f"waiting for {self.waited:.0f} s now for {self._what}")
            self._told = self._clock.monotonic()
        await self._clock.sleep(seconds if left is None else min(seconds, left))
        return True


def describe(error: BaseException) -> str:
    """What went wrong, for a sentence: no type names where people wrote a message."""
    if isinstance(error, anyio.get_cancelled_exc_class() | KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(describe(inner) for inner in error.exceptions)
    if isinstance(error, BuildonceError):
        return error.message
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def first_failure(error: BaseException) -> BaseException:
    """The one error that matters of those that a task group brings, not what was ended for it."""
    cancelled = anyio.get_cancelled_exc_class()
    found = leaves(error)
    return next((one for one in found if not isinstance(one, cancelled)), found[0])
