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
from buildonce.engine.paths import expand_variables
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
    settings = images.read(resolved.config)
    pinned = f"{reference.split('@')[0]}@{resolved.digest}"
    rootfs = llb.source(
        f"docker-image://{pinned}", platform=self.platform, name=f"pull {reference}"
    )
    # Variables of the container win over the image's, as they were asked for by name.
    env = settings.env
    for key, value in self.image.env:
        env = put(env, key, value)
    return replace(
        self,
        rootfs=rootfs,
        image=replace(settings, env=env),
        base=resolved.config,
        last=None,
        address=pinned,
    )


def normalize(address: str) -> str:
    """`alpine` as `docker.io/library/alpine:latest`, as every registry client reads it.

    Raises:
        QueryFailed: `address` is not an image reference.
    """
    if not address or any(c.isspace() for c in address) or "://" in address:
        raise QueryFailed(f"invalid image reference {address!r}")
    name, _, digest = address.partition("@")
    first, slash, rest = name.partition("/")
    if not slash or ("." not in first and ":" not in first and first != "localhost"):
        first, rest = "docker.io", name if slash else f"library/{name}"
    repository, colon, tag = rest.rpartition(":")
    if not colon:
        repository, tag = rest, ""
    if repository != repository.lower() or not repository:
        raise QueryFailed(
            f"invalid image reference {address!r}: repository names are in lower case"
        )
    tag = tag or ("" if digest else "latest")
    return f"{first}/{repository}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")


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
    return self.image.workdir or "/"


@operation("Container.withWorkdir")
def with_workdir(
    engine: Engine, self: ContainerState, path: str, expand: bool = False
) -> ContainerState:
    text = expand_variables(self, path) if expand else path
    return with_image(self, workdir=absolute(text, self.workdir))


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
    command = self.image.command if keep_default_args else ()
    return with_image(self, entrypoint=tuple(args), command=command)


@operation("Container.withoutEntrypoint")
def without_entrypoint(
    engine: Engine, self: ContainerState, keep_default_args: bool = False
) -> ContainerState:
    command = self.image.command if keep_default_args else ()
    return with_image(self, entrypoint=(), command=command)


@operation("Container.defaultArgs")
async def default_args(engine: Engine, self: ContainerState) -> list[str]:
    return list(self.image.command)


@operation("Container.withDefaultArgs")
def with_default_args(engine: Engine, self: ContainerState, args: Sequence[str]) -> ContainerState:
    return with_image(self, command=tuple(args))


@operation("Container.withoutDefaultArgs")
def without_default_args(engine: Engine, self: ContainerState) -> ContainerState:
    return with_image(self, command=())


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
    return with_image(self, ports=(*_without(self, port, protocol), new))


@operation("Container.withoutExposedPort")
def without_exposed_port(
    engine: Engine, self: ContainerState, port: int, protocol: str = "TCP"
) -> ContainerState:
    return with_image(self, ports=_without(self, port, protocol))


def _without(container: ContainerState, number: int, protocol: str) -> tuple[Port, ...]:
    kept = (p for p in container.image.ports if (p.number, p.protocol) != (number, protocol))
    return tuple(kept)


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
    from buildonce.engine.paths import at_root

    return replace(self, rootfs=at_root(directory), address=None, last=None)


@operation("Container.withRegistryAuth")
def with_registry_auth(
    engine: Engine, self: ContainerState, address: str, username: str, secret: SecretState
) -> ContainerState:
    host = normalize(address).split("/")[0] if "/" in address else address
    engine.credentials[host] = (username, secret)
    kept = tuple(item for item in self.credentials if item[0] != host)
    return replace(self, credentials=(*kept, (host, username, secret)))


@operation("Container.withoutRegistryAuth")
def without_registry_auth(engine: Engine, self: ContainerState, address: str) -> ContainerState:
    host = normalize(address).split("/")[0] if "/" in address else address
    engine.credentials.pop(host, None)
    return replace(self, credentials=tuple(i for i in self.credentials if i[0] != host))


@operation("Container.terminal", "Directory.terminal", "Service.terminal")
def terminal(engine: Engine, self: Any, **_: Any) -> Any:
    raise QueryFailed(
        "terminal is not served by buildonce's embedded engine: it has no interactive console; "
        "run the same program on Dagger (`dagger run …`) to use it"
    )
