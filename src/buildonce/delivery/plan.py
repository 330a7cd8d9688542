"""The steps of a rollout: how much traffic for how long, from the environment's configuration.

planned(config.environments["production"].rollout)     # (Shift(10, 5 min), Shift(50, 5 min), ...)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from buildonce.config.rollout import RolloutConfig


@dataclass(frozen=True)
class Shift:
    """A step of traffic: `percent` for the new release, kept and watched so for `bake`."""

    percent: int
    bake: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        if not 0 < self.percent <= 100:
            raise ValueError(f"{self.percent} is no share of the traffic, 1 to 100")


ALL_AT_ONCE = (Shift(100),)


def planned(rollout: RolloutConfig) -> tuple[Shift, ...]:
    """The steps of a configured strategy; the last is of 100 percent and has the final bake."""
    none = timedelta(0)
    return tuple(
        Shift(percent, (rollout.bake if percent == 100 else rollout.interval) or none)
        for percent in rollout.weights
    )


def checked(traffic: Sequence[Shift]) -> tuple[Shift, ...]:
    """The steps themselves.

    Raises:
        ValueError: they do not rise, or do not end with all of the traffic.
    """
    shares = [shift.percent for shift in traffic]
    if not shares or shares[-1] != 100 or shares != sorted(set(shares)):
        raise ValueError("the steps of traffic must rise, and the last be of 100 percent")
    return tuple(traffic)
