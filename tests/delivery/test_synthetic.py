"""Requests of a rollout's own, at a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import ClassVar

import anyio
import pytest

from buildonce.config.rollout import SyntheticConfig
from buildonce.delivery.synthetic import Synthetic
from tests.loopback import free_port, http_server

pytestmark = pytest.mark.anyio
RATE = 50


class Service(BaseHTTPRequestHandler):
    """Answers in turn by a new and an old release; every tenth answer is a failure."""

    paths: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.paths.append(self.path)
        number = len(self.paths)
        body = json.dumps({"digest": ["old", "new"][number % 2]}).encode()
        self.send_response(503 if number % 10 == 0 else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[str]:
    Service.paths = []
    with http_server(Service) as address:
        yield f"http://{address}"


def config() -> SyntheticConfig:
    return SyntheticConfig(path="/basket", rate=RATE)


async def asked(synthetic: Synthetic, number: int) -> None:
    with anyio.fail_after(60):
        while synthetic.requests < number:
            await anyio.sleep(0.01)


async def test_nothing_is_asked_before_there_is_somebody(service: str) -> None:
    synthetic = Synthetic(service, config())
    async with synthetic.running():
        await anyio.sleep(0.1)
        assert synthetic.requests == 0
        synthetic.begin()
        await asked(synthetic, 1)
    assert set(Service.paths) == {"/basket"}


async def test_answers_are_counted_by_release_and_by_the_share_it_had(service: str) -> None:
    synthetic = Synthetic(service, config())
    async with synthetic.running():
        synthetic.begin()
        await asked(synthetic, 20)
        synthetic.percent = None  # just now it changes: these belong to neither
        await anyio.sleep(0.1)
        synthetic.percent = 50
        await asked(synthetic, synthetic.requests + 40)
    halves = synthetic.split(50)
    assert set(halves["answers"]) == {"new", "old"}
    assert halves["requests"] == sum(halves["answers"].values())
    assert synthetic.split(0)["requests"] >= 15
    assert synthetic.split(10) == {"requests": 0, "answers": {}}
    told = synthetic.to_json()
    assert told["requests"] == len(Service.paths) == synthetic.requests, "all were waited for"
    assert told["failed"] == len(Service.paths) // 10
    assert set(told["failures"]) == {"it answered 503"}


async def test_nobody_there_is_a_failure_and_not_the_end_of_the_rollout() -> None:
    synthetic = Synthetic(f"http://127.0.0.1:{free_port()}", config())
    async with synthetic.running():
        synthetic.begin()
        await asked(synthetic, 8)
    assert synthetic.failed == synthetic.requests
    assert len(synthetic.failures) == 5, "the first few are shown"
    assert "ConnectError" in synthetic.failures[0]


async def test_it_goes_on_while_things_are_put_back(service: str) -> None:
    synthetic = Synthetic(service, config())
    with anyio.CancelScope() as scope:
        async with synthetic.running():
            synthetic.begin()
            try:
                scope.cancel()
                await anyio.sleep(60)
            finally:
                before = synthetic.requests
                with anyio.CancelScope(shield=True):
                    await asked(synthetic, before + 5)
    assert scope.cancelled_caught
    assert len(Service.paths) == synthetic.requests
