"""The client of one BuildKit daemon.

async with Client.connect("unix:///run/buildkit/buildkitd.sock") as client:
    async with client.session() as session, client.build(session) as build:
        result = await build.solve(definition)
        text = await build.read_file(result.ref, "/etc/os-release")
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import anyio
import grpc
import grpc.aio

from buildonce.engine.buildkit import session as sessions
from buildonce.engine.buildkit.attempts import Attempts
from buildonce.engine.buildkit.build import Build, as_inputs
from buildonce.engine.buildkit.calls import CONTROL, Caller
from buildonce.engine.buildkit.errors import DaemonRefused
from buildonce.engine.buildkit.exports import CacheEntry, Export
from buildonce.engine.buildkit.job import Job
from buildonce.engine.buildkit.names import new_id
from buildonce.engine.buildkit.platforms import platform_document, platform_text
from buildonce.engine.buildkit.progress import OnStatus, Progress, last_words
from buildonce.engine.buildkit.proto import control_pb2, ops_pb2
from buildonce.engine.buildkit.session import Session

StatusUpdate = control_pb2.StatusResponse


@dataclass(frozen=True, slots=True)
class TLS:
    """Files to speak TLS with a daemon on tcp://, in PEM."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(
            *(p.read_bytes() if p else None for p in (self.ca, self.key, self.cert))
        )


@dataclass(frozen=True, slots=True)
class Worker:
    """One of the daemon's executors.

    Attributes:
        platforms: such as "linux/amd64", the native one first.
    """

    id: str
    platforms: tuple[str, ...]
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DaemonInfo:
    """Who the daemon is."""

    version: str
    revision: str
    workers: tuple[Worker, ...]

    @property
    def platforms(self) -> tuple[str, ...]:
        return self.workers[0].platforms if self.workers else ()

    @property
    def labels(self) -> Mapping[str, str]:
        return self.workers[0].labels if self.workers else {}


@dataclass(frozen=True, slots=True)
class Usage:
    """One record of the daemon's cache; sizes in bytes, times in nanoseconds since 1970."""

    id: str
    size: int
    in_use: bool
    shared: bool
    kind: str
    description: str
    created: int = 0
    used: int = 0


@dataclass(frozen=True, slots=True)
class Image:
    """One platform's part of an image: its root file system and its configuration (JSON)."""

    platform: str
    definition: ops_pb2.Definition
    config: bytes


