"""A session: what this side serves to the daemon while the daemon works for it.

Secrets, sockets, registry credentials and local files never go to the daemon beforehand; it asks
for them when a step needs them. Set the providers that apply, then name the session in a solve::

    async with client.session() as session:
        session.secrets = lookup                    # async (id) -> bytes | None
        session.directories = {"src": DirectorySource(tree)}.get
        ...
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote_plus

import anyio
import grpc.aio

from buildonce.engine.buildkit import content, filesend, filesync
from buildonce.engine.buildkit.calls import CONTROL, Duplex
from buildonce.engine.buildkit.errors import translate
from buildonce.engine.buildkit.filesend import Receiver
from buildonce.engine.buildkit.filesync import DirectorySource
from buildonce.engine.buildkit.http2 import (
    NOT_FOUND,
    UNIMPLEMENTED,
    Call,
    Connection,
    Handler,
    ProtocolError,
    Refused,
)
from buildonce.engine.buildkit.proto import control_pb2, session_pb2

log = logging.getLogger(__name__)

# The name of all directories that the daemon may update from what it got the last time: it looks
# for that by name and hint, so the name must be the same whatever a directory holds.
SOURCE = "source"
MESSAGE = 1 << 20  # bytes of HTTP/2 a message of the daemon's stream carries at most


class SocketConnection(Protocol):
    """One connection to a forwarded socket; anyio's byte streams are such."""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Some bytes; raises anyio.EndOfStream at the end."""
        ...

    async def send(self, item: bytes) -> None: ...

    async def send_eof(self) -> None: ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Credentials:
    """A registry's user name and password; an empty user name makes the secret a token."""

    username: str
    secret: str

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, secret=***)"


async def _no_secret(_id: str) -> bytes | None:
    return None


async def _no_socket(name: str) -> SocketConnection:
    raise KeyError(name)


async def _no_credentials(_host: str) -> Credentials | None:
    return None


def _no_directory(_name: str) -> DirectorySource | None:
    return None


class Session:
    """The providers of one session; each may be set at any time.

    Attributes:
        id: what solves and `local.session` attributes name it by.
        secrets: the value of a secret; None when there is no such secret.
        directories: what `local://NAME` holds; None when nothing of that name is shared. For the
            name `SOURCE` the first exclude pattern is asked for instead.
        sockets: a new connection to a forwarded socket; KeyError when it is unknown.
        registry_auth: credentials for a registry's host; None to be anonymous.
        receivers: for each exporter's number, what takes its files or bytes.
        oci_layouts: folders by the name in `oci.store`, for `oci-layout://` sources.
        content_stores: the same for folders that the daemon may write to, by `local:FOLDER`.
    """

    def __init__(self, session_id: str, *, name: str, shared_key: str) -> None:
        self.id = session_id
        self.name = name
        self.shared_key = shared_key
        self.secrets: Callable[[str], Awaitable[bytes | None]] = _no_secret
        self.directories: Callable[[str], DirectorySource | None] = _no_directory
        self.sockets: Callable[[str], Awaitable[SocketConnection]] = _no_socket
        self.registry_auth: Callable[[str], Awaitable[Credentials | None]] = _no_credentials
        self.receivers: Mapping[int, Receiver] = {}
        self.oci_layouts: Mapping[str, Path] = {}
        self.content_stores: Mapping[str, Path] = {}

    def share(self, other: Session) -> None:
        """Serve what `other` serves, as it is now, receivers excepted."""
        self.secrets = other.secrets
        self.directories = other.directories
        self.sockets = other.sockets
        self.registry_auth = other.registry_auth
        self.oci_layouts = other.oci_layouts
        self.content_stores = other.content_stores

    # -- the services ---------------------------------------------------------------------------

    def handlers(self) -> dict[str, Handler]:
        return {
            "/grpc.health.v1.Health/Check": self._health,
            "/moby.buildkit.secrets.v1.Secrets/GetSecret": self._get_secret,
            "/moby.sshforward.v1.SSH/CheckAgent": self._check_socket,
            "/moby.sshforward.v1.SSH/ForwardAgent": self._forward_socket,
            "/moby.filesync.v1.Auth/Credentials": self._credentials,
            "/moby.filesync.v1.FileSync/DiffCopy": self._send_files,
            "/moby.filesync.v1.FileSend/DiffCopy": self._receive_files,
            "/containerd.services.content.v1.Content/Info": self._content_info,
            "/containerd.services.content.v1.Content/Read": self._content_read,
            "/containerd.services.content.v1.Content/Write": self._content_write,
        }

    async def _health(self, call: Call) -> None:
        await call.request()
        await _answer(call, session_pb2.HealthCheckResponse(status=1))

    async def _get_secret(self, call: Call) -> None:
        request = session_pb2.GetSecretRequest.FromString(await call.request())
        value = await self.secrets(request.ID)
        if value is None:
            raise Refused(NOT_FOUND, f"there is no secret {request.ID!r}")
        await _answer(call, session_pb2.GetSecretResponse(data=value))

    async def _check_socket(self, call: Call) -> None:
        # Whether one is there is only known by connecting, which happens when it is used.
        await call.request()
        await _answer(call, session_pb2.CheckAgentResponse())

    async def _forward_socket(self, call: Call) -> None:
        name = (call.metadata.get("buildkit.ssh.id") or ["default"])[0]
        try:
            stream = await self.sockets(name)
        except KeyError as error:
            raise Refused(NOT_FOUND, f"no socket {name!r} is forwarded") from error
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(_to_socket, call, stream)
                await _from_socket(call, stream)
                group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await stream.aclose()

    async def _credentials(self, call: Call) -> None:
        request = session_pb2.CredentialsRequest.FromString(await call.request())
        found = await self.registry_auth(request.Host) or Credentials("", "")
        await _answer(
            call, session_pb2.CredentialsResponse(Username=found.username, Secret=found.secret)
        )

    async def _send_files(self, call: Call) -> None:
        options = decode_options(call.metadata)
        name = (options.get("dir-name") or [""])[0]
        exclude = options.get("exclude-patterns", [])
        if name == SOURCE and exclude:
            name, *exclude = exclude
        source = self.directories(name)
        if source is None:
            raise Refused(NOT_FOUND, f"no directory is shared as {name!r}")
        selected = source.select(
            include=options.get("include-patterns", ()),
            exclude=exclude,
            follow=options.get("followpaths", ()),
        )
        await filesync.send(call, selected)

    async def _receive_files(self, call: Call) -> None:
        number = int((call.metadata.get("buildkit-attachable-exporter-id") or ["0"])[0])
        receiver = self.receivers.get(number)
        if receiver is None:
            raise Refused(UNIMPLEMENTED, f"this session takes no export number {number}")
        await filesend.receive(call, receiver)

    async def _content_info(self, call: Call) -> None:
        await content.info(call, {**self.oci_layouts, **self.content_stores})

    async def _content_read(self, call: Call) -> None:
        await content.read(call, {**self.oci_layouts, **self.content_stores})

    async def _content_write(self, call: Call) -> None:
        await content.write(call, self.content_stores)


