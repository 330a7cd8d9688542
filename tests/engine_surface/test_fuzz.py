"""Whatever is sent to the endpoint, it answers as it should, at once, and tells no secret."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from graphql import GraphQLNonNull, get_named_type, is_leaf_type
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from buildonce.engine import limits
from buildonce.engine.schema import load

# `BUILDONCE_FUZZ=10000` makes it the long run.
EXAMPLES = int(os.environ.get("BUILDONCE_FUZZ", "150"))
SLOWEST = 20.0  # seconds; the machine may be busy
SCHEMA = load()
limits.prepare()  # hypothesis minds a recursion limit that changes while it runs
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Endpoint:
    def __init__(self, port: int, token: str) -> None:
        self.port, self.token = port, token
        self.credentials = base64.b64encode(f"{token}:".encode()).decode()

    def send(
        self,
        body: bytes,
        *,
        method: str = "POST",
        path: str = "/query",
        headers: dict[str, str] | None = None,
        authorized: bool = True,
    ) -> tuple[int, bytes]:
        sent = {"content-type": "application/json", **(headers or {})}
        if authorized:
            sent["authorization"] = f"Basic {self.credentials}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SLOWEST)
        begun = time.monotonic()
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            answer = response.read()
            whole = answer + str(response.getheaders()).encode()
            assert self.token.encode() not in whole, "the token is told"
            assert b"Traceback" not in whole
            assert response.status < 500, answer
            assert time.monotonic() - begun < SLOWEST
            return response.status, answer
        finally:
            connection.close()

    def query(self, query: str, **more: Any) -> dict[str, Any]:
        status, answer = self.send(json.dumps({"query": query, **more}).encode())
        assert status == 200
        parsed = json.loads(answer)
        assert set(parsed) <= {"data", "errors"}
        for error in parsed.get("errors", ()):
            assert isinstance(error["message"], str)
        return dict(parsed)

    def works(self) -> None:
        assert self.query("{version}")["data"]["version"] is not None


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    from tests.engine_surface.conftest import run_server

    found: list[Endpoint] = []
    ready, done = threading.Event(), threading.Event()

    async def serve() -> None:
        async with run_server() as running:
            found.append(Endpoint(running.port, running.token))
            ready.set()
            while not done.is_set():
                await asyncio.sleep(0.05)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait(60)
    yield found[0]
    found[0].works()
    done.set()
    thread.join(30)


# -- requests -----------------------------------------------------------------------------------

names = st.text(alphabet="abcdefghijklmnop_", min_size=1, max_size=8)
WORDS = r"""
{ } ( ) [ ] : ... on @ $ ! = | & " query mutation subscription fragment a container version id
node __schema __type __typename Container true null 1 1e999 - \ \u0000 # , type schema extend input
99999999999999999999 {a{a{a{a{a{a € 😀
"""
ODD = ["\n", "\x00", "\ufeff", "\u2028", '"' * 3]
pieces = st.lists(st.sampled_from([*WORDS.split(), *ODD]), max_size=60).map(" ".join)


@fuzz
@given(st.one_of(pieces, st.text(max_size=300)))
def test_any_text_as_query(endpoint: Endpoint, query: str) -> None:
    endpoint.query(query.encode("utf-8", "replace").decode())


@fuzz
@given(
    body=st.one_of(
        st.binary(max_size=300),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=10), inner),
        ).map(lambda value: json.dumps(value).encode()),
        st.builds(
            lambda query, variables, operation: json.dumps(
                {"query": query, "variables": variables, "operationName": operation}
            ).encode(),
            st.sampled_from(["{version}", "query a($a: ID!){node(id:$a){id}}", ""]),
            st.none() | st.integers() | st.dictionaries(names, st.integers() | st.text()),
            st.none() | st.text(max_size=10) | st.integers(),
        ),
    ),
    method=st.sampled_from(["POST", "GET", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"]),
    path=st.sampled_from(
        ["/query", "/", "/query/", "/v1/traces", "/v1/..", "/../etc/passwd", "/query?a=b", "//"]
    ),
    headers=st.dictionaries(
        st.sampled_from(["traceparent", "content-encoding", "content-type", "x-dagger-client-id"]),
        st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=80),
    ),
    authorized=st.booleans(),
)
def test_any_request(endpoint: Endpoint, authorized: bool, **request: Any) -> None:
    status, answer = endpoint.send(**request, authorized=authorized)
    if not authorized:
        assert status in (307, 401, 404, 405)
    if answer:
        json.loads(answer)


# -- queries of the schema ----------------------------------------------------------------------

HOSTILE = st.sampled_from(
    ["", "/", "..", "../../etc/passwd", "\x00", "a" * 5_000, "${HOME}", "\u202e", "'; rm -rf /"]
)


def literal(type_: Any, draw: Any) -> str:
    """A literal of a type; now and then one of another type."""
    if draw(st.integers(0, 15)) == 0:
        return str(draw(st.sampled_from(["null", "1", '"a"', "[]", "{}", "NONSENSE", "-1.5e3"])))
    if isinstance(type_, GraphQLNonNull):
        return literal(type_.of_type, draw)
    if hasattr(type_, "of_type"):
        return (
            "["
            + ",".join(literal(type_.of_type, draw) for _ in range(draw(st.integers(0, 3))))
            + "]"
        )
    if hasattr(type_, "values"):
        return str(draw(st.sampled_from(sorted(type_.values))))
    if hasattr(type_, "fields"):
        fields = type_.fields.items()
        return "{" + ",".join(f"{n}:{literal(f.type, draw)}" for n, f in fields) + "}"
    match type_.name:
        case "Int":
            return str(draw(st.sampled_from([0, 1, -1, 2**31 - 1, 2**31, -(2**63), 8080])))
        case "Boolean":
            return str(draw(st.sampled_from(["true", "false"])))
        case "Float":
            return "0.5"
    return json.dumps(draw(st.one_of(HOSTILE, st.text(max_size=30))))


@st.composite
def chains(draw: Any) -> str:
    """A query as clients write them: a chain of fields of the schema, with arguments."""
    type_: Any = SCHEMA.query_type
    parts: list[str] = []
    for _ in range(draw(st.integers(1, 8))):
        name, field = draw(st.sampled_from(sorted(type_.fields.items())))
        given_ = {
            argument: literal(definition.type, draw)
            for argument, definition in field.args.items()
            if isinstance(definition.type, GraphQLNonNull) or draw(st.booleans())
        }
        shown = ",".join(f"{key}:{value}" for key, value in given_.items())
        parts.append(f"{name}({shown})" if given_ else name)
        type_ = get_named_type(field.type)
        if is_leaf_type(type_):
            break
    else:
        parts.append("id")
    if not is_leaf_type(type_):
        parts.append("id")
    return "{" + "{".join(parts) + "}" * len(parts)


@fuzz
@given(chains())
def test_any_chain_of_the_schema(endpoint: Endpoint, query: str) -> None:
    answer = endpoint.query(query.encode("utf-8", "replace").decode())
    assert answer.get("errors") or answer["data"]


@fuzz
@given(
    identity=st.one_of(HOSTILE, st.text(max_size=60), st.from_regex(r"\A\w+:[0-9a-f]{32}\Z")),
    type_=st.sampled_from(["Container", "Directory", "Secret", "Nothing", "Syncer"]),
)
def test_any_id(endpoint: Endpoint, identity: str, type_: str) -> None:
    shown = json.dumps(identity.encode("utf-8", "replace").decode())
    answer = endpoint.query(f"{{node(id:{shown}){{... on {type_}{{id}}}}}}")
    assert answer["errors"]
    answer = endpoint.query(f"{{loadContainerFromID(id:{shown}){{stdout}}}}")
    assert answer["errors"]


@pytest.mark.parametrize(
    "query",
    [
        "{" + "container{rootfs{" * 20_000,
        "{" + "a" * 5_000_000 + "}",
        "{" + "version " * 100_000 + "}",
        "{" + " ".join(f"a{i}:version" for i in range(100_000)) + "}",
        "{" + "...{" * 1_500 + "version" + "}" * 1_501,
        "{container" + "@skip(if:true)" * 50_000 + "{id}}",
        "query(" + ",".join(f"$a{i}:Int" for i in range(50_000)) + "){version}",
        "{container{withExec(args:[" + '"a",' * 200_000 + "]){id}}}",
        "{container{withExec(args:" + "[" * 1_500 + "]" * 1_500 + "){id}}}",
        "# " + "x" * 3_000_000 + "\n{version}",
        "{...f0}" + "".join(f"fragment f{i} on Query{{...f{i + 1}}}" for i in range(5_000)),
        "{" + "...on Query{" * 40 + "version" + "}" * 41,
        "{__schema{" + "types{fields{type{" * 30 + "name" + "}}}" * 30 + "}}",
        '{__type(name:"Query"){' + "fields{type{" * 8 + "name" + "}}" * 8 + "}}",
    ],
    ids=lambda query: query[:24],
)
def test_queries_that_are_out_to_hurt(endpoint: Endpoint, query: str) -> None:
    endpoint.query(query)
    endpoint.works()


def test_many_at_once(endpoint: Endpoint) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(5):
                endpoint.works()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_connections_that_say_nothing_or_nonsense(endpoint: Endpoint) -> None:
    held = []
    for data in (b"", b"\x16\x03\x01\x02", b"POST /query HTTP/1.1\r\n", b"A" * 200_000, b"\0" * 99):
        connection = socket.create_connection(("127.0.0.1", endpoint.port), 5)
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            connection.send(data)
        held.append(connection)
    endpoint.works()
    for connection in held:
        connection.close()
    endpoint.works()
