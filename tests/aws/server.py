"""The simulation as a process of its own, on loopback: its API, its registries, its load balancers.

    async with serving(config, folder) as server:
        ...                                   # server.simulation; `server.variables` to export

The clock runs faster than ours, so that minutes of draining and baking pass in a second. No image
is run: what answers at an environment's address is this checkout's dashboard, told that it is the
release that the simulation gives the traffic to, request by request as the weights are.
"""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import uvicorn

from buildonce.config import Config, EnvironmentConfig
from buildonce.dashboard.app import create_app
from buildonce.dashboard.settings import Settings
from buildonce.errors import BuildonceError

from .accounts import enter, furnish
from .clock import SimulatedClock
from .faults import Process
from .place import Place
from .registries import registry_of
from .simulation import Simulation
from .wire import BadRequest, Message

SPEED = 60.0


class FastClock(SimulatedClock):
    """The machine's own date, and seconds that pass faster than its own."""

    def __init__(self, speed: float = SPEED) -> None:
        super().__init__()
        self._speed = speed
        self._began = time.monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return (time.monotonic() - self._began) * self._speed + self._passed


@dataclass
class Server:
    """What listens.

    Attributes:
        simulation: all of it.
        doors: by port, the place and the name ("project-environment") whose users come in there.
    """

    config: Config
    simulation: Simulation
    doors: dict[int, tuple[Place, str]] = field(default_factory=dict)
    sockets: list[socket.socket] = field(default_factory=list)
    _apps: dict[tuple[int, str], Any] = field(default_factory=dict)
    _numbers: Any = field(default_factory=itertools.count)

    @property
    def variables(self) -> dict[str, str]:
        """What a process needs in its environment to be the simulation's caller."""
        return {
            "AWS_ACCESS_KEY_ID": self.simulation.caller_key,
            "AWS_SECRET_ACCESS_KEY": "simulated",
            "AWS_SESSION_TOKEN": "simulated",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def listen(self, port: int = 0) -> int:
        """Listen on a port of loopback too; the port."""
        try:
            found = socket.create_server(("127.0.0.1", port))
        except OSError as error:
            raise BuildonceError(
                f"nobody can listen on port {port} of this machine: {error.strerror}",
                remedy="end the other simulation, or give other ports in the profile",
            ) from error
        self.sockets.append(found)
        number: int = found.getsockname()[1]
        return number

    async def app(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """What uvicorn serves: the door that a request came in by says what it is for."""
        if scope["type"] != "http":
            return
        port = scope["server"][1]
        if port not in self.doors:
            await self._api(scope, receive, send)
            return
        place, name = self.doors[port]
        with self.simulation.alone():
            shares = place.serving(name)
            chosen = _chosen(shares, next(self._numbers))
            variables = place.variables(chosen) if chosen else {}
        if chosen is None:
            await _answer(send, 503, {"content-type": "text/plain"}, b"no release")
            return
        key = (port, chosen)
        if key not in self._apps:
            settings = Settings.from_environment(variables)
            self._apps[key] = create_app(
                Settings(**{**vars(settings), "ledger": self.config.ledger_path})
            )
        await self._apps[key](scope, receive, send)

    async def _api(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        headers = {key.decode().lower(): value.decode() for key, value in scope["headers"]}
        query = scope["query_string"].decode()
        url = f"http://{headers['host']}{scope['raw_path'].decode()}{'?' if query else ''}{query}"
        message = Message(scope["method"], url, headers, body)
        try:
            found = await anyio.to_thread.run_sync(self.simulation.respond, message, Process())
        except BadRequest as error:
            await _answer(send, 400, {"content-type": "text/plain"}, str(error).encode())
            return
        await _answer(send, found.status, found.headers, found.body)


def _chosen(shares: dict[str, float], number: int) -> str | None:
    """The digest for request `number`: of every 100, as many as its share is."""
    at = (number * 37) % 100 + 0.5  # 37 has no factor in common with 100: steps through all
    for digest, share in sorted(shares.items()):
        at -= share
        if at < 0:
            return digest
    return next(iter(sorted(shares)), None)


async def _answer(send: Any, status: int, headers: dict[str, str], body: bytes) -> None:
    if status == 204:
        body = b""  # as the status says
    kept = {key.lower(): value for key, value in headers.items()} | {
        "content-length": str(len(body))
    }
    pairs = [(key.encode(), value.encode()) for key, value in kept.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(
    config: Config,
    folder: Path,
    *,
    speed: float = SPEED,
    furnished: bool = False,
    trail: Path | None = None,
) -> AsyncIterator[Server]:
    """Accounts, roles and registries of a configuration, listening where it says.

    Args:
        config: has accounts with an `endpoint` on loopback, and environments in them.
        folder: for the data of the registries.
        speed: seconds of the simulation in one of ours.
        furnished: with the stacks that `env apply` would make.
        trail: file that gets a line for each call: who calls what, where.
    """
    server = Server(config, Simulation(FastClock(speed)))
    simulation = server.simulation
    places = [
        place
        for environment in config.environments.values()
        for place in environment.places
        if place.target != "local"
    ]
    async with AsyncExitStack() as stack:
        if trail is not None:
            written = stack.enter_context(trail.open("w", buffering=1))
            simulation.trail = lambda who, call: print(who, call.region, call.name, file=written)
        for number in sorted({_port(a.endpoint) for a in config.accounts.values() if a.endpoint}):
            server.listen(number)
        for account, host in sorted(_registries(places).items()):
            port = int(host.rpartition(":")[2])
            made = registry_of(account, folder / account, port=port)
            simulation.registries[account] = stack.enter_context(made)
        doors = {
            f"{config.project.name}-{place.name}": server.listen(
                _port(place.address) if place.address else 0
            )
            for place in places
        }
        for place in places:
            name = f"{config.project.name}-{place.name}"
            found = simulation.place(place.account_config.id, place.region or "")
            server.doors[doors[name]] = (found, name)
        simulation.door = lambda _, name: f"127.0.0.1:{doors[name]}"
        enter(simulation, places, project=config.project.name, source=config.project.repository)
        if furnished:
            furnish(simulation, places, project=config.project.name)
        web = uvicorn.Server(
            uvicorn.Config(
                server.app, interface="asgi3", lifespan="off", log_level="warning", ws="none"
            )
        )
        web.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        async with anyio.create_task_group() as group:
            group.start_soon(_serve, web, server.sockets)
            while not web.started:
                await anyio.sleep(0.01)
            try:
                yield server
            finally:
                web.should_exit = True


async def _serve(web: uvicorn.Server, sockets: list[socket.socket]) -> None:
    # Not `serve`, which takes the signals of this process for its own.
    await web._serve(sockets)


def _port(address: str | None) -> int:
    port = urlsplit(address or "").port
    assert port is not None, f"the configuration names no port: {address}"
    return port


def _registries(places: list[EnvironmentConfig]) -> dict[str, str]:
    """host:port of the registry of each account that has one."""
    return {
        place.account_config.id: place.registry.partition("/")[0]
        for place in places
        if place.registry is not None
    }
