"""Calls to a daemon that says nothing, and who has to hear of it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from buildonce.engine.buildkit import Client, daemon

pytestmark = pytest.mark.anyio


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[str]:
    """The address of one that takes connections and never says a word."""
    path = tmp_path / "silent.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        yield f"unix://{path}"


async def test_a_time_limit_ends_a_call_and_nothing_else(silent: str) -> None:
    """grpcio's own CancelledError would have cancelled whoever set the limit."""
    async with Client.connect(silent) as client:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                with anyio.fail_after(0.2):
                    await client.info()
            with anyio.move_on_after(0.2) as scope:
                await client.disk_usage()
            assert scope.cancelled_caught
        await anyio.lowlevel.checkpoint()


async def test_a_task_group_ends_a_call_and_nothing_else(silent: str) -> None:
    async with Client.connect(silent) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.info)
            await anyio.sleep(0.2)
            group.cancel_scope.cancel()
        await anyio.lowlevel.checkpoint()


async def test_a_daemon_that_does_not_answer_in_time_is_none(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "ANSWER", 0.2)
    assert not await daemon._answers(silent)
