"""Whether public container registries can be reached, which decides the profile.

A connection alone proves nothing: some networks accept every one. What counts is the answer of a
registry to the request every registry answers.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from pathlib import Path

import anyio

OFFLINE = "offline"
_SECONDS = 6.0
# Where a reference without a host, or with this one, is really served (OCI clients agree on it).
_DOCKER_HUB = ("docker.io", "registry-1.docker.io")


def registry_hosts(references: Iterable[str]) -> list[str]:
    """The hosts that image references name, each once, loopback left out.

    >>> registry_hosts(["docker.io/library/python:3.12", "127.0.0.1:5080/base"])
    ['docker.io']
    """
    hosts: dict[str, None] = {}
    for reference in references:
        first, slash, _ = reference.partition("/")
        named = bool(slash) and ("." in first or ":" in first or first == "localhost")
        host = first if named else _DOCKER_HUB[0]
        if not host.startswith(("127.", "localhost", "[::1]")):
            hosts[host] = None
    return list(hosts)


def configured_images(pipeline_toml: Path) -> list[str]:
    """The public images that a pipeline's configuration names; none when it cannot be read."""
    import tomllib

    try:
        tables = tomllib.loads(pipeline_toml.read_text("utf-8"))
        images = [*tables.get("images", {}).values()]
        images += [tool.get("image") for tool in tables.get("tools", {}).values()]
    except (OSError, ValueError, AttributeError):
        return []
    return [value for value in images if isinstance(value, str)]


async def unreachable(hosts: Iterable[str]) -> list[str]:
    """Which of the registries do not answer as registries do, asked at the same time."""
    missing: list[str] = []

    async def ask(host: str) -> None:
        if not await is_registry(host):
            missing.append(host)

    async with anyio.create_task_group() as group:
        for host in hosts:
            group.start_soon(ask, host)
    return sorted(missing)


async def is_registry(host: str) -> bool:
    """Whether an OCI registry answers at https://`host`/v2/."""
    import httpx

    served = _DOCKER_HUB[1] if host == _DOCKER_HUB[0] else host
    try:
        # The system's authorities (and SSL_CERT_FILE), as the engine and podman use.
        async with httpx.AsyncClient(
            verify=ssl.create_default_context(), timeout=_SECONDS, follow_redirects=False
        ) as client:
            answer = await client.get(f"https://{served}/v2/")
    except (httpx.HTTPError, OSError):
        return False
    version = answer.headers.get("Docker-Distribution-Api-Version", "")
    return answer.status_code in (200, 401) and version.startswith("registry/2")