async def _answer(call: Call, message: Any) -> None:
    await call.send([message.SerializeToString()])


async def _to_socket(call: Call, stream: SocketConnection) -> None:
    try:
        while messages := await call.receive():
            for message in messages:
                await stream.send(control_pb2.BytesMessage.FromString(message).data)
        await stream.send_eof()
    except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
        return  # the other direction sees the end too


async def _from_socket(call: Call, stream: SocketConnection) -> None:
    while True:
        try:
            data = await stream.receive(65536)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return
        await call.send([control_pb2.BytesMessage(data=data).SerializeToString()])


def decode_options(metadata: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The request's options; the daemon URL-encodes those that are not ASCII and says so."""
    options: dict[str, list[str]] = {}
    for key, values in metadata.items():
        encoded = metadata.get(f"{key}-encoded", [""])[0] in ("1", "t", "true", "True")
        options[key] = [unquote_plus(v) for v in values] if encoded else list(values)
    return options


@asynccontextmanager
async def serve(
    channel: grpc.aio.Channel,
    address: str,
    session: Session,
) -> AsyncIterator[Session]:
    """Offer `session` to the daemon until the block ends.

    Raises:
        DaemonRefused, DaemonGone: there is no daemon, or it does not take the session.
    """
    handlers = session.handlers()
    metadata: list[tuple[str, str]] = [
        ("x-docker-expose-session-uuid", session.id),
        ("x-docker-expose-session-name", session.name),
        ("x-docker-expose-session-sharedkey", session.shared_key),
        *(("x-docker-expose-session-grpc-method", method) for method in handlers),
    ]
    stream = Duplex(
        channel,
        CONTROL + "Session",
        control_pb2.BytesMessage,
        control_pb2.BytesMessage,
        metadata,
    )
    connection = Connection(handlers, _report)
    started = asyncio.Event()
    failure: list[Exception] = []

    async def incoming() -> None:
        try:
            while (message := await stream.read()) is not None:
                connection.feed(message.data)
                started.set()
        except grpc.aio.AioRpcError as error:
            failure.append(translate(error, address))
        except ProtocolError as error:
            failure.append(error)
        finally:
            started.set()
            connection.close()

    async def outgoing() -> None:
        try:
            while True:
                data = await connection.outgoing()
                for position in range(0, len(data), MESSAGE):
                    part = data[position : position + MESSAGE]
                    await stream.write(control_pb2.BytesMessage(data=part))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # `incoming` knows why

    # Plain tasks, not a task group: they end with this block and never fail, and a group would
    # tie the block to the task that entered it and wrap the errors raised inside it.
    pumps = [asyncio.create_task(incoming()), asyncio.create_task(outgoing())]
    try:
        # The daemon's first bytes say that it has taken the session.
        await started.wait()
        if failure:
            raise failure[0]
        yield session
    finally:
        connection.close()
        with anyio.CancelScope(shield=True), anyio.move_on_after(5):
            await connection.closed()
        stream.cancel()
        for pump in pumps:
            pump.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.gather(*pumps, return_exceptions=True)


def _report(method: str, error: Exception) -> None:
    # To the debug log only: the daemon gets the text and puts it into the step's own error.
    log.debug("serving %s failed", method, exc_info=error)
