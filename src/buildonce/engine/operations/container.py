"""Containers: where they come from, and the settings of their image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from buildonce.engine import images, llb
from buildonce.engine.engine import Engine
from buildonce.engine.errors import QueryFailed
from buildonce.engine.images import drop, put, with_image
from buildonce.engine.operations import operation
from buildonce.engine.paths import at_root, expand_variables
from buildonce.engine.references import normalize, registry_of
from buildonce.engine.states import (
    ContainerState,
    DirectoryState,
    Port,
    SecretState,
    ServiceState,
    absolute,
)


@operation("Container.from")
async def from_(
    engine: Engine,
    self: ContainerState,
    address: str,
    registry_service: ServiceState | None = None,
) -> ContainerState:
    """The image at `address`; a tag is pinned to the digest it has now, once a session."""
    reference = normalize(address)
    resolved = await engine.resolve_image(reference, self.platform)
    pinned = f"{reference.split('@')[0]}@{resolved.digest}"
    rootfs = llb.source(
        f"docker-image://{pinned}", platform=self.platform, name=f"pull {reference}"
    )
    return replace(
        self,
        # An image of a single platform is used whatever was asked for.
        platform=images.platform(resolved.config) or self.platform,
        rootfs=rootfs,
        image=images.laid_over(self.image, images.read(resolved.config)),
        base=resolved.config,
        address=pinned,
    )


@operation("Container.platform")
async def platform(engine: Engine, self: ContainerState) -> str:
    return self.platform


@operation("Container.imageRef")
async def image_ref(engine: Engine, self: ContainerState) -> str:
    if self.address is None:
        raise QueryFailed("Image reference can only be retrieved immediately after the "
                          "'Container.From' call. Error in fetching imageRef as the container "
                          "image is changed")  # fmt: skip
    return self.address


@operation("Container.sync")
async def sync(engine: Engine, self: ContainerState) -> None:
    await engine.reference(self.rootfs)


# -- variables --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pair:
    """A name and its value: a variable or a label."""

    name: str
    value: str


@operation("EnvVariable.name", "Label.name")
async def pair_name(engine: Engine, self: Pair) -> str:
    return self.name


@operation("EnvVariable.value", "Label.value")
async def pair_value(engine: Engine, self: Pair) -> str:
    return self.value


@operation("Container.envVariable")
async def env_variable(engine: Engine, self: ContainerState, name: str) -> str | None:
    return dict(self.image.env).get(name)


@operation("Container.envVariables")
async def env_variables(engine: Engine, self: ContainerState) -> list[Pair]:
    return [Pair(name, value) for name, value in self.image.env]


@operation("Container.withEnvVariable")
def with_env_variable(
    engine: Engine, self: ContainerState, name: str, value: str, expand: bool = False
) -> ContainerState:
    if not name or "=" in name or "\0" in name + value:
        raise QueryFailed(f"{name!r} cannot be the name of an environment variable")
    text = expand_variables(self, value) if expand else value
    return with_image(self, env=put(self.image.env, name, text))


@operation("Container.withoutEnvVariable")
def without_env_variable(engine: Engine, self: ContainerState, name: str) -> ContainerState:
    return with_image(self, env=drop(self.image.env, name))


@operation("Container.withVolatileVariable")
def with_volatile_variable(
    engine: Engine, self: ContainerState, name: str, value: str
) -> ContainerState:
    return replace(self, volatile=put(self.volatile, name, value))


@operation("Container.withoutVolatileVariable")
def without_volatile_variable(engine: Engine, self: ContainerState, name: str) -> ContainerState:
    return replace(self, volatile=drop(self.volatile, name))


@operation("Container.withSecretVariable")
def with_secret_variable(
    engine: Engine, self: ContainerState, name: str, secret: SecretState
) -> ContainerState:
    kept = tuple(pair for pair in self.secrets if pair[0] != name)
    return replace(self, secrets=(*kept, (name, secret)))


@operation("Container.withoutSecretVariable")
def without_secret_variable(engine: Engine, self: ContainerState, name: str) -> ContainerState:
    return replace(self, secrets=tuple(pair for pair in self.secrets if pair[0] != name))


# -- where and as whom ------------------------------------------------------------------------


@operation("Container.workdir")
async def workdir(engine: Engine, self: ContainerState) -> str:
    return self.image.workdir


@operation("Container.withWorkdir")
def with_workdir(
    engine: Engine, self: ContainerState, path: str, expand: bool = False
) -> ContainerState:
    text = expand_variables(self, path) if expand else path
    return with_image(self, workdir=text if text.startswith("/") else absolute(text, self.workdir))


@operation("Container.withoutWorkdir")
def without_workdir(engine: Engine, self: ContainerState) -> ContainerState:
    return with_image(self, workdir="")


@operation("Container.user")
async def user(engine: Engine, self: ContainerState) -> str:
    return self.image.user


@operation("Container.withUser")
def with_user(engine: Engine, self: ContainerState, name: str) -> ContainerState:
    return with_image(self, user=name)


@operation("Container.withoutUser")
def without_user(engine: Engine, self: ContainerState) -> ContainerState:
    return with_image(self, user="")


# -- what runs by default ---------------------------------------------------------------------


@operation("Container.entrypoint")
async def entrypoint(engine: Engine, self: ContainerState) -> list[str]:
    return list(self.image.entrypoint)


@operation("Container.withEntrypoint")
def with_entrypoint(
    engine: Engine, self: ContainerState, args: Sequence[str], keep_default_args: bool = False
) -> ContainerState:
    return _with_entrypoint(self, args, keep_default_args)


def _with_entrypoint(
    container: ContainerState, args: Sequence[str], keep_default_args: bool
) -> ContainerState:
    changed = with_image(container, entrypoint=tuple(args))
    return changed if keep_default_args else _without_default_args(changed)


@operation("Container.withoutEntrypoint")
def without_entrypoint(
    engine: Engine, self: ContainerState, keep_default_args: bool = False
) -> ContainerState:
    return _with_entrypoint(self, (), keep_default_args)


@operation("Container.defaultArgs")
async def default_args(engine: Engine, self: ContainerState) -> list[str]:
    return list(self.image.command)


@operation("Container.withDefaultArgs")
def with_default_args(engine: Engine, self: ContainerState, args: Sequence[str]) -> ContainerState:
    return replace(with_image(self, command=tuple(args)), own_command=True)


@operation("Container.withoutDefaultArgs")
def without_default_args(engine: Engine, self: ContainerState) -> ContainerState:
    return _without_default_args(self)


def _without_default_args(container: ContainerState) -> ContainerState:
    return replace(with_image(container, command=()), own_command=False)


# -- labels, annotations, ports ---------------------------------------------------------------


@operation("Container.label")
async def label(engine: Engine, self: ContainerState, name: str) -> str | None:
    return dict(self.image.labels).get(name)


@operation("Container.labels")
async def labels(engine: Engine, self: ContainerState) -> list[Pair]:
    return [Pair(name, value) for name, value in self.image.labels]


@operation("Container.withLabel")
def with_label(engine: Engine, self: ContainerState, name: str, value: str) -> ContainerState:
    return with_image(self, labels=put(self.image.labels, name, value))


@operation("Container.withoutLabel")
def without_label(engine: Engine, self: ContainerState, name: str) -> ContainerState:
    return with_image(self, labels=drop(self.image.labels, name))


@operation("Container.withAnnotation")
def with_annotation(engine: Engine, self: ContainerState, name: str, value: str) -> ContainerState:
    return replace(self, annotations=put(self.annotations, name, value))


@operation("Container.withoutAnnotation")
def without_annotation(engine: Engine, self: ContainerState, name: str) -> ContainerState:
    return replace(self, annotations=drop(self.annotations, name))


@operation("Container.exposedPorts")
async def exposed_ports(engine: Engine, self: ContainerState) -> list[Port]:
    return list(self.image.ports)


@operation("Container.withExposedPort")
def with_exposed_port(
    engine: Engine,
    self: ContainerState,
    port: int,
    protocol: str = "TCP",
    description: str | None = None,
    experimental_skip_healthcheck: bool = False,
) -> ContainerState:
    if not 0 < port < 65536:
        raise QueryFailed(f"{port} is not a port: ports are from 1 to 65535")
    new = Port(port, protocol, description, not experimental_skip_healthcheck)
    if new.key in (old.key for old in self.image.ports):
        changed = tuple(new if old.key == new.key else old for old in self.image.ports)
        return with_image(self, ports=changed)
    return with_image(self, ports=(*self.image.ports, new))


@operation("Container.withoutExposedPort")
def without_exposed_port(
    engine: Engine, self: ContainerState, port: int, protocol: str = "TCP"
) -> ContainerState:
    kept = (old for old in self.image.ports if old.key != (port, protocol))
    return with_image(self, ports=tuple(kept))


@operation("Port.port")
async def port_number(engine: Engine, self: Port) -> int:
    return self.number


@operation("Port.protocol")
async def port_protocol(engine: Engine, self: Port) -> str:
    return self.protocol


@operation("Port.description")
async def port_description(engine: Engine, self: Port) -> str | None:
    return self.description


@operation("Port.experimentalSkipHealthcheck")
async def port_skips_health_check(engine: Engine, self: Port) -> bool:
    return not self.health_check


# -- the whole --------------------------------------------------------------------------------


@operation("Container.rootfs")
def rootfs(engine: Engine, self: ContainerState) -> DirectoryState:
    return DirectoryState(self.rootfs, "/", self.platform)


@operation("Container.withRootfs")
def with_rootfs(engine: Engine, self: ContainerState, directory: DirectoryState) -> ContainerState:
    return replace(self, rootfs=at_root(directory), address=None)


@operation("Container.withRegistryAuth")
def with_registry_auth(
    engine: Engine, self: ContainerState, address: str, username: str, secret: SecretState
) -> ContainerState:
    host = registry_of(address)
    engine.credentials[host] = (username, secret)
    kept = tuple(item for item in self.credentials if item[0] != host)
    return replace(self, credentials=(*kept, (host, username, secret)))


@operation("Container.withoutRegistryAuth")
def without_registry_auth(engine: Engine, self: ContainerState, address: str) -> ContainerState:
    host = registry_of(address)
    engine.credentials.pop(host, None)
    return replace(self, credentials=tuple(i for i in self.credentials if i[0] != host))


@operation("Container.withError")
def with_error(engine: Engine, self: ContainerState, err: str) -> ContainerState:
    if err:
        raise QueryFailed(err)
    return self


@operation("Container.withDefaultTerminalCmd")
def with_default_terminal_cmd(
    engine: Engine, self: ContainerState, args: Sequence[str], **_: Any
) -> ContainerState:
    return self  # there is no terminal, see below


@operation("Container.terminal", "Directory.terminal", "Service.terminal")
def terminal(engine: Engine, self: Any, **_: Any) -> Any:
    raise QueryFailed(
        "terminal is not served by buildonce's embedded engine: it has no interactive console; "
        "run the same program on Dagger (`dagger run …`) to use it"
    )
