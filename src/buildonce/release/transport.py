"""HTTP as registries speak it: plain or TLS by address, logins, patience; every failure has a name.

    async with Transport() as transport:
        answer = await transport.request("GET", "registry.test:5000", "/v2/app/tags/list")

An answer of the 2xx kind is returned, whole. All else is raised (`answers.py`).
"""

from __future__ import annotations

import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

import anyio
import httpx

from buildonce.loopback import is_loopback
from buildonce.release.addresses import address_of, login_name, schemes, url_of
from buildonce.release.answers import SMALL, Answer, bounded, refusal, unreachable
from buildonce.release.credentials import Login, docker_login
from buildonce.release.errors import BrokenOff, RegistryError, RegistryUnreachable
from buildonce.release.tokens import authorization
from buildonce.trust import ssl_context

_AGAIN = {429, 500, 502, 503, 504}
_REDIRECTS = 5

Body = bytes | Callable[[], AsyncIterator[bytes]] | None
Logins = Callable[[str], Awaitable[Login | None]]


@dataclass(frozen=True)
class Patience:
    """How often something is asked, and how long is waited.

    Args:
        attempts: how often, the first time included.
        pause: seconds before the second attempt; doubled each time.
        longest: seconds that are waited at most, also where the registry asks for more.
        silence: seconds without a byte after which an answer no longer comes.
    """

    attempts: int = 4
    pause: float = 0.25
    longest: float = 30.0
    silence: float = 30.0


@dataclass
class _Host:
    """What is known of a registry host while the transport is open."""

    name: str
    scheme: str
    client: httpx.AsyncClient
    tokens: dict[str, str] = field(default_factory=dict)


