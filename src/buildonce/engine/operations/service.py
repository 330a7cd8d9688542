"""Services: made of containers or of host ports, bound to containers by an alias."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from buildonce.engine.engine import Engine
from buildonce.engine.errors import NoCommand, NotServed, QueryFailed
from buildonce.engine.operations import operation
from buildonce.engine.operations.execs import arguments
from buildonce.engine.operations.host import _forward
from buildonce.engine.services import ports_of
from buildonce.engine.states import Binding, ContainerState, Port, ServiceState


@operation("Container.asService")
def as_service(
    engine: Engine,
    self: ContainerState,
    args: Sequence[str] = (),
    use_entrypoint: bool = False,
    experimental_privileged_nesting: bool = False,
    insecure_root_capabilities: bool = False,
    expand: bool = False,
    no_init: bool = False,
) -> ServiceState:
    if experimental_privileged_nesting:
        raise NotServed("Container.asService(experimentalPrivilegedNesting:)")
    if not args and not self.own_command:
        use_entrypoint = True  # as the image is meant to be started
    try:
        command = arguments(self, args, use_entrypoint=use_entrypoint, expand=expand)
    except NoCommand:
        raise QueryFailed("no service command has been set") from None
    return engine.services.of_container(self, command, privileged=insecure_root_capabilities)


@operation("Container.withServiceBinding")
def with_service_binding(
    engine: Engine, self: ContainerState, alias: str, service: ServiceState
) -> ContainerState:
    if not alias or any(c.isspace() for c in alias):
        raise QueryFailed(f"{alias!r} cannot be the alias of a service")
    return replace(self, bindings=(*self.bindings, Binding(alias, service)))


@operation("Service.withHostname")
def with_hostname(engine: Engine, self: ServiceState, hostname: str) -> ServiceState:
    return engine.services.named(self, hostname)


@operation("Service.hostname")
async def hostname(engine: Engine, self: ServiceState) -> str:
    return self.name


@operation("Service.ports")
async def ports(engine: Engine, self: ServiceState) -> list[Port]:
    if self.upstream is not None:
        return [Port(number) for number in (await engine.services.running(self)).ports]
    return list(ports_of(self))


@operation("Service.endpoint")
async def endpoint(
    engine: Engine, self: ServiceState, port: int | None = None, scheme: str = ""
) -> str:
    numbers = [p.number for p in await ports(engine, self)]
    if port is None:
        if not numbers:
            raise QueryFailed("no ports exposed")
        port = numbers[0]
    return f"{scheme}://{self.name}:{port}" if scheme else f"{self.name}:{port}"


@operation("Service.start")
async def start(engine: Engine, self: ServiceState) -> ServiceState:
    await engine.services.start(self)
    return self


@operation("Service.stop")
async def stop(engine: Engine, self: ServiceState, kill: bool = False) -> ServiceState:
    await engine.services.stop(self, kill=kill)
    return self


@operation("Service.sync")
async def sync(engine: Engine, self: ServiceState) -> None:
    return None


@operation("Service.up")
async def up(
    engine: Engine,
    self: ServiceState,
    ports: Sequence[dict[str, Any]] = (),
    random: bool = False,
) -> None:
    """Lead host ports to the service until the client goes away."""
    forwards = [_forward(port) for port in ports]
    native = not forwards and not random
    tunnel = engine.services.from_host(self, forwards, native=native)
    running = await engine.services.start(tunnel)
    try:
        await running.wait()
    except asyncio.CancelledError:
        await engine.services.stop(tunnel)
        raise


@operation("Container.up")
async def container_up(
    engine: Engine,
    self: ContainerState,
    random: bool = False,
    ports: Sequence[dict[str, Any]] = (),
    **settings: Any,
) -> None:
    await up(engine, as_service(engine, self, **settings), ports, random)
