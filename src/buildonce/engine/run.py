"""`buildonce run CMD…`: serves the embedded engine to a program, as `dagger run` serves Dagger's.

settings = Settings(progress="auto", cache=places.cache(), log=…)
sys.exit(asyncio.run(run(["python", "ci/main.py"], open_engine, settings)))
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from buildonce.engine import otlp
from buildonce.engine.child import Child
from buildonce.engine.collector import Collector
from buildonce.engine.host import Host, OpenEngine, logging_to
from buildonce.engine.progress.model import Model, summary
from buildonce.engine.progress.show import Display, Mode, open_display
from buildonce.errors import BuildonceError

# Programs that end sooner than this have not asked for anything; the engine is spared the start.
_HEAD_START = 0.02  # seconds


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run.

    Attributes:
        progress: which view.
        introspection: folder for kept answers.
        log: file for what users need not see.
        environ: the environment that the program gets, ours added.
    """

    progress: Mode
    introspection: Path
    log: Path
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


def joins_session(environ: Mapping[str, str]) -> bool:
    """Whether a session is there already, so that a command can simply be run in it."""
    return bool(environ.get("DAGGER_SESSION_PORT") and environ.get("DAGGER_SESSION_TOKEN"))


async def run(command: Sequence[str], open_engine: OpenEngine, settings: Settings) -> int:
    """Run `command` with a session; returns its exit status.

    Raises:
        CommandNotStarted: there is no such command.
    """
    started = time.time()
    traceparent, above = otlp.new_traceparent(settings.environ)
    model = Model(root=traceparent.split("-")[2])
    display = open_display(settings.progress, model, environ=settings.environ)

    def failed(error: Exception) -> None:
        if isinstance(error, BuildonceError):
            display.note(f"the engine did not start: {error}")
        else:
            display.note(f"the engine did not start ({type(error).__name__}); see {settings.log}")

    with logging_to(settings.log):
        async with AsyncExitStack() as stack:
            collector = await stack.enter_async_context(
                Collector.open(settings.environ, display.note)
            )
            host = Host(
                open_engine,
                display.telling(model),
                introspection=settings.introspection,
                log=settings.log,
                on_failure=failed,
            )
            stack.callback(host.close)
            environment = {
                **settings.environ,
                **otlp.child_environment(
                    host.port,
                    host.token,
                    traceparent,
                    settings.environ,
                    collector.signals if collector else (),
                ),
                **host.environment(),
            }
            child = await Child.start(
                command, environment, display.output if display.takes_output else None
            )
            with child.signals():
                status = await _attend(child, host, otlp.Receiver(model.apply, collector), display)
            if collector:
                collector.send("traces", _root_span(command, traceparent, above, started, status))
        display.finish(summary(model, time.time() - started))
    return status


async def _attend(child: Child, host: Host, receiver: otlp.Receiver, display: Display) -> int:
    """Serve until the child ends."""
    ended = asyncio.create_task(child.wait())
    try:
        await asyncio.wait([ended], timeout=_HEAD_START)
        if not ended.done():
            async with display.showing(), host.serving(receiver):
                await asyncio.shield(ended)
        return await ended
    finally:
        if not ended.done():
            child.kill()
            await asyncio.wait([ended], timeout=5)


def _root_span(
    command: Sequence[str], traceparent: str, above: str | None, started: float, status: int
) -> bytes:
    """The span of the run itself, for the user's collector."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Status

    _, trace, own, _ = traceparent.split("-")
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.append(
        KeyValue(key="service.name", value=AnyValue(string_value="buildonce"))
    )
    span = resource.scope_spans.add().spans.add(
        trace_id=bytes.fromhex(trace),
        span_id=bytes.fromhex(own),
        parent_span_id=bytes.fromhex(above or ""),
        name=f"buildonce run {Path(command[0]).name}",
        start_time_unix_nano=int(started * 1e9),
        end_time_unix_nano=time.time_ns(),
    )
    if status:
        span.status.code = Status.STATUS_CODE_ERROR
        span.status.message = f"exit status {status}"
    return request.SerializeToString()
