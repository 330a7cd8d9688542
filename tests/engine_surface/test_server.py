"""The HTTP endpoint: who may ask, what is answered, what never is."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from buildonce.engine import server as server_module

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Telemetry:
    def __init__(self) -> None:
        self.received: list[tuple[str, bytes]] = []

    def receive(self, signal: str, body: bytes) -> None:
        if body == b"bad":
            raise ValueError("the body is no OTLP request")
        self.received.append((signal, body))


def with_server(
    serve: Any, test: Callable[[Any, httpx.AsyncClient], Awaitable[None]], **options: Any
) -> None:
    async def run() -> None:
        async with serve(**options) as running:
            auth = (running.token, "")
            async with httpx.AsyncClient(auth=auth, timeout=30) as client:
                await test(running, client)

    asyncio.run(run())


async def ask(client: httpx.AsyncClient, running: Any, query: str, **more: Any) -> Any:
    response = await client.post(running.url, json={"query": query, **more})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    return response.json()


def test_a_query_is_answered_with_its_context(serve: Any) -> None:
    async def test(running: Any, client: httpx.AsyncClient) -> None:
        client.headers.update({"traceparent": TRACEPARENT, "x-dagger-client-id": "tester"})
        answer = await ask(client, running, '{container{from(address:"x"){stdout}}}')
        assert "from" in answer["data"]["container"]["from"]["stdout"]
        (context,) = running.engine.contexts
        assert context.parent_span == "00f067aa0ba902b7"
        assert context.client_id == "tester"

    with_server(serve, test)


def test_headers_that_are_not_well_formed_are_ignored(serve: Any) -> None:
    async def test(running: Any, client: httpx.AsyncClient) -> None:
        client.headers.update({"traceparent": "00-zz-\x1b[2J", "x-dagger-client-id": "a b"})
        await ask(client, running, "{version}")
        (context,) = running.engine.contexts
        assert context.traceparent is None
        assert context.parent_span is None
        assert context.client_id.startswith("port-")

    with_server(serve, test)


def test_variables_and_operation_names(serve: Any) -> None:
    async def test(running: Any, client: httpx.AsyncClient) -> None:
        query = "query a{envFile{id}} query b($n: String!){container{label(name:$n)}}"
        answer = await ask(client, running, query, variables={"n": "me"}, operationName="b")
        assert answer["data"]["container"]["label"]
        # As Go's clients say that they name none.
        assert (await ask(client, running, "{version}", operationName=""))["data"]["version"]

    with_server(serve, test)


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"authorization": "Basic"},
        {"authorization": "Basic !!!"},
        {"authorization": "Basic d3Jvbmc6"},
        {"authorization": "Basic dGhlLXNlc3Npb24tdG9rZQ=="},
        {"authorization": "Bearer the-session-token"},
    ],
)
@pytest.mark.parametrize("path", ["/query", "/v1/traces"])
def test_nobody_gets_in_without_the_token(serve: Any, header: dict[str, str], path: str) -> None:
    async def test(running: Any, client: httpx.AsyncClient) -> None:
        async with httpx.AsyncClient() as stranger:
            url = f"http://127.0.0.1:{running.port}{path}"
            response = await stranger.post(url, headers=header, json={"query": "{version}"})
        assert response.status_code == 401
        assert "token is missing or wrong" in response.json()["errors"][0]["message"]
        assert running.token not in response.text
        assert running.engine.contexts == []

    with_server(serve, test, telemetry=Telemetry())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "must be an object"),
        (b'{"query": 1}', "must be an object"),
        (b'{"query": "{version}", "variables": []}', "variables"),
        (b'{"query": "{version}", "operationName": 1}', "operationName"),
        (b"\xff\xfe", "not JSON"),
    ],
)
def test_requests_that_are_no_questions(serve: Any, body: bytes, message: str) -> None:
    async def test(running: Any, client: httpx.AsyncClient) -> None:
        response = await client.post(running.url, content=body)
        assert response.status_code == 400
        assert message in response.json()["errors"][0]["message"]

    with_server(serve, test)


def test_other_ways_and_places_are_answered_in_json(serve: Any) -> None:
    async def test(running: Any, client: httpx.AsyncClient) -> None:
        for response, status in (
            (await client.get(running.url), 405),
            (await client.post(f"http://127.0.0.1:{running.port}/"), 404),
            (await client.post(f"http://127.0.0.1:{running.port}/v1/traces"), 404),
        ):
            assert response.status_code == status
            assert response.json()["errors"]

    with_server(serve, test)


def test_requests_that_are_too_large(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_REQUEST", 1_000)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 100

    async def test(running: Any, client: httpx.AsyncClient) -> None:
        for content in (b"x" * 2_000, pieces()):
            response = await client.post(running.url, content=content)
            assert response.status_code == 413
        await ask(client, running, "{version}")

    with_server(serve, test)


def test_large_files_travel_in_queries(serve: Any) -> None:
    async def test(running: Any, client: httpx.AsyncClient) -> None:
        contents = json.dumps("line\n" * 100_000)
        query = f'{{directory{{withNewFile(path:"a",contents:{contents}){{id}}}}}}'
        answer = await ask(client, running, query)
        assert answer["data"]["directory"]["withNewFile"]["id"].startswith("Directory:")

    with_server(serve, test)


def test_a_failing_command_is_what_the_client_makes_its_error_from(serve: Any) -> None:
    async def test(running: Any, client: httpx.AsyncClient) -> None:
        answer = await ask(client, running, '{container{withExec(args:["fail","x"]){stdout}}}')
        (error,) = answer["errors"]
        assert error["message"] == "exit code: 3"
        assert error["path"] == ["container", "withExec", "stdout"]
        assert error["extensions"] == {
            "_type": "EXEC_ERROR",
            "cmd": ["fail", "x"],
            "exitCode": 3,
            "stdout": "some output",
            "stderr": "some complaint",
        }

    with_server(serve, test)


def test_a_bug_is_a_reference_to_the_log(
    serve: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    async def test(running: Any, client: httpx.AsyncClient) -> None:
        answer = await ask(client, running, '{container{withExec(args:["crash"]){stdout}}}')
        message = answer["errors"][0]["message"]
        assert "hunter2" not in json.dumps(answer)
        assert "Traceback" not in json.dumps(answer)
        assert str(tmp_path / "engine.log") in message
        reference = message.partition("reference ")[2][:8]
        assert reference in caplog.text
        assert "hunter2" in caplog.text  # for whoever looks into it
        await ask(client, running, "{version}")

    with caplog.at_level(logging.ERROR, "buildonce.engine"):
        with_server(serve, test, log=tmp_path / "engine.log")


def test_mistakes_in_queries(serve: Any) -> None:
    async def test(running: Any, client: httpx.AsyncClient) -> None:
        for query in ("", "{", "{nonsense}", "{container}", "{version version{a}}", "{" * 9_999):
            answer = await ask(client, running, query)
            assert answer["errors"][0]["message"]
            assert not answer.get("data")

    with_server(serve, test)


def test_a_chain_of_nearly_two_thousand_calls(serve: Any) -> None:
    async def test(running: Any, client: httpx.AsyncClient) -> None:
        step = '{withEnvVariable(name:"a",value:"b")'
        query = "{container" + step * 1_900 + "{id}" + "}" * 1_901
        answer = await ask(client, running, query)
        assert "errors" not in answer

    with_server(serve, test)


def test_a_client_that_hangs_up_ends_its_query(serve: Any) -> None:
    async def test(running: Any, client: httpx.AsyncClient) -> None:
        with pytest.raises(httpx.ReadTimeout):
            await client.post(
                running.url,
                json={"query": '{container{withExec(args:["sleep"]){stdout}}}'},
                timeout=0.3,
            )
        with anyio.fail_after(60):
            while not running.engine.cancelled:
                await asyncio.sleep(0.02)
        assert running.engine.cancelled == 1
        await ask(client, running, "{version}")

    with_server(serve, test)


def test_the_server_ends_while_queries_run(serve: Any) -> None:
    async def run() -> None:
        async with httpx.AsyncClient(timeout=30) as client:
            async with serve() as running:
                body = {"query": '{container{withExec(args:["sleep"]){stdout}}}'}
                asking = asyncio.create_task(
                    client.post(running.url, json=body, auth=(running.token, ""))
                )
                await asyncio.sleep(0.3)
            with pytest.raises(httpx.HTTPError):
                (await asking).raise_for_status()
                raise httpx.ReadError("the answer said that the session is ending")
        assert running.engine.cancelled == 1

    asyncio.run(asyncio.wait_for(run(), 15))


def test_small_queries_are_fast(serve: Any) -> None:
    """Without Nagle's algorithm turned off, each takes 40 ms."""

    async def test(running: Any, client: httpx.AsyncClient) -> None:
        await ask(client, running, "{version}")
        took = []
        for _ in range(100):
            begun = asyncio.get_running_loop().time()
            await ask(client, running, "{version}")
            took.append(asyncio.get_running_loop().time() - begun)
        assert min(took) < 0.03  # the fastest: how busy the machine is does not matter

    with_server(serve, test)


