"""The HTTP server of a session: Dagger's GraphQL API, and an OpenTelemetry receiver beside it.

    server = Server(token, execute, telemetry=receiver)
    async with server.serving(listener):
        ...                                                 # POST http://127.0.0.1:PORT/query

It answers on loopback, to whoever has the token, and always in JSON (or protobuf, where
OpenTelemetry has it so). What a query means is decided by `execute`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import json
import logging
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from buildonce.engine.schema.introspection import KeptAnswers
from buildonce.errors import BuildonceError

if TYPE_CHECKING:
    from graphql import DocumentNode, ExecutionResult

MAX_REQUEST = 96 << 20  # bytes; JSON may need several for one of the query's
MAX_TELEMETRY = 16 << 20
_LARGE = 256 << 10  # characters; more is parsed in a thread, and not kept
_DOCUMENTS = 256  # parsed queries that are kept: programs ask for the same again
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-([0-9a-f]{16})-[0-9a-f]{2}")
_log = logging.getLogger("buildonce.engine.server")


@dataclass(frozen=True, slots=True)
class QueryContext:
    """Where a query comes from.

    Attributes:
        traceparent: the W3C header of the request, when it has a well-formed one.
        client_id: tells clients of the session apart.
    """

    traceparent: str | None
    client_id: str

    @property
    def parent_span(self) -> str | None:
        """The span that asked, as 16 hex digits."""
        found = _TRACEPARENT.fullmatch(self.traceparent or "")
        return found[1] if found else None


class Executor(Protocol):
    """What answers a query that is well-formed and within the limits."""

    def __call__(
        self,
        document: DocumentNode,
        variables: dict[str, Any] | None,
        operation_name: str | None,
        context: QueryContext,
        /,
    ) -> Awaitable[ExecutionResult]: ...


class Telemetry(Protocol):
    """What gets the telemetry of the session's clients; see `otlp.py`."""

    def receive(self, signal: str, body: bytes) -> None:
        """Take one export request (`signal` is traces, logs or metrics).

        Raises:
            ValueError: it is not one.
        """


