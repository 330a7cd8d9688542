"""The user's own OpenTelemetry collector, when the environment names one.

    async with Collector.open(os.environ) as collector:      # None: nothing is configured
        ...

`buildonce run` puts itself in the collector's place for the program it runs, so it hands on what it
gets. A collector that cannot be reached costs one warning and never the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

_SIGNALS = ("traces", "logs", "metrics")
_MOST_WAITING = 1_000
_SEND_TIMEOUT = 10.0
_FLUSH_TIMEOUT = 5.0
_GRPC_METHODS = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}
_log = logging.getLogger("buildonce.engine.collector")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one signal goes.

    Attributes:
        url: for HTTP the whole address of the signal; for gRPC the server's.
    """

    url: str
    protocol: str
    headers: tuple[tuple[str, str], ...]
    certificate: str | None = None
    insecure: bool = False


def endpoints(environ: Mapping[str, str]) -> dict[str, Endpoint]:
    """What OpenTelemetry's variables configure, by signal."""
    found = {}
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return {}
    for signal in _SIGNALS:

        def variable(name: str, signal: str = signal) -> str:
            own = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}", "")
            return own or environ.get(f"OTEL_EXPORTER_OTLP_{name}", "")

        own_url = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "")
        base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
        if not own_url and not base:
            continue
        if environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip() == "none":
            continue
        protocol = variable("PROTOCOL").strip() or _default_protocol(own_url or base)
        url = own_url or (base if protocol == "grpc" else f"{base.rstrip('/')}/v1/{signal}")
        headers = tuple(_headers(variable("HEADERS")))
        insecure = variable("INSECURE").strip().lower() == "true"
        found[signal] = Endpoint(url, protocol, headers, variable("CERTIFICATE") or None, insecure)
    return found


def _default_protocol(url: str) -> str:
    # The specification lets SDKs choose; the port tells what the collector expects.
    return "grpc" if url.rstrip("/").endswith(":4317") else "http/protobuf"


def _headers(text: str) -> list[tuple[str, str]]:
    pairs = (pair.partition("=") for pair in text.split(",") if "=" in pair)
    return [(unquote(name).strip().lower(), unquote(value).strip()) for name, _, value in pairs]


class Collector:
    """Sends export requests on, in order, without making anyone wait."""

    def __init__(self, targets: Mapping[str, Endpoint], warn: Callable[[str], None]) -> None:
        self._targets = targets
        self._warn = warn
        self._waiting: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(_MOST_WAITING)
        self._warned = False
        self._senders: dict[str, Callable[[bytes], Awaitable[None]]] = {}

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, environ: Mapping[str, str], warn: Callable[[str], None]
    ) -> AsyncIterator[Collector | None]:
        """The collector that `environ` names; what waits is sent before the block is left."""
        targets = endpoints(environ)
        if not targets:
            yield None
            return
        collector = cls(targets, warn)
        async with contextlib.AsyncExitStack() as stack:
            task = asyncio.create_task(collector._run(stack))
            try:
                yield collector
            finally:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(collector._waiting.join(), _FLUSH_TIMEOUT)
                task.cancel()
                await asyncio.wait([task])

    @property
    def signals(self) -> list[str]:
        """What it takes."""
        return list(self._targets)

    def wants(self, signal: str) -> bool:
        return signal in self._targets

    def send(self, signal: str, body: bytes) -> None:
        try:
            self._waiting.put_nowait((signal, body))
        except asyncio.QueueFull:
            self._failed(signal, "it is slower than the telemetry of this run")

    async def _run(self, stack: contextlib.AsyncExitStack) -> None:
        while True:
            signal, body = await self._waiting.get()
            try:
                sender = await self._sender(signal, stack)
                await asyncio.wait_for(sender(body), _SEND_TIMEOUT)
            except Exception as error:
                self._failed(signal, f"{type(error).__name__}: {error}")
            finally:
                self._waiting.task_done()

    def _failed(self, signal: str, cause: str) -> None:
        _log.warning("%s to %s: %s", signal, self._targets[signal].url, cause)
        if not self._warned:
            self._warned = True
            first = cause.strip().splitlines()[0][:200]
            self._warn(f"telemetry does not reach {self._targets[signal].url}: {first}")

    async def _sender(
        self, signal: str, stack: contextlib.AsyncExitStack
    ) -> Callable[[bytes], Awaitable[None]]:
        if signal not in self._senders:
            target = self._targets[signal]
            make = _grpc_sender if target.protocol == "grpc" else _http_sender
            self._senders[signal] = await make(target, signal, stack)
        return self._senders[signal]


async def _http_sender(
    target: Endpoint, signal: str, stack: contextlib.AsyncExitStack
) -> Callable[[bytes], Awaitable[None]]:
    import ssl

    import httpx

    verify = ssl.create_default_context(cafile=target.certificate) if target.certificate else True
    client = await stack.enter_async_context(
        httpx.AsyncClient(headers=list(target.headers), verify=verify, timeout=_SEND_TIMEOUT)
    )

    async def send(body: bytes) -> None:
        response = await client.post(
            target.url, content=body, headers={"content-type": "application/x-protobuf"}
        )
        response.raise_for_status()

    return send


async def _grpc_sender(
    target: Endpoint, signal: str, stack: contextlib.AsyncExitStack
) -> Callable[[bytes], Awaitable[None]]:
    from pathlib import Path

    import grpc

    scheme, _, rest = target.url.rpartition("://")
    if scheme == "http" or target.insecure:
        channel = grpc.aio.insecure_channel(rest)
    else:
        roots = Path(target.certificate).read_bytes() if target.certificate else None
        channel = grpc.aio.secure_channel(rest, grpc.ssl_channel_credentials(roots))
    await stack.enter_async_context(channel)
    call = channel.unary_unary(
        _GRPC_METHODS[signal],
        request_serializer=lambda body: body,
        response_deserializer=lambda body: body,
    )

    async def send(body: bytes) -> None:
        await call(body, metadata=target.headers, timeout=_SEND_TIMEOUT)

    return send