def test_telemetry_is_received(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_TELEMETRY", 100_000)
    telemetry = Telemetry()

    async def test(running: Any, client: httpx.AsyncClient) -> None:
        base = f"http://127.0.0.1:{running.port}/v1"
        zipped = {"content-encoding": "gzip"}
        assert (await client.post(f"{base}/traces", content=b"abc")).status_code == 200
        packed = gzip.compress(b"def")
        assert (
            await client.post(f"{base}/logs", content=packed, headers=zipped)
        ).status_code == 200
        for content in (b"no gzip", gzip.compress(b"\0" * 10_000_000)):
            answer = await client.post(f"{base}/logs", content=content, headers=zipped)
            assert answer.status_code == 400
        assert (await client.post(f"{base}/traces", content=b"bad")).status_code == 400
        assert (await client.post(f"{base}/other", content=b"abc")).status_code == 404

    with_server(serve, test, telemetry=telemetry)
    assert telemetry.received == [("traces", b"abc"), ("logs", b"def")]


def test_introspection_is_answered_from_what_is_kept(serve: Any, tmp_path: Path) -> None:
    query = "{__schema{queryType{name}}}"

    async def test(running: Any, client: httpx.AsyncClient) -> None:
        answer = await ask(client, running, query)
        assert answer == {"data": {"__schema": {"queryType": {"name": "Query"}}}}
        assert running.engine.contexts == []  # the engine need not be there for it

    with_server(serve, test, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    with_server(serve, test, cache=tmp_path)
