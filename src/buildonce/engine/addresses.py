"""Addresses of servers that a program names, and where a service of its own behind one is reached.

parts = parts_of("http://www:8080/page")
async with served(engine, service, parts) as (host, port): ...
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import SplitResult, urlsplit

from buildonce.engine.engine import Engine
from buildonce.engine.errors import QueryFailed
from buildonce.engine.states import ServiceState
from buildonce.engine.tunnels import nearby

_PORTS = {"http": 80, "https": 443, "ssh": 22, "git": 9418}


def parts_of(url: str) -> SplitResult:
    """The parts of an address.

    Raises:
        QueryFailed: it is none.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise QueryFailed(f"{url!r} is not an address: {error}") from None
    return parts


@asynccontextmanager
async def served(
    engine: Engine, service: ServiceState, parts: SplitResult
) -> AsyncIterator[tuple[str, int]]:
    """Host and port by which programs of this machine reach what `service` serves at an address; it
    runs for as long."""
    port = parts.port or _PORTS.get(parts.scheme, 0)
    async with (
        engine.services.reached(service) as running,
        nearby(engine, running, port) as there,
    ):
        yield there