class Client:
    """One connection to a daemon; safe for any number of concurrent uses."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    @property
    def address(self) -> str:
        return self._caller.address

    @staticmethod
    @asynccontextmanager
    async def connect(address: str, *, tls: TLS | None = None) -> AsyncIterator[Client]:
        """Connect to `unix:///path` or `tcp://host:port`; nothing is sent before it is needed.

        Raises:
            DaemonRefused: the address is of neither form.
        """
        options: list[tuple[str, int | str]] = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
            # How long a daemon has for its first word, which it may owe while it reads its records;
            # the next attempt comes after the other time, whatever this one is.
            ("grpc.min_reconnect_backoff_ms", 5_000),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.optimization_target", "throughput"),
        ]
        if address.startswith("unix://"):
            target = "unix:" + address.removeprefix("unix://")
            options.append(("grpc.default_authority", "localhost"))
        elif address.startswith("tcp://"):
            target = address.removeprefix("tcp://").rstrip("/")
        else:
            raise DaemonRefused(
                f"{address!r} is not an address of BuildKit",
                remedy="use unix:///path/to/buildkitd.sock or tcp://host:port",
            )
        if tls is not None:
            if tls.server_name:
                options.append(("grpc.ssl_target_name_override", tls.server_name))
            channel = grpc.aio.secure_channel(target, tls.credentials(), options=options)
        else:
            channel = grpc.aio.insecure_channel(target, options=options)
        try:
            yield Client(Caller(channel, address))
        finally:
            with anyio.CancelScope(shield=True):
                await channel.close(None)

    async def info(self) -> DaemonInfo:
        """The daemon's version and workers.

        Raises:
            DaemonRefused: nothing answers.
        """
        answer = await self._caller.call(
            CONTROL + "Info", control_pb2.InfoRequest(), control_pb2.InfoResponse
        )
        workers = await self._caller.call(
            CONTROL + "ListWorkers",
            control_pb2.ListWorkersRequest(),
            control_pb2.ListWorkersResponse,
        )
        return DaemonInfo(
            version=answer.buildkitVersion.version,
            revision=answer.buildkitVersion.revision,
            workers=tuple(
                Worker(w.ID, tuple(platform_text(p) for p in w.platforms), dict(w.Labels))
                for w in workers.record
            ),
        )

    @asynccontextmanager
    async def session(
        self,
        *,
        id: str | None = None,
        name: str = "buildonce",
        shared_key: str = "",
    ) -> AsyncIterator[Session]:
        """Serve a session until the block ends; set its providers on what is returned.

        Args:
            id: chosen by the caller, such as a digest of what the session holds; else random. Keep
                such a session open: the daemon forgets an id when any session of that id ends,
                which may be shortly after a new one has begun.
            shared_key: part of the key under which the daemon keeps local directories to update.
        """
        session = Session(id or new_id(), name=name, shared_key=shared_key)
        async with sessions.serve(self._caller.channel, self.address, session):
            yield session

    def build(
        self,
        session: Session,
        *,
        on_status: OnStatus | None = None,
        entitlements: Iterable[str] = (),
        cache_exports: Iterable[CacheEntry] = (),
    ) -> AbstractAsyncContextManager[Build]:
        """A long-lived build: many solves that share their results until it is closed.

        Args:
            on_status: called with the daemon's progress: vertices, logs, transfers.
            entitlements: what steps may ask for: "security.insecure", "network.host".
            cache_exports: where the cache of what `Build.finish` is given goes.
        """
        request = control_pb2.SolveRequest(
            Ref=new_id(),
            Session=session.id,
            Cache=control_pb2.CacheOptions(Exports=[c.message() for c in cache_exports]),
            Internal=True,
            Entitlements=entitlements,
        )
        return self._build(request, Progress(on_status))

    @asynccontextmanager
    async def _build(
        self, request: control_pb2.SolveRequest, progress: Progress
    ) -> AsyncIterator[Build]:
        def another() -> Job:
            again = control_pb2.SolveRequest(
                Ref=new_id(),
                Session=request.Session,
                Internal=True,
                Entitlements=request.Entitlements,
            )
            return Job(self._caller, again, progress)

        build = Build(Job(self._caller, request, progress), Attempts(another, progress))
        try:
            await build.opened()
            yield build
        finally:
            with anyio.CancelScope(shield=True):
                await build.closed()

    async def solve(
        self,
        definition: ops_pb2.Definition | None,
        session: Session,
        *,
        exports: Sequence[Export] = (),
        frontend: str = "",
        frontend_attrs: Mapping[str, str] | None = None,
        frontend_inputs: Mapping[str, ops_pb2.Definition] | None = None,
        cache_imports: Iterable[CacheEntry] = (),
        cache_exports: Iterable[CacheEntry] = (),
        entitlements: Iterable[str] = (),
        on_status: OnStatus | None = None,
        internal: bool = True,
    ) -> dict[str, str]:
        """Solve and export; the answer is what the exporters say, such as the pushed digest.

        Exporters that send to us get a session of their own that serves what `session` serves, so
        that any number of solves may run at once.

        Raises:
            SolveError: a step or an exporter failed.
        """
        async with self._serving(session, exports) as (served, bare):
            request = control_pb2.SolveRequest(
                Ref=new_id(),
                Definition=definition,
                Session=served.id,
                Frontend=frontend,
                FrontendAttrs=frontend_attrs,
                FrontendInputs=as_inputs(frontend_inputs),
                Cache=control_pb2.CacheOptions(
                    Imports=[c.message() for c in cache_imports],
                    Exports=[c.message() for c in cache_exports],
                ),
                Entitlements=entitlements,
                Internal=internal,
                Exporters=[e.message() for e in bare],
            )
            status = Progress(on_status).follow(self._caller, request.Ref)
            try:
                answer = await self._caller.call(
                    CONTROL + "Solve", request, control_pb2.SolveResponse, definition=definition
                )
                return dict(answer.ExporterResponse)
            finally:
                with anyio.CancelScope(shield=True):
                    await last_words(status)

    async def export_index(
        self,
        images: Sequence[Image],
        session: Session,
        export: Export,
        *,
        on_status: OnStatus | None = None,
    ) -> dict[str, str]:
        """Export images of several platforms as one; the answer is as of `solve`.

        Raises:
            SolveError: a step or the exporter failed.
        """
        async with self._serving(session, [export]) as (served, bare):
            request = control_pb2.SolveRequest(
                Ref=new_id(),
                Session=served.id,
                Internal=True,
                Exporters=[e.message() for e in bare],
            )
            async with self._build(request, Progress(on_status)) as build:
                refs = {i.platform: (await build.solve(i.definition)).ref for i in images}
                platforms = {
                    "Platforms": [
                        {"ID": i.platform, "Platform": platform_document(i.platform)}
                        for i in images
                    ]
                }
                metadata = {"refs.platforms": json.dumps(platforms).encode()}
                for image in images:
                    metadata[f"containerimage.config/{image.platform}"] = image.config
                return await build.finish(refs, metadata)

    @asynccontextmanager
    async def _serving(
        self, session: Session, exports: Sequence[Export]
    ) -> AsyncIterator[tuple[Session, list[Export]]]:
        """A session for exporters that send to us, which serves what `session` serves too."""
        if all(export.receiver is None for export in exports):
            yield session, list(exports)
            return
        async with self.session(name=session.name, shared_key=session.shared_key) as own:
            own.share(session)
            own.receivers = {
                number: export.receiver
                for number, export in enumerate(exports)
                if export.receiver is not None
            }
            yield own, [Export(e.type, e.attrs) for e in exports]

    async def disk_usage(self) -> list[Usage]:
        """What the daemon's cache holds."""
        answer = await self._caller.call(
            CONTROL + "DiskUsage", control_pb2.DiskUsageRequest(), control_pb2.DiskUsageResponse
        )
        return [_usage(record) for record in answer.record]

    async def prune(
        self,
        *,
        all: bool = False,
        older_than: timedelta | None = None,
        keep_bytes: int = 0,
        filters: Sequence[str] = (),
    ) -> AsyncIterator[Usage]:
        """Delete what nothing uses from the daemon's cache, and tell of each when it is gone.

        Args:
            all: internal and shared records too.
            older_than: keep what was used more recently.
            keep_bytes: stop when no more than this is left.
        """
        request = control_pb2.PruneRequest(
            filter=filters,
            all=all,
            keepDuration=int(older_than.total_seconds() * 1e9) if older_than else 0,
            maxUsedSpace=keep_bytes,
        )
        deleted = self._caller.stream(CONTROL + "Prune", request, control_pb2.UsageRecord)
        async for record in deleted:
            yield _usage(record)


def _usage(record: control_pb2.UsageRecord) -> Usage:
    return Usage(
        record.ID,
        record.Size,
        record.InUse,
        record.Shared,
        record.RecordType,
        record.Description,
        record.CreatedAt.ToNanoseconds(),
        record.LastUsedAt.ToNanoseconds(),
    )