class Server:
    """One session's server.

    Args:
        token: what clients must give as user name (basic authentication).
        execute: answers queries.
        telemetry: gets what clients report; None answers 404.
        introspection: folder for kept answers to introspection; None keeps them in memory.
        log: the file to name in errors that nobody foresaw.
    """

    def __init__(
        self,
        token: str,
        execute: Executor,
        *,
        telemetry: Telemetry | None = None,
        introspection: Path | None = None,
        log: Path | None = None,
    ) -> None:
        self._token = token.encode()
        self._execute = execute
        self._telemetry = telemetry
        self._kept = KeptAnswers(introspection)
        self._log = str(log) if log else "the engine's log"
        self._prepared = False
        self._documents: dict[str, DocumentNode] = {}
        self.app = Starlette(
            routes=[
                Route("/query", self._query, methods=["POST"]),
                Route("/v1/{signal}", self._receive, methods=["POST"]),
            ],
            exception_handlers={404: _plain_error, 405: _plain_error, 500: _plain_error},
        )

    @contextlib.asynccontextmanager
    async def serving(self, listener: socket.socket) -> AsyncIterator[None]:
        """Serve on `listener` inside the block; it is closed afterwards."""
        config = uvicorn.Config(
            self.app,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            ws="none",
            loop="none",
            # A client that finds its kept connection closed fails; sessions end before this does.
            timeout_keep_alive=24 * 3600,
            timeout_graceful_shutdown=2,
        )
        server = _Uvicorn(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield
        finally:
            server.should_exit = True
            await asyncio.shield(asyncio.wait([task], timeout=5))
            listener.close()

    # -- queries ----------------------------------------------------------------------------

    async def _query(self, request: Request) -> Response:
        if not self._authorized(request):
            return _error(401, "unauthorized: the session's token is missing or wrong")
        try:
            body = await _read(request, MAX_REQUEST)
        except ValueError as error:
            return _error(413, str(error))
        except ClientDisconnect:
            return Response(status_code=499)
        try:
            query, variables, operation_name = _question(body)
        except ValueError as error:
            return _error(400, str(error))
        if kept := self._kept.find(query):
            return _json(kept)
        return await self._answer(request, query, variables, operation_name)

    async def _answer(
        self,
        request: Request,
        query: str,
        variables: dict[str, Any] | None,
        operation_name: str | None,
    ) -> Response:
        # GraphQL is not loaded before the first query that needs it.
        from graphql import GraphQLError

        from buildonce.engine import answers, limits

        if not self._prepared:
            limits.prepare()
            self._prepared = True
        try:
            document = await self._parse(query)
            if limits.asks_for_schema(document):
                return _json(await asyncio.to_thread(self._kept.compute, query, variables))
        except (GraphQLError, RecursionError) as error:
            return _json(answers.body(answers.failure(error)))
        context = QueryContext(_traceparent(request), _client_id(request))
        task = asyncio.ensure_future(self._execute(document, variables, operation_name, context))
        gone = asyncio.create_task(_disconnected(request))
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                return Response(status_code=499)  # nobody is there to read it
            return _json(answers.body(answers.response(task.result(), self._log)))
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            return _json(answers.body(answers.failure(BuildonceError("the session is ending"))))
        except Exception as error:
            return _json(answers.body(answers.failure(error, self._log)))
        finally:
            gone.cancel()
            task.cancel()

    async def _parse(self, query: str) -> DocumentNode:
        """The query's document, which is the same object for the same text, lately asked."""
        from buildonce.engine import limits

        if len(query) > _LARGE:
            return await asyncio.to_thread(limits.parse_bounded, query)
        document = self._documents.pop(query, None) or limits.parse_bounded(query)
        self._documents[query] = document
        if len(self._documents) > _DOCUMENTS:
            del self._documents[next(iter(self._documents))]
        return document

    # -- telemetry --------------------------------------------------------------------------

    async def _receive(self, request: Request) -> Response:
        if not self._authorized(request):
            return _error(401, "unauthorized: the session's token is missing or wrong")
        signal = request.path_params["signal"]
        if self._telemetry is None or signal not in ("traces", "logs", "metrics"):
            return _error(404, "there is nothing here")
        try:
            body = await _read(request, MAX_TELEMETRY)
            body = _unzip(body) if request.headers.get("content-encoding") == "gzip" else body
            self._telemetry.receive(signal, body)
        except ClientDisconnect:
            return Response(status_code=499)
        except ValueError as error:
            return _error(400, str(error))
        return Response(b"", media_type="application/x-protobuf")

    def _authorized(self, request: Request) -> bool:
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            user = base64.b64decode(encoded, validate=True).partition(b":")[0]
        except ValueError:
            return False
        return hmac.compare_digest(user, self._token)


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are the business of whoever runs the session


def _question(body: bytes) -> tuple[str, dict[str, Any] | None, str | None]:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the request's body is not JSON") from None
    if not isinstance(message, dict) or not isinstance(message.get("query"), str):
        raise ValueError('the request must be an object such as {"query": "{version}"}')
    variables, operation = message.get("variables"), message.get("operationName")
    if variables is not None and not isinstance(variables, dict):
        raise ValueError("variables must be an object")
    if operation is not None and not isinstance(operation, str):
        raise ValueError("operationName must be a string")
    return message["query"], variables, operation or None  # "": as clients of Go send none


async def _read(request: Request, limit: int) -> bytes:
    too_large = f"the request is larger than {limit >> 20} MiB"
    with contextlib.suppress(ValueError):
        if int(request.headers.get("content-length", "0")) > limit:
            raise _TooLarge(too_large)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise _TooLarge(too_large)
    return bytes(body)


class _TooLarge(ValueError):
    pass


def _unzip(body: bytes) -> bytes:
    import zlib

    unzip = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        content = unzip.decompress(body, MAX_TELEMETRY)
    except zlib.error:
        raise ValueError("the body is not gzip") from None
    if unzip.unconsumed_tail:
        raise ValueError(f"the body unpacks to more than {MAX_TELEMETRY >> 20} MiB")
    return content


async def _disconnected(request: Request) -> None:
    # The body is read: the next thing to hear of this request is that nobody waits any more.
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _traceparent(request: Request) -> str | None:
    header = request.headers.get("traceparent", "")
    return header if _TRACEPARENT.fullmatch(header) else None


def _client_id(request: Request) -> str:
    given = request.headers.get("x-dagger-client-id", "")
    if re.fullmatch(r"[\w.-]{1,64}", given, re.ASCII):
        return given
    return f"port-{request.client.port}" if request.client else "unknown"


async def _plain_error(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    if status == 500:
        _log.error("%s %s", request.method, request.url.path, exc_info=error)
    texts = {404: "there is nothing here", 405: "POST is what this answers to"}
    return _error(status, texts.get(status, "internal error; see the engine's log"))


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status_code=status, media_type="application/json")


def _error(status: int, message: str) -> Response:
    return _json(json.dumps({"errors": [{"message": message}]}).encode(), status)
