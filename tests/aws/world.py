"""An environment in a simulated account, ready to be deployed to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from buildonce.config import Config, EnvironmentConfig
from buildonce.delivery.aws import open_aws_target
from buildonce.delivery.aws.roles import documents
from buildonce.delivery.aws.session import AwsSession
from buildonce.delivery.aws.stacks import template
from buildonce.release import Image, Release

from .faults import Fault
from .simulation import Process, Simulation

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

    def hexes(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    return Release(
        version=version,
        revision=hexes(version)[:40],
        image=Image("registry.example/shop", f"sha256:{hexes(version)}"),
        created=datetime(2026, 1, 2, tzinfo=UTC),
        configuration=f"sha256:{hexes('configuration')}",
    )


@dataclass
class World:
    """One environment; it outlives the processes that deploy to it."""

    kind: str
    more: str = ""
    simulation: Simulation = field(default_factory=Simulation)

    def __post_init__(self) -> None:
        self.environment = environment(self.kind, self.more)
        policies = documents(self.environment, project="shop")
        self.simulation.role(
            ACCOUNT, "shop-deploy", policy=policies["deploy"], external_id="buildonce-1"
        )
        self.simulation.role(
            ACCOUNT, "shop-stacks", policy=policies["stacks"], external_id="buildonce-1"
        )
        self.place = self.simulation.place(ACCOUNT, REGION)

    def furnish(self) -> World:
        """With its stacks, as `env apply` would make them."""
        make = self.place.stacks.make
        common = {"Name": NAME}
        if self.environment.target == "lambda":
            url = {"Url": "https://shop.example"}
            make(f"{NAME}-service", template("service-lambda"), {**common, **url})
            return self
        network = make(f"{NAME}-network", template("network"), common)
        cluster = make(
            f"{NAME}-cluster",
            template("cluster"),
            {**common, "Vpc": network["Vpc"], "PublicSubnets": network["PublicSubnets"]},
        )
        given = {key: cluster[key] for key in ("Cluster", "Listener", "Balancer", "BalancerGroup")}
        given |= {"Vpc": network["Vpc"], "PrivateSubnets": network["PrivateSubnets"]}
        make(f"{NAME}-service", template("service-ecs"), {**common, **given, "Url": cluster["Url"]})
        return self

    async def target(self, fault: Fault | None = None, process: Process | None = None) -> Any:
        """The environment's target, as one process opens it."""
        process = process or Process(fault)
        return await open_aws_target(
            self.environment,
            project="shop",
            run="run-1",
            clock=self.simulation.clock,
            connect=lambda: self.simulation.connect(process),
        )

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


Say = Callable[[str], None]
