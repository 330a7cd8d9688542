"""What can go wrong with a call: it fails, is throttled, stalls, lies, or the caller is killed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "kill before",
    "kill after",
    "throttle",
    "timeout before",
    "timeout after",
    "stall",
    "denied",
    "lie",
    "happening",
]


class Killed(BaseException):
    """kill -9: from here on nothing that this process does has any effect."""


@dataclass
class Fault:
    """One thing that goes wrong, once, at call number `at` (of one process, from 0).

    Attributes:
        times: how often a throttled or timed-out call fails before it gets through.
        happening: what happens to the world just before that call (an alarm, a lost task).
    """

    kind: Kind
    at: int
    times: int = 2
    happening: Callable[[], object] | None = None
    hit: str = ""
    _left: int = field(default=0, init=False)

    def begins(self, number: int, name: str) -> bool:
        """Whether this call is the one."""
        if number != self.at or self.hit:
            return False
        self.hit, self._left = name, self.times
        return True

    def again(self, name: str) -> bool:
        """Whether an attempt of the call that was hit is to fail once more."""
        if self.kind == "stall" or self.kind == "denied":
            return self.hit == name
        if self.hit == name and self._left > 0:
            self._left -= 1
            return True
        return False
