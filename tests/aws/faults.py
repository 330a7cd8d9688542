"""What can go wrong with a call: it fails, is throttled, stalls, lies, or the caller is killed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

_T = TypeVar("_T")

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


class Process:
    """One process that calls: it counts what it does, and may have a fault and die of it.

    Attributes:
        calls: by name, in order: calls of services ("ecs.UpdateService"), and whatever else has an
            effect outside of the process ("ledger rollout.started"). A fault is at one of these.
    """

    def __init__(self, fault: Fault | None = None) -> None:
        self.fault = fault
        self.calls: list[str] = []
        self.dead = False

    def does(self, name: str, effect: Callable[[], _T], *, error: type[Exception]) -> _T:
        """Something that is no call of a service: it happens, or the process dies, or it fails.

        Args:
            name: of it.
            effect: what it does.
            error: how it fails where the fault is of another kind than death.
        """
        if self.dead:
            raise Killed
        number, fault = len(self.calls), self.fault
        self.calls.append(name)
        if fault is None or not fault.begins(number, name):
            return effect()
        if fault.kind == "kill before":
            self.dead = True
            raise Killed
        if fault.kind not in ("kill after", "happening"):
            raise error(f"{name} failed")
        if fault.happening is not None:
            fault.happening()
        found = effect()
        if fault.kind == "kill after":
            self.dead = True
            raise Killed
        return found
