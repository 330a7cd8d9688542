"""Telemetry of the program: shown as it happens, handed on to the user's own collector."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import uvicorn
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from buildonce.engine import otlp
from buildonce.engine.collector import Collector, endpoints
from buildonce.engine.events import Event, SpanEvent, SpanLogEvent
from buildonce.engine.host import listen

ID, PARENT = bytes.fromhex("00f067aa0ba902b7"), bytes.fromhex("00f067aa0ba902b8")


def traces(*spans: Span) -> bytes:
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.extend(spans)
    return request.SerializeToString()


def names(body: bytes) -> list[str]:
    request = ExportTraceServiceRequest.FromString(body)
    return [
        span.name
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


class Forward:
    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []

    def wants(self, signal: str) -> bool:
        return signal != "metrics"

    def send(self, signal: str, body: bytes) -> None:
        self.sent.append((signal, body))


def test_a_live_span_is_told_twice_and_handed_on_once() -> None:
    told: list[Event] = []
    forward = Forward()
    receiver = otlp.Receiver(told.append, forward)
    live = Span(span_id=ID, parent_span_id=PARENT, name="lint", start_time_unix_nano=10**9)
    receiver.receive("traces", traces(live))
    assert forward.sent == []
    ended = Span()
    ended.CopyFrom(live)
    ended.end_time_unix_nano = 3 * 10**9
    ended.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message="3 problems"))
    receiver.receive("traces", traces(ended))
    receiver.receive("traces", traces(ended))
    assert told[:2] == [
        SpanEvent(ID.hex(), PARENT.hex(), "lint", 1.0),
        SpanEvent(ID.hex(), PARENT.hex(), "lint", 1.0, 3.0, "3 problems"),
    ]
    assert [names(body) for _, body in forward.sent] == [["lint"]]


def test_log_records_belong_to_their_spans() -> None:
    told: list[Event] = []
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    records.add(span_id=ID).body.string_value = "careful"
    records.add().body.string_value = "of no span"
    records.add(span_id=ID).body.int_value = 7
    otlp.Receiver(told.append).receive("logs", request.SerializeToString())
    assert told == [SpanLogEvent(ID.hex(), "careful"), SpanLogEvent(ID.hex(), "7")]


@pytest.mark.parametrize("signal", ["traces", "logs"])
def test_what_is_no_request_is_said_to_be_none(signal: str) -> None:
    with pytest.raises(ValueError, match=signal):
        otlp.Receiver(lambda event: None).receive(signal, b"\xff\xff\xff")


def test_the_program_reports_to_the_session() -> None:
    environment = otlp.child_environment(8080, "tok", "00-a-b-01", {}, ())
    endpoint = "http://127.0.0.1:8080/v1/traces"
    assert environment["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] == endpoint
    assert environment["OTEL_TRACES_EXPORTER"] == "otlp"
    assert environment["OTEL_METRICS_EXPORTER"] == environment["OTEL_LOGS_EXPORTER"] == "none"
    from opentelemetry.util.re import parse_env_headers

    headers = parse_env_headers(environment["OTEL_EXPORTER_OTLP_HEADERS"])
    credentials = headers["authorization"].removeprefix("Basic ")
    assert base64.b64decode(credentials) == b"tok:"


def test_the_users_choices_stand() -> None:
    environ = {
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "otlp",
        "HTTPS_PROXY": "http://proxy",
        "no_proxy": "example.org",
    }
    environment = otlp.child_environment(1, "tok", "00-a-b-01", environ, ["metrics"])
    assert environment["OTEL_TRACES_EXPORTER"] == "none"
    assert environment["OTEL_METRICS_EXPORTER"] == "otlp"
    assert environment["NO_PROXY"] == "127.0.0.1"
    assert environment["no_proxy"] == "example.org,127.0.0.1"


def test_a_trace_that_is_under_way_is_continued() -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    given = f"00-{trace}-00f067aa0ba902b7-01"
    traceparent, above = otlp.new_traceparent({"TRACEPARENT": given})
    assert traceparent.startswith(f"00-{trace}-")
    assert above == "00f067aa0ba902b7"
    assert otlp.new_traceparent({"TRACEPARENT": "nonsense"})[1] is None


def test_where_telemetry_goes_is_read_as_opentelemetry_says() -> None:
    assert endpoints({}) == {}
    assert endpoints({"OTEL_EXPORTER_OTLP_ENDPOINT": "x", "OTEL_SDK_DISABLED": "true"}) == {}
    found = endpoints(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/",
            "OTEL_EXPORTER_OTLP_HEADERS": "api-key=a%20b,x=1",
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "https://logs/take",
            "OTEL_EXPORTER_OTLP_LOGS_HEADERS": "other=1",
            "OTEL_METRICS_EXPORTER": "none",
        }
    )
    assert found["traces"].url == "http://collector:4318/v1/traces"
    assert found["traces"].headers == (("api-key", "a b"), ("x", "1"))
    assert found["logs"].url == "https://logs/take"
    assert found["logs"].headers == (("other", "1"),)
    assert "metrics" not in found
    by_grpc = endpoints({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"})["traces"]
    assert (by_grpc.url, by_grpc.protocol) == ("http://collector:4317", "grpc")


@asynccontextmanager
async def http_collector(received: list[Any]) -> AsyncIterator[str]:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def take(request: Request) -> Response:
        received.append((request.headers["api-key"], await request.body()))
        return Response()

    app = Starlette(routes=[Route("/v1/traces", take, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    listener = listen()
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def grpc_collector(received: list[Any]) -> AsyncIterator[str]:
    async def take(body: bytes, context: Any) -> bytes:
        received.append((dict(context.invocation_metadata())["api-key"], body))
        return b""

    server = grpc.aio.server()
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    handler = grpc.unary_unary_rpc_method_handler(take)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, {"Export": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await server.stop(None)


@pytest.mark.parametrize(
    ("start", "protocol"), [(http_collector, "http/protobuf"), (grpc_collector, "grpc")]
)
def test_the_users_collector_gets_the_spans(start: Any, protocol: str) -> None:
    received: list[Any] = []
    warnings: list[str] = []

    async def run() -> None:
        async with start(received) as url:
            environ = {
                "OTEL_EXPORTER_OTLP_ENDPOINT": url,
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                "OTEL_EXPORTER_OTLP_HEADERS": "api-key=secret",
            }
            async with Collector.open(environ, warnings.append) as collector:
                assert collector
                span = Span(span_id=ID, name="lint", end_time_unix_nano=1)
                collector.send("traces", traces(span))

    asyncio.run(run())
    assert [(key, names(body)) for key, body in received] == [("secret", ["lint"])]
    assert warnings == []


def test_a_collector_that_is_not_there_is_one_warning() -> None:
    warnings: list[str] = []

    async def run() -> None:
        listener = listen()
        port = listener.getsockname()[1]
        listener.close()
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
        async with Collector.open(environ, warnings.append) as collector:
            assert collector
            for _ in range(3):
                collector.send("traces", b"")

    asyncio.run(run())
    assert len(warnings) == 1
    assert "telemetry does not reach http://127.0.0.1:" in warnings[0]
