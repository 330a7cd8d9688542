"""Health checks of containers (`HEALTHCHECK` of a Dockerfile)."""

from __future__ import annotations

from collections.abc import Sequence

from buildonce.engine import health
from buildonce.engine.durations import nanoseconds, shown
from buildonce.engine.engine import Engine
from buildonce.engine.errors import QueryFailed
from buildonce.engine.health import HealthCheck
from buildonce.engine.images import with_image
from buildonce.engine.operations import operation
from buildonce.engine.states import ContainerState


@operation("Container.withDockerHealthcheck")
def with_health_check(
    engine: Engine,
    self: ContainerState,
    args: Sequence[str],
    shell: bool = False,
    interval: str = "0",
    timeout: str = "0",
    start_period: str = "0",
    start_interval: str = "0",
    retries: int = 0,
) -> ContainerState:
    if shell and len(args) != 1:
        raise QueryFailed("WithHealthcheck args must be a single element when shell mode is set")
    if not args:
        raise QueryFailed("WithHealthcheck args is missing")
    check = HealthCheck(
        tuple(args),
        shell,
        nanoseconds(interval),
        nanoseconds(timeout),
        nanoseconds(start_period),
        nanoseconds(start_interval),
        retries,
    )
    return with_image(self, rest={**self.image.rest, health.KEY: check.to_config()})


@operation("Container.withoutDockerHealthcheck")
def without_health_check(engine: Engine, self: ContainerState) -> ContainerState:
    rest = {key: value for key, value in self.image.rest.items() if key != health.KEY}
    return with_image(self, rest=rest)


@operation("Container.dockerHealthcheck")
def health_check(engine: Engine, self: ContainerState) -> HealthCheck | None:
    return health.read(self.image.rest)


@operation("HealthcheckConfig.args")
async def args(engine: Engine, self: HealthCheck) -> list[str]:
    return list(self.args)


@operation("HealthcheckConfig.shell")
async def shell(engine: Engine, self: HealthCheck) -> bool:
    return self.shell


@operation("HealthcheckConfig.interval")
async def interval(engine: Engine, self: HealthCheck) -> str:
    return shown(self.interval)


@operation("HealthcheckConfig.timeout")
async def timeout(engine: Engine, self: HealthCheck) -> str:
    return shown(self.timeout)


@operation("HealthcheckConfig.startPeriod")
async def start_period(engine: Engine, self: HealthCheck) -> str:
    return shown(self.start_period)


@operation("HealthcheckConfig.startInterval")
async def start_interval(engine: Engine, self: HealthCheck) -> str:
    return shown(self.start_interval)


@operation("HealthcheckConfig.retries")
async def retries(engine: Engine, self: HealthCheck) -> int:
    return self.retries
