"""The proxy of an environment: a real HAProxy before servers of this process."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.abc
import pytest

from buildonce.delivery import SmokeFailed, http_smoke
from buildonce.delivery.errors import TargetFailed
from buildonce.delivery.haproxy import Proxy
from buildonce.delivery.proxy_configuration import Slot
from tests.loopback import free_port

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def answering(text: str) -> AsyncIterator[int]:
    """A server that gives one answer; its port."""

    async def answer(stream: anyio.abc.SocketStream) -> None:
        with suppress(anyio.BrokenResourceError):  # a health check that did not wait
            async with stream:
                async for _ in stream:  # the requests are small, and come one after another
                    await stream.send(
                        f"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{text}".encode()
                    )

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, answer)
        yield listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 (not Django's)
        group.cancel_scope.cancel()


async def ask(port: int, times: int) -> Counter[str]:
    """Who gave how many of the answers."""
    found: Counter[str] = Counter()
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        for _ in range(times):
            await stream.send(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            answer = await stream.receive()
            while not answer.partition(b"\r\n\r\n")[2]:
                answer += await stream.receive()
            found[answer[-1:].decode()] += 1
    return found


async def test_answers_follow_the_weights_from_the_first_one_on(
    tmp_path: Path, unused_port: int
) -> None:
    """HAProxy may be far off until the turn has ended in which weights were changed."""
    proxy = Proxy(tmp_path, name="shop/staging", port=unused_port, health_path="/")
    async with answering("a") as one, answering("b") as two:
        ports, old, new = {"a": one, "b": two}, "a", "b"
        try:
            await proxy.ensure({"a": Slot(one, 100, standby=True), "b": Slot(None)})
            for rollout in range(15):
                await proxy.apply({old: Slot(ports[old], 100, True), new: Slot(ports[new], 0)})
                assert await proxy.up(new, within=5)
                for percent in (10, 25, 50, 100):
                    slots = {
                        old: Slot(ports[old], 100 - percent, True),
                        new: Slot(ports[new], percent),
                    }
                    await proxy.apply(slots)
                    share = 100 * (await ask(unused_port, 100))[new] / 100
                    assert abs(share - percent) <= 3, (rollout, percent, share)
                    await ask(unused_port, rollout * 37 % 100)  # turns end at any time
                old, new = new, old
                await proxy.apply({old: Slot(ports[old], 100, True), new: Slot(None)})
        finally:
            await proxy.stop()


async def test_a_proxy_in_a_very_long_folder(tmp_path: Path, unused_port: int) -> None:
    """A socket's path has at most 108 bytes."""
    folder = tmp_path / ("x" * 100)
    proxy = Proxy(folder, name="shop/staging", port=unused_port, health_path="/")
    try:
        assert await proxy.ensure({})
        assert await proxy.running()
        assert not await proxy.ensure({}), "it runs already"
    finally:
        await proxy.stop()
    assert not await proxy.running()


async def test_a_proxy_moves_to_another_port(tmp_path: Path, unused_port: int) -> None:
    first = Proxy(tmp_path, name="shop/staging", port=unused_port, health_path="/")
    try:
        await first.ensure({})
        other = free_port()
        second = Proxy(tmp_path, name="shop/staging", port=other, health_path="/")
        assert not await second.ensure({}), "taken over, not started from nothing"
        with pytest.raises(SmokeFailed, match="answered 503"):
            await http_smoke()(f"http://127.0.0.1:{other}")
    finally:
        await first.stop()


async def test_haproxy_that_is_not_installed(
    tmp_path: Path, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    proxy = Proxy(tmp_path, name="shop/staging", port=unused_port, health_path="/")
    with pytest.raises(TargetFailed, match="haproxy is not installed") as error:
        await proxy.ensure({})
    assert error.value.remedy == "apt-get install haproxy"
