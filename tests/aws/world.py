"""An environment in a simulated account, ready to be deployed to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from buildonce.config import Config, EnvironmentConfig
from buildonce.delivery.aws import open_aws_target
from buildonce.delivery.aws.session import AwsSession
from buildonce.delivery.aws.target import Carry
from buildonce.release import Release
from tests import samples

from .accounts import enter, furnish
from .faults import Process
from .simulation import Simulation

ACCOUNT = "222222222222"
REGION = "eu-west-1"
NAME = "shop-production"

_CONFIG = """
[project]
name = "shop"
repository = "127.0.0.1:5080/shop"
[accounts.production]
id = "222222222222"
[environments.production]
target = "{target}"
account = "production"
region = "eu-west-1"
role = "shop-deploy"
external_id = "buildonce-1"
address = "https://shop.example"
secrets = {{ DATABASE = "ssm:/shop/database" }}
configuration = {{ GREETING = "hello" }}
{more}
"""

KINDS: dict[str, tuple[str, str]] = {
    "weighted": ("ecs", ""),
    "rolling": ("ecs", '[environments.production.service]\nstrategy = "rolling"'),
    "blue-green": ("ecs", '[environments.production.service]\nstrategy = "blue-green"'),
    "linear": (
        "ecs",
        '[environments.production.service]\nstrategy = "linear"\nstep_percent = 25\n'
        'step_bake = "2m"',
    ),
    "canary": (
        "ecs",
        '[environments.production.service]\nstrategy = "canary"\nstep_percent = 10\n'
        'step_bake = "5m"\nbake = "3m"',
    ),
    "lambda": ("lambda", ""),
}


def environment(kind: str, more: str = "") -> EnvironmentConfig:
    """The environment of that kind: how its traffic is moved, or "lambda"."""
    target, table = KINDS[kind]
    text = _CONFIG.format(target=target, more=f"{more}\n{table}")
    return Config.parse(text, path=Path("pipeline.toml")).environments["production"]


def release(version: str) -> Release:
    """A release whose digest follows from its version."""
    return samples.release(version, "registry.example/shop")


@dataclass
class World:
    """One environment; it outlives the processes that deploy to it.

    Attributes:
        kind, more: which of KINDS, and more tables of its configuration.
        given: the environment, where it is another one.
        carry: brings releases into its registry.
    """

    kind: str
    more: str = ""
    simulation: Simulation = field(default_factory=Simulation)
    given: EnvironmentConfig | None = None
    carry: Carry | None = None

    def __post_init__(self) -> None:
        self.environment = self.given or environment(self.kind, self.more)
        enter(self.simulation, [self.environment], project="shop")
        self.place = self.simulation.place(ACCOUNT, REGION)

    def furnish(self) -> World:
        """With its stacks, as `env apply` would make them."""
        furnish(self.simulation, [self.environment], project="shop")
        return self

    async def target(
        self, process: Process | None = None, place: EnvironmentConfig | None = None
    ) -> Any:
        """The environment's target, or that of a place of it, as one process opens it."""
        return await open_aws_target(
            place or self.environment,
            project="shop",
            run="run-1",
            clock=self.simulation.clock,
            connect=lambda: self.simulation.connect(process),
            carry=self._carry if self.carry is not None else None,
        )

    async def _carry(self, *given: Any) -> None:
        assert self.carry is not None
        with self.simulation.clock.busy():  # it waits for real registries
            await self.carry(*given)

    async def session(self, role: str = "shop-stacks") -> AwsSession:
        """A session of another role."""
        place = self.environment.model_copy(update={"role": role})
        return await AwsSession.open(
            place, run="run-1", clock=self.simulation.clock, connect=self.simulation.connect
        )

    @property
    def serving(self) -> dict[str, float]:
        """Share of the traffic by digest."""
        return self.place.serving(NAME)