class Transport:
    """Connections to registries; use it as an asynchronous context manager.

    Args:
        logins: who we are to a host; `docker_login` by default.
        patience: how failures that may pass are waited for.
    """

    def __init__(self, *, logins: Logins = docker_login, patience: Patience | None = None) -> None:
        self._logins = logins
        self._patience = patience or Patience()
        self._hosts: dict[str, _Host] = {}
        self._finding: dict[str, anyio.Lock] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def request(
        self,
        method: str,
        host: str,
        path: str,
        *,
        scope: str = "",
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        limit: int = SMALL,
        what: str = "",
    ) -> Answer:
        """Ask a registry and read its answer.

        Args:
            method: HTTP method.
            host: the registry's host, with the port.
            path: "/v2/…", or a whole address that the registry gave (of an upload).
            scope: what is wanted of the token server: "repository:app:pull".
            headers: of the request.
            body: bytes, or a function that begins a stream of them anew for each attempt.
            limit: bytes that the answer may have at most.
            what: what is asked for, for messages.

        Raises:
            Absent, RegistryRefused, RegistryUnreachable: as they say.
        """
        # A small answer that broke off is worth another try; what was sent may have had effects.
        for last in (method not in ("GET", "HEAD"), True):
            try:
                async with self.stream(
                    method,
                    host,
                    path,
                    scope=scope,
                    headers=headers,
                    body=body,
                    what=what,
                    limit=limit,
                ) as (answer, chunks):
                    data = b"".join([chunk async for chunk in chunks])
                    return Answer(answer.status_code, answer.headers, data, answer.url)
            except BrokenOff:
                if last:
                    raise
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        host: str,
        path: str,
        *,
        limit: int,
        scope: str = "",
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        what: str = "",
    ) -> AsyncIterator[tuple[httpx.Response, AsyncIterator[bytes]]]:
        """As `request`, but the answer's bytes come as they arrive.

        Failures before the first byte are tried again; later ones are the caller's.
        """
        what = what or f"{method} {path.partition('?')[0]}"
        patience = self._patience
        for attempt in range(1, patience.attempts + 1):
            try:
                answer = await self._send(method, host, path, scope, headers or {}, body, what)
            except RegistryUnreachable:
                if attempt == patience.attempts:
                    raise
                await anyio.sleep(_pause(patience, attempt, None))
                continue
            try:
                if answer.status_code < 300:
                    yield answer, bounded(answer, limit, host, what)
                    return
                if answer.status_code not in _AGAIN or attempt == patience.attempts:
                    raise await refusal(answer, host, what)
                wait = _pause(patience, attempt, answer.headers.get("Retry-After"))
            finally:
                await answer.aclose()
            await anyio.sleep(wait)

    async def _send(
        self,
        method: str,
        host: str,
        path: str,
        scope: str,
        headers: Mapping[str, str],
        body: Body,
        what: str,
    ) -> httpx.Response:
        """One attempt, with a login where the registry asks for one, and redirects followed."""
        known = await self._host(host)
        home = httpx.URL(f"{known.scheme}://{address_of(host)}")
        url = url_of(path, host, home)
        _not_downgraded(home, url, host)
        sent = dict(headers)
        ours = _origin(url) == _origin(home)
        if ours and (token := known.tokens.get(scope)):
            sent["Authorization"] = token
        answer = await self._once(known, method, url, sent, body, what)
        if answer.status_code == 401 and ours:
            challenge = answer.headers.get("WWW-Authenticate", "")
            await answer.aclose()
            login = await self._logins(login_name(host))
            known.tokens[scope] = sent["Authorization"] = await authorization(
                known.client, host, challenge, scope, login
            )
            answer = await self._once(known, method, url, sent, body, what)
        for _ in range(_REDIRECTS):
            if answer.status_code not in (301, 302, 303, 307, 308) or method not in ("GET", "HEAD"):
                return answer
            await answer.aclose()
            target = url_of(answer.headers.get("Location", ""), host, answer.url)
            _not_downgraded(answer.url, target, host)
            if _origin(target) != _origin(url):
                sent.pop("Authorization", None)
            answer = await self._once(known, method, target, sent, body, what)
        await answer.aclose()
        raise RegistryError(f"the registry {host} leads in a circle ({what})")

    async def _once(
        self,
        known: _Host,
        method: str,
        url: httpx.URL,
        headers: Mapping[str, str],
        body: Body,
        what: str,
    ) -> httpx.Response:
        content = body() if callable(body) else body
        try:
            request = known.client.build_request(method, url, headers=headers, content=content)
            return await known.client.send(request, stream=True)
        except httpx.HTTPError as error:
            raise unreachable(known.name, what, error) from error

    async def _host(self, host: str) -> _Host:
        async with self._finding.setdefault(host, anyio.Lock()):
            if host not in self._hosts:
                found = schemes(host)
                self._hosts[host] = (
                    self._open(host, found[0])
                    if len(found) == 1
                    else await self._probe(host, found)
                )
            return self._hosts[host]

    async def _probe(self, host: str, candidates: tuple[str, ...]) -> _Host:
        """Which of the candidates the registry at a loopback or private address speaks."""
        for scheme in candidates:
            known = self._open(host, scheme)
            try:
                async with known.client.stream(
                    "GET", f"{scheme}://{address_of(host)}/v2/"
                ) as answer:
                    begin = await anext(answer.aiter_bytes(200), b"")
            except (httpx.ConnectError, httpx.RemoteProtocolError) as error:
                # Nobody listens: asking in another way gives the same.
                if "ssl" not in str(error).lower() and isinstance(error, httpx.ConnectError):
                    break
            except httpx.HTTPError:
                break
            else:
                if not (answer.status_code == 400 and b"HTTPS server" in begin):
                    return known
        # What the first scheme says of itself is told by the request that follows.
        return self._open(host, candidates[0])

    def _open(self, host: str, scheme: str) -> _Host:
        plain = scheme == "http"
        client = httpx.AsyncClient(
            # Without TLS no trust store need be read (30 ms); a proxy has no business on loopback.
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else ssl_context(),
            trust_env=not is_loopback(host),
            timeout=self._patience.silence,
            limits=httpx.Limits(max_connections=16),
            # Digests are of the bytes as they are kept, not of what a proxy made of them.
            headers={"User-Agent": "buildonce", "Accept-Encoding": "identity"},
        )
        self._stack.push_async_callback(client.aclose)
        return _Host(host, scheme, client)


def _pause(patience: Patience, attempt: int, wanted: str | None) -> float:
    if wanted and wanted.isdecimal():
        return min(float(wanted), patience.longest)
    own: float = patience.pause * 2 ** (attempt - 1)
    # Whoever was refused together is not to come back together.
    return min(own * random.uniform(0.5, 1.0), patience.longest)  # noqa: S311


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _not_downgraded(before: httpx.URL, after: httpx.URL, host: str) -> None:
    if before.scheme == "https" and after.scheme != "https":
        raise RegistryError(f"the registry {host} leads from TLS to plain {after.host}")
