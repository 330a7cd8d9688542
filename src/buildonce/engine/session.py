"""One session of the embedded engine, from the daemon to the last query.

async with open_session(options, on_event=model.engine) as session:
    result = await session.execute(document, None, None, context)
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from typing import Any

import anyio
from anyio.abc import ByteStream
from graphql import DocumentNode, ExecutionResult, GraphQLError

from buildonce.engine import daemons, lowering, troubles
from buildonce.engine.buildkit import Client, Credentials, DaemonInfo
from buildonce.engine.engine import Engine
from buildonce.engine.errors import QueryFailed
from buildonce.engine.events import OnEvent
from buildonce.engine.host_settings import HostSettings
from buildonce.engine.options import EngineOptions
from buildonce.engine.resolve import Resolver
from buildonce.engine.schema import load
from buildonce.engine.secrets import SecretStore
from buildonce.engine.server import QueryContext
from buildonce.engine.steps import Steps
from buildonce.engine.uploads import Uploads
from buildonce.errors import BuildonceError

current: ContextVar[QueryContext | None] = ContextVar("current", default=None)

# Labels of the daemon that say how it works.
SNAPSHOTTER = "org.mobyproject.buildkit.worker.snapshotter"
NETWORK = "org.mobyproject.buildkit.worker.network"


class EngineSession:
    """Answers one session's queries; made by `open_session`."""

    def __init__(self, engine: Engine, resolver: Resolver, daemon: daemons.Found) -> None:
        self.engine = engine
        self._daemon = daemon
        self._resolver = resolver

    async def execute(
        self,
        document: DocumentNode,
        variables: dict[str, Any] | None,
        operation_name: str | None,
        context: QueryContext,
    ) -> ExecutionResult:
        """Answer a parsed query."""
        current.set(context)
        result = await self._resolver.execute(document, variables, operation_name, context)
        for error in result.errors or ():
            cause = error.original_error
            while isinstance(cause, GraphQLError):
                cause = cause.original_error
            if cause is not None and (better := troubles.told(cause, self._daemon)):
                error.original_error = better
        return result


@asynccontextmanager
async def open_session(
    options: EngineOptions, *, on_event: OnEvent
) -> AsyncIterator[EngineSession]:
    """Find or start the daemon and open a session on it.

    Raises:
        BuildonceError: there is no daemon and none could be started; says why.
    """
    async with AsyncExitStack() as stack:
        daemon = await stack.enter_async_context(daemons.find_or_start(options))
        client = await stack.enter_async_context(Client.connect(daemon.address, tls=daemon.tls))
        session = await stack.enter_async_context(client.session())
        steps = Steps(on_event, lambda: getattr(current.get(), "parent_span", None))
        cache = options.remote_cache
        if cache is not None:
            cache.share(session)
        build = await stack.enter_async_context(
            client.build(
                session,
                on_status=steps.update,
                entitlements=["security.insecure"] if daemon.privileged else [],
                cache_exports=cache.exports() if cache else (),
            )
        )
        info = await client.info()
        _note(daemon, info, steps)
        platform = info.platforms[0] if info.platforms else "linux/amd64"
        uploads = Uploads(
            client, options.cache / "digests", platform, stack, portable=cache is not None
        )
        if options.shim is None:
            raise BuildonceError(
                "the engine's shim is missing", remedy="buildonce setup, then try again"
            )
        shim = await uploads.directory(options.shim.parent, include=["shim"], shown="shim")
        engine = Engine(
            client,
            session,
            build,
            options,
            platform=platform,
            secrets=SecretStore(options.cache, options.workdir),
            uploads=uploads,
            shim=shim,
            own_networks=daemon.own_networks or info.labels.get(NETWORK) == "cni",
            network_reason=daemon.network_reason,
            routed=daemon.routed,
            steps=steps,
        )
        session.directories = uploads.find
        session.secrets = _Secrets(engine, options)
        session.sockets = _Sockets(engine)
        session.registry_auth = _Credentials(engine)
        try:
            yield EngineSession(engine, Resolver(engine, load()), daemon)
        finally:
            with anyio.CancelScope(shield=True):
                await engine.close()


def _note(daemon: daemons.Found, info: DaemonInfo, steps: Steps) -> None:
    """Tell what is amiss with the daemon."""
    if daemon.note:
        steps.note(daemon.note)
    if info.labels.get(SNAPSHOTTER) == "native":
        steps.note(
            f"buildkitd at {daemon.address} copies the whole file system for every step (its "
            "snapshotter is native): slow, and it fills the disk. It needs overlayfs, or "
            "fuse-overlayfs with access to /dev/fuse"
        )


class _Secrets:
    """What the daemon may ask for while a command starts."""

    def __init__(self, engine: Engine, options: EngineOptions) -> None:
        self._engine = engine
        self._host = HostSettings(engine)
        self._ca = options.ca.read_bytes() if options.ca else None

    async def __call__(self, identity: str) -> bytes | None:
        if identity == lowering.HOST_SETTINGS_ID:
            return await self._host.document()
        if identity == lowering.HOST_CA_ID:
            return self._ca
        if identity.startswith(lowering.HOSTS_FILE_ID):
            return await self._engine.services.hosts_content(
                identity.removeprefix(lowering.HOSTS_FILE_ID)
            )
        try:
            return await self._engine.secrets.value(identity)
        except QueryFailed:
            return None


class _Sockets:
    """The sockets and ports of this machine that the program of this session has named."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def __call__(self, identity: str) -> ByteStream:
        if identity not in self._engine.services.sockets:
            raise KeyError(identity)
        kind, _, rest = identity.partition(":")
        if kind == "unix":
            return await anyio.connect_unix(rest)
        host, _, port = rest.rpartition(":")
        return await anyio.connect_tcp(host, int(port))


class _Credentials:
    """The credentials that the program has given for registries."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def __call__(self, host: str) -> Credentials | None:
        known = self._engine.credentials.get(host)
        if known is None:
            return None
        username, secret = known
        value = await self._engine.secrets.value(secret.identity)
        return Credentials(username, value.decode())
