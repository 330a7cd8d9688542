"""Real servers on loopback that tests start for themselves."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest


@cache
def _ports(process: int) -> list[int]:
    """Below those that a kernel lends to connections (Linux: from 32768): one of these may be taken
    between being found and being used. Each process has its own order, also after a fork, and
    each worker of pytest-xdist its own numbers."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = [port for port in range(11_000, 32_000) if port % 8 == worker % 8]
    random.SystemRandom().shuffle(ports)
    return ports


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on; no process is given one twice."""
    while True:
        port = _ports(os.getpid()).pop()
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


@contextmanager
def http_server(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """host:port of a server that has one of these handlers for each request."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    # Looks every 20 ms whether it is to end; by itself every half second.
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def registry(
    folder: Path, *, htpasswd: Path | None = None, port: int | None = None
) -> Iterator[str]:
    """host:port of a registry with its data in `folder`.

    Args:
        htpasswd: who may log in, hashed with bcrypt; None lets everybody in.
        port: where it listens; a free one when None.
    """
    binary = shutil.which("docker-registry") or shutil.which("registry")
    if binary is None:
        pytest.fail("no registry is installed: apt-get install docker-registry")
    folder.mkdir(parents=True, exist_ok=True)
    host = f"127.0.0.1:{port or free_port()}"
    lines = [
        "version: 0.1",
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}}}",
        f"http: {{addr: '{host}'}}",
    ]
    if htpasswd is not None:
        lines.append(f"auth: {{htpasswd: {{realm: test, path: {htpasswd}}}}}")
    (folder / "config.yml").write_text("\n".join(lines))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [binary, "serve", str(folder / "config.yml")], stdout=log, stderr=log
        )
    try:
        _answers(host, folder / "log")
        yield host
    finally:
        process.terminate()
        process.wait()


def _answers(host: str, log: Path) -> None:
    for _ in range(200):
        try:
            httpx.get(f"http://{host}/v2/", trust_env=False)
        except httpx.HTTPError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"the registry did not start: {log.read_text()}")
