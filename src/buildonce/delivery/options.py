"""What is the same for every environment of a deployment: whom it is for, and how it is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from buildonce.config import Config, EnvironmentConfig
from buildonce.config.leases import LeasesConfig
from buildonce.config.rollout import CONCURRENCY
from buildonce.delivery.clock import SYSTEM_CLOCK, Clock
from buildonce.delivery.lease import Leases
from buildonce.delivery.target import Target
from buildonce.delivery.targets import open_leases, open_target
from buildonce.ledger import Ledger
from buildonce.release import Release

Progress = Callable[[str], None]
Reason = Literal["deploy", "rollback"]
Verify = Callable[[Release, EnvironmentConfig], Awaitable[None]]
"""Raises where the release may not enter the environment; awaited before the first write."""

Open = Callable[[EnvironmentConfig], Awaitable[Target]]


def quiet(_: str) -> None:
    """Says nothing."""


@dataclass(frozen=True)
class Options:
    """How to deploy.

    Args:
        project: whose environments they are.
        ledger: gets every step.
        run: id of the run that deploys.
        reason: a rollback skips steps, bakes, windows and approvals.
        progress: told what is being done, a line at a time.
        clock: by which it waits.
        verify: evidence and policy.
        approvers: public keys by name; empty means this machine's own key.
        actor: who deploys, for the rule against approving one's own.
        awaiting: entered while a person is awaited: no time budget should run meanwhile.
        concurrency: at most so many environments are changed at the same time; those that bake, or
            wait for others, do not count.
        wait: wait for another deployment to an environment to end, instead of failing.
        target: makes an environment's target; None makes the one that its configuration names.
        leases: where leases are; None where the environment's target keeps them.
        home: where environments are kept; `places.home()` when None.
        tests: whether a pipeline tests each wave: nobody else can, when a killed one is resumed.
        config: of the project, for environments that take images out of a registry of their own.
    """

    project: str
    ledger: Ledger
    run: str
    reason: Reason = "deploy"
    progress: Progress = quiet
    clock: Clock = SYSTEM_CLOCK
    verify: Verify | None = None
    approvers: Mapping[str, str] = field(default_factory=dict)
    actor: str | None = None
    awaiting: Callable[[], AbstractContextManager[object]] = nullcontext
    concurrency: int = CONCURRENCY
    wait: bool = False
    target: Open | None = None
    leases: Leases | None = None
    home: Path | None = None
    tests: bool = False
    config: Config | None = None
    _tables: dict[LeasesConfig, Leases] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        tell = self.progress

        def progress(line: str) -> None:
            # Whoever listened may be gone (a closed pipe): that must not stop a way back.
            with suppress(OSError, ValueError):
                tell(line)

        object.__setattr__(self, "progress", progress)

    async def open(self, place: EnvironmentConfig) -> Target:
        """The environment's target."""
        if self.target is not None:
            return await self.target(place)
        return await open_target(
            place,
            project=self.project,
            ledger=self.ledger.path,
            run=self.run,
            clock=self.clock,
            config=self.config,
        )

    def leases_of(self, place: EnvironmentConfig) -> Leases:
        """Where the environment's lease is."""
        if self.leases is not None:
            return self.leases
        if place.leases in self._tables:  # one way to it for all environments of a fleet
            return self._tables[place.leases]
        found = open_leases(
            place, project=self.project, run=self.run, home=self.home, clock=self.clock
        )
        if place.leases is not None:
            self._tables[place.leases] = found
        return found
