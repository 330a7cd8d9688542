"""Real servers on loopback that tests start for themselves."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def registry(folder: Path, *, htpasswd: Path | None = None) -> Iterator[str]:
    """host:port of a registry with its data in `folder`.

    Args:
        htpasswd: who may log in, hashed with bcrypt; None lets everybody in.
    """
    binary = shutil.which("docker-registry") or shutil.which("registry")
    if binary is None:
        pytest.fail("no registry is installed: apt-get install docker-registry")
    folder.mkdir(parents=True, exist_ok=True)
    host = f"127.0.0.1:{free_port()}"
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
