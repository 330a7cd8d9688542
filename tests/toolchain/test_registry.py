"""The loopback registry: started once, found again, never taken for another's."""

from __future__ import annotations

import http.server
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from buildonce.errors import BuildonceError
from buildonce.toolchain import oci, registry
from buildonce.toolchain.registry import LoopbackRegistry, speaks_registry
from tests.loopback import free_port, http_server

pytestmark = pytest.mark.anyio


@pytest.fixture
def other_server() -> Iterator[int]:
    """A web server that answers 200 to everything, as many do."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http_server(Handler) as address:
        yield int(address.partition(":")[2])


async def test_a_port_taken_by_something_else_is_a_clear_error(
    other_server: int, tmp_path: Path
) -> None:
    assert not speaks_registry(other_server)
    loopback = LoopbackRegistry(other_server, tmp_path)
    assert not loopback.status().running
    with pytest.raises(BuildonceError, match=f"another program.* has port {other_server}") as error:
        await loopback.up()
    assert "BUILDONCE_REGISTRY_PORT" in (error.value.remedy or "")


@pytest.mark.parametrize("value", ["0", "70000", "http", ""])
def test_a_port_that_is_none_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDONCE_REGISTRY_PORT", value)
    with pytest.raises(BuildonceError, match="is not a port"):
        LoopbackRegistry.configured()


def test_a_reused_process_number_is_not_taken_for_the_registry(tmp_path: Path) -> None:
    loopback = LoopbackRegistry(free_port(), tmp_path)
    mine = {"pid": os.getpid(), "started": "1@another-boot", "port": loopback.port}
    (tmp_path / "registry.pid").write_text(json.dumps(mine), "utf-8")
    assert loopback._owner() is None
    mine["started"] = registry._start_time(os.getpid()) or ""
    (tmp_path / "registry.pid").write_text(json.dumps(mine), "utf-8")
    assert loopback._owner() is not None


async def test_stopping_what_does_not_run_is_fine(tmp_path: Path) -> None:
    assert not await LoopbackRegistry(free_port(), tmp_path).down()


@pytest.mark.e2e
async def test_it_starts_once_serves_and_keeps_its_images(tmp_path: Path) -> None:
    loopback = LoopbackRegistry(free_port(), tmp_path / "registry")
    try:
        async with anyio.create_task_group() as group:
            for _ in range(2):  # two set-ups at once
                group.start_soon(loopback.up)
        first = loopback.status()
        assert first.running
        assert (await loopback.up()).pid == first.pid

        layout = tmp_path / "layout"
        layout.mkdir()
        rootfs = tmp_path / "rootfs.tar"
        rootfs.write_bytes(b"\0" * 10240)
        digest = oci.write_layout(
            layout, rootfs, architecture="amd64", created="2023-06-10T00:00:00Z", config={}
        )
        reference = f"{loopback.address}/base/empty:1"
        assert await oci.pushed_digest(reference) is None
        assert await oci.push(layout, reference) == digest

        # Another home at the same port must not take it for its own.
        foreign = replace(loopback, folder=tmp_path / "other")
        with pytest.raises(BuildonceError, match="another registry"):
            await foreign.up()
        assert not await foreign.down()

        assert await loopback.down()
        assert not loopback.status().running
        assert not speaks_registry(loopback.port)
        again = await loopback.up()
        assert again.running
        assert again.pid != first.pid
        assert await oci.pushed_digest(reference) == digest
    finally:
        await loopback.down()


@pytest.mark.e2e
async def test_a_registry_that_died_is_started_anew(tmp_path: Path) -> None:
    loopback = LoopbackRegistry(free_port(), tmp_path / "registry")
    try:
        pid = (await loopback.up()).pid
        assert pid is not None
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        assert not loopback.status().running
        assert (await loopback.up()).pid != pid
    finally:
        await loopback.down()
