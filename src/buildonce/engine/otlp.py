"""The session as an OpenTelemetry collector for the program it serves.

    environment |= child_environment(port, token, traceparent=new_traceparent(os.environ))
    receiver = Receiver(model.apply, collector)        # server.py feeds it

`dagger-io` sets itself up from these variables when it connects: the spans that the program's
stages open reach the session as they start, and again when they end. When the user's environment
names a collector already, it gets everything too, through `collector.py`.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from buildonce.engine.events import Event, SpanEvent, SpanLogEvent

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

SIGNALS = ("traces", "logs", "metrics")
_ERROR = 2  # Status.StatusCode.STATUS_CODE_ERROR


class Forward(Protocol):
    """What else gets the telemetry: the user's own collector."""

    def wants(self, signal: str) -> bool:
        """Whether it takes `traces`, `logs` or `metrics`."""

    def send(self, signal: str, body: bytes) -> None:
        """Take an export request, to be sent later."""


class Receiver:
    """Takes export requests of the session's clients.

    Args:
        on_event: gets spans and log records, for the progress view.
        forward: gets the requests too.
    """

    def __init__(self, on_event: Callable[[Event], None], forward: Forward | None = None) -> None:
        self._on_event = on_event
        self._forward = forward
        self._ended: set[bytes] = set()

    def receive(self, signal: str, body: bytes) -> None:
        """Take one request.

        Raises:
            ValueError: it is not what OpenTelemetry's protocol says.
        """
        from google.protobuf.message import DecodeError

        try:
            match signal:
                case "traces":
                    body = self._traces(body)
                case "logs":
                    self._logs(body)
        except DecodeError:
            raise ValueError(f"the body is no OTLP request for {signal}") from None
        if body and self._forward and self._forward.wants(signal):
            self._forward.send(signal, body)

    def _traces(self, body: bytes) -> bytes:
        """Tell of the spans; what remains is the request with the spans that ended just now."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )

        request = ExportTraceServiceRequest.FromString(body)
        remaining = 0
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                ended = []
                for span in scope.spans:
                    self._on_event(span_event(span))
                    # A live client sends a span twice; collectors expect it once, at its end.
                    if span.end_time_unix_nano and span.span_id not in self._ended:
                        self._ended.add(span.span_id)
                        ended.append(span)
                del scope.spans[:]
                scope.spans.extend(ended)
                remaining += len(ended)
        return request.SerializeToString() if remaining else b""

    def _logs(self, body: bytes) -> None:
        from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

        request = ExportLogsServiceRequest.FromString(body)
        for resource in request.resource_logs:
            for scope in resource.scope_logs:
                for record in scope.log_records:
                    if record.span_id:
                        text = _text(record.body)
                        self._on_event(SpanLogEvent(record.span_id.hex(), text))


def span_event(span: Span) -> SpanEvent:
    """A span of OTLP as the progress view has it."""
    failed = span.status.code == _ERROR
    return SpanEvent(
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex() or None,
        name=span.name,
        started=span.start_time_unix_nano / 1e9,
        completed=span.end_time_unix_nano / 1e9 if span.end_time_unix_nano else None,
        error=span.status.message if failed else None,
    )


def _text(value: AnyValue) -> str:
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case None:
            return ""
        case kind:
            return str(getattr(value, kind)).strip()


def new_traceparent(environ: Mapping[str, str]) -> tuple[str, str | None]:
    """A W3C `traceparent` for a new root span, and the span above it if the environment has one.

    A trace that is under way (TRACEPARENT, as CI plugins set it) is continued.
    """
    given = environ.get("TRACEPARENT", "").split("-")
    own = secrets.token_hex(8)
    if len(given) == 4 and [len(part) for part in given] == [2, 32, 16, 2]:
        return f"00-{given[1]}-{own}-{given[3]}", given[2]
    return f"00-{secrets.token_hex(16)}-{own}-01", None


def child_environment(
    port: int, token: str, traceparent: str, environ: Mapping[str, str], forwarded: Iterable[str]
) -> dict[str, str]:
    """The variables that make a program report to the session.

    Args:
        environ: what the program would have got; its choices (OTEL_SDK_DISABLED,
            OTEL_TRACES_EXPORTER=none, …) stand.
        forwarded: the signals that the user's own collector wants. Logs and metrics are only
            asked for when it does: the view needs none, and gathering them costs time.
    """
    credentials = base64.b64encode(f"{token}:".encode()).decode()
    endpoint = f"http://127.0.0.1:{port}"
    headers = f"authorization=Basic%20{credentials.replace('=', '%3D')}"
    variables = {
        "TRACEPARENT": traceparent,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_HEADERS": headers,
        "OTEL_EXPORTER_OTLP_TRACES_LIVE": "1",
    }
    for signal in SIGNALS:
        prefix = f"OTEL_EXPORTER_OTLP_{signal.upper()}_"
        variables[f"{prefix}ENDPOINT"] = f"{endpoint}/v1/{signal}"
        variables[f"{prefix}PROTOCOL"] = "http/protobuf"
        variables[f"{prefix}HEADERS"] = headers
        exporter = f"OTEL_{signal.upper()}_EXPORTER"
        wanted = signal == "traces" or signal in forwarded
        variables[exporter] = environ.get(exporter, "otlp") if wanted else "none"
    for name in ("NO_PROXY", "no_proxy"):
        if any(key.lower().endswith("_proxy") for key in environ):
            variables[name] = ",".join(filter(None, [environ.get(name, ""), "127.0.0.1"]))
    return variables
