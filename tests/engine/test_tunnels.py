"""Ports of services on the host, and ports of the host as services."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler

import dagger
import httpx
import pytest
from dagger import PortForward

from tests.engine.engines import failure, fresh, get
from tests.loopback import free_port, http_server

pytestmark = pytest.mark.anyio


async def ask_host(endpoint: str) -> str:
    async with httpx.AsyncClient(trust_env=False) as http:
        return (await http.get(f"http://{endpoint}/", timeout=15)).text


async def test_a_tunnel(client: dagger.Client, web: dagger.Container) -> None:
    tunnel = await client.host().tunnel(web.as_service()).start()
    endpoint = await tunnel.endpoint()
    assert endpoint.split(":")[0] == await tunnel.hostname() == "127.0.0.1"
    assert await ask_host(endpoint) == "served"
    [port] = await tunnel.ports()
    assert await port.port() == int(endpoint.split(":")[1])
    await tunnel.stop()
    with pytest.raises(httpx.HTTPError):
        await ask_host(endpoint)


async def test_a_tunnel_on_a_chosen_port(client: dagger.Client, web: dagger.Container) -> None:
    port = free_port()
    forward = PortForward(backend=8000, frontend=port)
    tunnel = await client.host().tunnel(web.as_service(), ports=[forward]).start()
    assert await tunnel.endpoint() == f"127.0.0.1:{port}"
    assert await ask_host(f"127.0.0.1:{port}") == "served"
    await tunnel.stop()


async def test_a_tunnel_to_nothing(client: dagger.Client, base: dagger.Container) -> None:
    tunnel = client.host().tunnel(base.as_service(args=["sleep", "9"]))
    assert "no ports to forward" in str(await failure(tunnel.start()))


async def test_up_leads_host_ports_to_a_service(web: dagger.Container) -> None:
    port = free_port()
    up = asyncio.create_task(web.as_service().up(ports=[PortForward(backend=8000, frontend=port)]))
    answer = ""
    for _ in range(100):
        await asyncio.sleep(0.2)
        with suppress(httpx.HTTPError):
            answer = await ask_host(f"127.0.0.1:{port}")
            break
    up.cancel()
    await asyncio.wait([up])
    assert answer == "served"


@pytest.fixture
def host_server() -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"from the host")

        def log_message(self, *_: object) -> None:
            pass

    with http_server(Handler) as address:
        yield int(address.partition(":")[2])


async def test_a_service_of_the_host(
    client: dagger.Client, base: dagger.Container, host_server: int
) -> None:
    service = client.host().service([PortForward(backend=host_server, frontend=80)])
    bound = fresh(base.with_service_binding("host", service))
    assert await bound.with_exec(get("host:80")).stdout() == "from the host"


async def test_a_service_of_the_host_that_is_not_there(
    client: dagger.Client, base: dagger.Container
) -> None:
    service = client.host().service([PortForward(backend=free_port(), frontend=80)])
    bound = fresh(base.with_service_binding("host", service))
    assert await bound.with_exec(get("host:80")).stdout() == ""


async def test_a_service_is_tested_through_a_service(
    client: dagger.Client, base: dagger.Container, web: dagger.Container
) -> None:
    """What pipelines do: the thing under test on the host's side, the test in a container."""
    tunnel = await client.host().tunnel(web.as_service()).start()
    port = int((await tunnel.endpoint()).split(":")[1])
    service = client.host().service([PortForward(backend=port, frontend=8080)])
    bound = fresh(base.with_service_binding("app", service))
    assert await bound.with_exec(get("app:8080")).stdout() == "served"
    await tunnel.stop()
