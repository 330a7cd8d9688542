"""The client's machine: its directories, files, sockets and ports."""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buildonce.engine.engine import Engine
from buildonce.engine.errors import QueryFailed
from buildonce.engine.operations import operation
from buildonce.engine.paths import literal
from buildonce.engine.states import (
    DirectoryState,
    FileState,
    ServiceState,
    SocketState,
)


@dataclass(frozen=True, slots=True)
class HostState:
    """The client's machine."""


@operation("Query.host")
def host(engine: Engine, self: None) -> HostState:
    return HostState()


def _path(engine: Engine, path: str) -> Path:
    if "\0" in path:
        raise QueryFailed(f"{path!r} is not a path")
    return Path(os.path.normpath(engine.options.workdir / Path(path).expanduser()))


@operation("Host.directory")
async def directory(
    engine: Engine,
    self: HostState,
    path: str,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    no_cache: bool = False,
    gitignore: bool = False,
) -> DirectoryState:
    root = _path(engine, path)
    if not root.exists():
        raise QueryFailed(f"host directory {path}: no such file or directory ({root})")
    if not root.is_dir():
        raise QueryFailed(f"host directory {path}: not a directory ({root})")
    output = await engine.uploads.directory(
        root, include=include, exclude=exclude, gitignore=gitignore, shown=path
    )
    return DirectoryState(output, "/", engine.platform)


@operation("Host.file")
async def file(engine: Engine, self: HostState, path: str, no_cache: bool = False) -> FileState:
    target = _path(engine, path)
    if not target.exists():
        raise QueryFailed(f"host file {path}: no such file or directory ({target})")
    if target.is_dir():
        raise QueryFailed(f"host file {path}: is a directory ({target})")
    # A link is read through, as `cat` would; what it leads to is what was asked for.
    real = target.resolve()
    output = await engine.uploads.directory(real.parent, include=[literal(real.name)], shown=path)
    state = FileState(output, f"/{real.name}", engine.platform)
    if real.name != target.name:
        from buildonce.engine.operations.file import with_name

        state = with_name(engine, state, target.name)
    return state


@operation("Host.findUp")
async def find_up(engine: Engine, self: HostState, name: str, no_cache: bool = False) -> str | None:
    start = engine.options.workdir
    for folder in (start, *start.parents):
        if (folder / name).exists():
            return os.path.relpath(folder / name, start)
    return None


@operation("Host.unixSocket")
def unix_socket(engine: Engine, self: HostState, path: str) -> SocketState:
    target = _path(engine, path)
    if not target.exists() or not modes.S_ISSOCK(target.stat().st_mode):
        raise QueryFailed(f"{path} is not a socket of this machine")
    address = f"unix:{target}"
    engine.services.sockets.add(address)
    return SocketState(address)


@operation("Host.service")
def service(
    engine: Engine, self: HostState, ports: Sequence[dict[str, Any]], host: str = "localhost"
) -> ServiceState:
    forwards = [_forward(port) for port in ports]
    if not forwards:
        raise QueryFailed("no ports specified: a host service needs at least one")
    return engine.services.to_host(host, forwards)


@operation("Host.tunnel")
def tunnel(
    engine: Engine,
    self: HostState,
    service: ServiceState,
    native: bool = False,
    ports: Sequence[dict[str, Any]] = (),
) -> ServiceState:
    return engine.services.from_host(service, [_forward(port) for port in ports], native=native)


def _forward(port: dict[str, Any]) -> tuple[int, int, str]:
    """(the port to listen on, 0 for any; the port to lead to; TCP or UDP)."""
    backend = port["backend"]
    frontend = port.get("frontend") or 0
    protocol = port.get("protocol") or "TCP"
    for number in (backend, frontend):
        if not 0 <= number < 65536 or backend == 0:
            raise QueryFailed(f"{number} is not a port: ports are from 1 to 65535")
    if protocol != "TCP":
        raise QueryFailed(f"only TCP ports can be forwarded, not {protocol}")
    return frontend, backend, protocol
