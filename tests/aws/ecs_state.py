"""What ECS keeps: task definitions, services, their revisions and deployments."""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

NATIVE = ("BLUE_GREEN", "LINEAR", "CANARY")
DIGEST = re.compile(r".+@(sha256:[0-9a-f]{64})$")

Script = Generator[float, None, None]
"""What a deployment does: yields the seconds until it goes on."""


class GoBack(Exception):
    """A deployment is to be taken back, and why."""


@dataclass
class Definition:
    arn: str
    data: dict[str, Any]
    tags: list[dict[str, str]]
    status: str = "ACTIVE"

    @property
    def image(self) -> str:
        return str(self.data["containerDefinitions"][0]["image"])


@dataclass
class Revision:
    """A service revision: a definition under a service's configuration, and its tasks."""

    arn: str
    definition: Definition
    created: datetime
    balancers: list[dict[str, Any]]
    running: int = 0
    healthy: int = 0
    weight: float = 0.0
    group: str | None = None

    def gone(self) -> None:
        """All of its tasks have ended."""
        self.running = self.healthy = 0
        self.weight = 0.0


@dataclass
class Deployment:
    arn: str
    target: Revision
    source: Revision | None
    configuration: dict[str, Any]
    created: datetime
    status: str = "PENDING"
    stage: str | None = None
    reason: str = ""
    failed: int = 0
    hook: str | None = None
    hook_until: float = 0.0
    going_on: bool = False
    stop: str | None = None
    wake: float = 0.0
    script: Script | None = None

    @property
    def over(self) -> bool:
        return self.status in ("SUCCESSFUL", "ROLLBACK_SUCCESSFUL", "STOPPED", "ROLLBACK_FAILED")


@dataclass
class Service:
    name: str
    arn: str
    cluster: str
    desired: int
    data: dict[str, Any]
    tags: dict[str, str]
    created: datetime
    status: str = "ACTIVE"
    definition: Definition | None = None
    revisions: dict[str, Revision] = field(default_factory=dict)
    deployments: list[Deployment] = field(default_factory=list)
    serving: Revision | None = None
    events: list[str] = field(default_factory=list)
