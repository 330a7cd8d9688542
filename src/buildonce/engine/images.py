"""The configuration of an OCI image, read and written (OCI image specification 1.1, config.md)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from buildonce.engine.errors import QueryFailed
from buildonce.engine.states import ContainerState, ImageSettings, Port


def read(data: bytes) -> ImageSettings:
    """The settings of an image's configuration blob.

    Raises:
        QueryFailed: the blob is not an image configuration.
    """
    try:
        document = json.loads(data) if data else {}
        config = dict(document.get("config") or {})
        env = tuple(_pair(item) for item in config.pop("Env", None) or ())
        ports = tuple(_port(item) for item in sorted(config.pop("ExposedPorts", None) or {}))
        return ImageSettings(
            env=env,
            entrypoint=tuple(config.pop("Entrypoint", None) or ()),
            command=tuple(config.pop("Cmd", None) or ()),
            workdir=config.pop("WorkingDir", "") or "",
            user=config.pop("User", "") or "",
            labels=tuple((config.pop("Labels", None) or {}).items()),
            ports=ports,
            rest=config,
        )
    except (ValueError, AttributeError, TypeError) as error:
        raise QueryFailed(f"the image's configuration cannot be read: {error}") from error


def platform(data: bytes) -> str:
    """The platform that an image's configuration names; empty when it names none."""
    document = json.loads(data) if data else {}
    parts = (document.get(name) for name in ("os", "architecture", "variant"))
    return "/".join(part for part in parts if part)


def laid_over(before: ImageSettings, image: ImageSettings) -> ImageSettings:
    """The settings of a container that had some and then got an image: what can stand side by
    side stays, and where both speak the image does."""
    env, labels = before.env, before.labels
    for key, value in image.env:
        env = put(env, key, value)
    for key, value in image.labels:
        labels = put(labels, key, value)
    taken = {port.key for port in image.ports}
    others = (port for port in before.ports if port.key not in taken)
    return replace(image, env=env, labels=labels, ports=(*image.ports, *others))


def write(container: ContainerState) -> dict[str, Any]:
    """The configuration blob of `container`; the exporter adds its layers and history."""
    settings = container.image
    os, architecture, variant = (*container.platform.split("/"), "", "")[:3]
    config: dict[str, Any] = dict(settings.rest)
    config["Env"] = [f"{key}={value}" for key, value in settings.env]
    if settings.entrypoint:
        config["Entrypoint"] = list(settings.entrypoint)
    if settings.command:
        config["Cmd"] = list(settings.command)
    if settings.workdir:
        config["WorkingDir"] = settings.workdir
    if settings.user:
        config["User"] = settings.user
    if settings.labels:
        config["Labels"] = dict(settings.labels)
    if settings.ports:
        config["ExposedPorts"] = {f"{p.number}/{p.protocol.lower()}": {} for p in settings.ports}
    document: dict[str, Any] = {"architecture": architecture, "os": os, "config": config}
    if variant:
        document["variant"] = variant
    return document


def put(pairs: tuple[tuple[str, str], ...], key: str, value: str) -> tuple[tuple[str, str], ...]:
    """`pairs` with `key` set, in its old place when it had one."""
    if any(k == key for k, _ in pairs):
        return tuple((k, value if k == key else v) for k, v in pairs)
    return (*pairs, (key, value))


def drop(pairs: tuple[tuple[str, str], ...], key: str) -> tuple[tuple[str, str], ...]:
    """`pairs` without `key`."""
    return tuple(pair for pair in pairs if pair[0] != key)


def with_image(container: ContainerState, **changes: Any) -> ContainerState:
    """`container` with parts of its image settings replaced."""
    return replace(container, image=replace(container.image, **changes), address=None)


def _pair(item: str) -> tuple[str, str]:
    key, _, value = item.partition("=")
    return key, value


def _port(item: str) -> Port:
    number, _, protocol = item.partition("/")
    return Port(int(number), (protocol or "tcp").upper())
