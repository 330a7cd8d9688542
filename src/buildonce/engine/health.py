"""The health check in an image's configuration: a command that tells whether a service is well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from buildonce.engine.errors import QueryFailed

KEY = "Healthcheck"  # of an image's configuration, which counts nanoseconds
_SHELL = ("/bin/sh", "-c")
_DEFAULT_INTERVAL = 5_000_000_000
_DEFAULT_RETRIES = 3


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A command and when to run it.

    Attributes:
        shell: `args` is one line for a shell.
        interval, timeout, start_period, start_interval: in nanoseconds; 0 leaves the default.
        retries: how often in a row it may fail; 0 leaves the default.
    """

    args: tuple[str, ...]
    shell: bool = False
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0

    @property
    def command(self) -> tuple[str, ...]:
        """What to run."""
        return (*_SHELL, *self.args) if self.shell else self.args

    @property
    def pause(self) -> float:
        """Seconds between two tries while the service starts."""
        return (self.start_interval or self.interval or _DEFAULT_INTERVAL) / 1e9

    @property
    def tries(self) -> int:
        """How many failures, after the start period, are one too many."""
        return self.retries or _DEFAULT_RETRIES

    def to_config(self) -> dict[str, Any]:
        """As an image's configuration has it."""
        config = {
            "Test": ["CMD-SHELL" if self.shell else "CMD", *self.args],
            "Interval": self.interval,
            "Timeout": self.timeout,
            "StartPeriod": self.start_period,
            "StartInterval": self.start_interval,
            "Retries": self.retries,
        }
        return {name: value for name, value in config.items() if value}


def read(config: Mapping[str, Any]) -> HealthCheck | None:
    """The health check of an image's configuration; None where it has none, or switches it off.

    Raises:
        QueryFailed: it is none that anybody could run.
    """
    found = config.get(KEY) or {}
    kind, *args = found.get("Test") or ["NONE"]
    if kind == "NONE":
        return None
    if kind not in ("CMD", "CMD-SHELL"):
        raise QueryFailed(f"unexpected HEALTHCHECK command of type {kind} found")
    if kind == "CMD-SHELL" and len(args) != 1:
        raise QueryFailed(f"HEALTHCHECK of one line for a shell has {len(args)}: {args}")
    if not args:
        raise QueryFailed("HEALTHCHECK command is empty")
    return HealthCheck(
        tuple(args),
        kind == "CMD-SHELL",
        found.get("Interval") or 0,
        found.get("Timeout") or 0,
        found.get("StartPeriod") or 0,
        found.get("StartInterval") or 0,
        found.get("Retries") or 0,
    )
