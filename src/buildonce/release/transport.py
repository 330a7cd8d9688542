"""HTTP as registries speak it: plain or TLS by address, logins, patience; every failure has a name.

    async with Transport() as transport:
        answer = await transport.request("GET", "registry.test:5000", "/v2/app/tags/list")

An answer of the 2xx kind is returned, whole. All else is raised: `Absent` only for a 404 that the
registry explains with a code of its own, so that a proxy's page or a wrong address is never taken
for "there is none".
"""

from __future__ import annotations

import ipaddress
import json
import random
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import anyio
import httpx

from buildonce.release.credentials import Login, docker_login
from buildonce.release.errors import (
    Absent,
    BrokenOff,
    RegistryError,
    RegistryRefused,
    RegistryUnreachable,
)

_ABSENT = {"MANIFEST_UNKNOWN", "NAME_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_BLOB_UNKNOWN", "NOT_FOUND"}
_AGAIN = {429, 500, 502, 503, 504}
_SMALL = 1 << 20  # bytes of an error or a token: what is longer is not read
_REDIRECTS = 5
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')

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


@dataclass(frozen=True)
class Answer:
    """A whole answer of the 2xx kind."""

    status: int
    headers: httpx.Headers
    body: bytes
    url: httpx.URL


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
        limit: int = _SMALL,
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
                    yield answer, _bounded(answer, limit, host, what)
                    return
                if answer.status_code not in _AGAIN or attempt == patience.attempts:
                    raise await _refusal(answer, host, what)
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
        url = httpx.URL(f"{known.scheme}://{_address(host)}").join(path)
        sent = dict(headers)
        ours = (url.host, url.port) == (httpx.URL(f"x://{_address(host)}").host, _port(url, host))
        if ours and (token := known.tokens.get(scope)):
            sent["Authorization"] = token
        answer = await self._once(known, method, url, sent, body, what)
        if answer.status_code == 401 and ours:
            challenge = answer.headers.get("WWW-Authenticate", "")
            await answer.aclose()
            known.tokens[scope] = sent["Authorization"] = await self._token(known, challenge, scope)
            answer = await self._once(known, method, url, sent, body, what)
        for _ in range(_REDIRECTS):
            if answer.status_code not in (301, 302, 303, 307, 308) or method not in ("GET", "HEAD"):
                return answer
            target = answer.url.join(answer.headers.get("Location", ""))
            await answer.aclose()
            if answer.url.scheme == "https" and target.scheme != "https":
                raise RegistryError(f"the registry {host} leads from TLS to plain {target.host}")
            if (target.scheme, target.host, target.port) != (url.scheme, url.host, url.port):
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
        troubles: list[Exception] = []
        for scheme in candidates:
            known = self._open(host, scheme)
            try:
                answer = await known.client.get(f"{scheme}://{_address(host)}/v2/")
            except (httpx.ConnectError, httpx.RemoteProtocolError) as error:
                troubles.append(error)
                # Nobody listens: asking in another way gives the same.
                if "ssl" not in str(error).lower() and isinstance(error, httpx.ConnectError):
                    break
            except httpx.HTTPError as error:
                troubles.append(error)
                break
            else:
                if not (answer.status_code == 400 and b"HTTPS server" in answer.content[:200]):
                    return known
        # What the first scheme says of itself is told by the request that follows.
        return self._open(host, candidates[0])

    def _open(self, host: str, scheme: str) -> _Host:
        plain = scheme == "http"
        client = httpx.AsyncClient(
            # Without TLS no trust store need be read (30 ms); a proxy has no business on loopback.
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else ssl_context(),
            trust_env=not _is_loopback(host),
            timeout=self._patience.silence,
            limits=httpx.Limits(max_connections=16),
            # Digests are of the bytes as they are kept, not of what a proxy made of them.
            headers={"User-Agent": "buildonce", "Accept-Encoding": "identity"},
        )
        self._stack.push_async_callback(client.aclose)
        return _Host(host, scheme, client)

    async def _token(self, known: _Host, challenge: str, scope: str) -> str:
        """The Authorization header that a challenge (RFC 7235) asks for.

        https://distribution.github.io/distribution/spec/auth/token/
        """
        kind, _, rest = challenge.partition(" ")
        login = await self._logins(_login_name(known.name))
        if kind.lower() == "basic":
            if login is None or not login.user:
                raise _login_wanted(known.name)
            return _basic(login)
        values = dict(_CHALLENGE.findall(rest))
        if kind.lower() != "bearer" or "realm" not in values:
            raise _login_wanted(known.name)
        realm = httpx.URL(values["realm"])
        if realm.scheme != "https" and "http" not in schemes(realm.netloc.decode()):
            raise RegistryError(
                f"the registry {known.name} wants its password sent without TLS to {realm.host}"
            )
        query = {"service": values.get("service", ""), "scope": scope or values.get("scope", "")}
        query = {key: value for key, value in query.items() if value}
        try:
            if login and login.identity_token:
                answer = await known.client.post(
                    realm,
                    data={
                        **query,
                        "client_id": "buildonce",
                        "grant_type": "refresh_token",
                        "refresh_token": login.identity_token,
                    },
                )
            else:
                headers = {"Authorization": _basic(login)} if login else {}
                answer = await known.client.get(realm.copy_merge_params(query), headers=headers)
        except httpx.HTTPError as error:
            raise unreachable(known.name, "asking for a token", error) from error
        if answer.status_code in (400, 401, 403):
            raise _login_wanted(known.name)
        token: object = None
        if answer.status_code == 200 and len(answer.content) <= _SMALL:
            content = _json(answer.content)
            token = content.get("token") or content.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise RegistryUnreachable(
                f"the token server of {known.name} gave no token: HTTP {answer.status_code}"
            )
        return f"Bearer {token}"


def ssl_context() -> ssl.SSLContext:
    """The machine's trust store; SSL_CERT_FILE and SSL_CERT_DIR are honoured."""
    return httpx.create_ssl_context()


def unreachable(host: str, what: str, error: Exception) -> RegistryUnreachable:
    """No whole answer came: why, in words."""
    match error:
        case httpx.TimeoutException():
            why = "does not answer in time"
        case httpx.ConnectError():
            why = f"cannot be reached: {error}"
        case httpx.RemoteProtocolError() | httpx.ReadError():
            why = "broke off its answer"
        case _:
            why = f"does not answer: {str(error) or type(error).__name__}"
    remedy = "buildonce registry up" if _is_loopback(host) else None
    return RegistryUnreachable(f"the registry {host} {why} ({what})", remedy=remedy)


async def _bounded(
    answer: httpx.Response, limit: int, host: str, what: str
) -> AsyncIterator[bytes]:
    size = 0
    try:
        async for chunk in answer.aiter_bytes():
            size += len(chunk)
            if size > limit:
                raise RegistryError(
                    f"the registry {host} answers with more than the {limit} bytes awaited ({what})"
                )
            yield chunk
    except httpx.HTTPError as error:
        raise BrokenOff(f"the registry {host} broke off its answer ({what})") from error


async def _refusal(answer: httpx.Response, host: str, what: str) -> RegistryError:
    data = b""
    try:
        async for chunk in answer.aiter_bytes():
            data += chunk
            if len(data) > _SMALL:
                break
    except httpx.HTTPError as error:
        return unreachable(host, what, error)
    status = answer.status_code
    errors = _json(data).get("errors")
    first = errors[0] if isinstance(errors, list) and errors else {}
    code = str(first.get("code", "")) if isinstance(first, dict) else ""
    told = str(first.get("message", "")) if isinstance(first, dict) else ""
    if status == 404 and code in _ABSENT:
        return Absent(f"the registry {host} has none such: {what}")
    if status in (401, 403):
        return RegistryRefused(
            f"the registry {host} does not allow it ({what}): HTTP {status}",
            status=status,
            remedy=f"docker login {host}, as a user who may do this",
        )
    why = f"{code} {told}".strip()[:200] or "without a registry's error: is it one?"
    return RegistryRefused(
        f"the registry {host} answers HTTP {status} ({what}): {why}", status=status
    )


def _json(data: bytes) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _pause(patience: Patience, attempt: int, wanted: str | None) -> float:
    if wanted and wanted.isdecimal():
        return min(float(wanted), patience.longest)
    own: float = patience.pause * 2 ** (attempt - 1)
    # Whoever was refused together is not to come back together.
    return min(own * random.uniform(0.5, 1.0), patience.longest)  # noqa: S311


def _basic(login: Login) -> str:
    return str(httpx.BasicAuth(login.user, login.password)._auth_header)


def _login_wanted(host: str) -> RegistryRefused:
    return RegistryRefused(
        f"the registry {host} wants a login, or does not accept ours",
        status=401,
        remedy=f"docker login {host}",
    )


def _address(host: str) -> str:
    return "registry-1.docker.io" if host == "docker.io" else host


def _login_name(host: str) -> str:
    return "docker.io" if host == "registry-1.docker.io" else host


def _port(url: httpx.URL, host: str) -> int | None:
    return httpx.URL(f"{url.scheme}://{_address(host)}").port


def _bare(host: str) -> str:
    return httpx.URL(f"http://{host}").host


def _is_loopback(host: str) -> bool:
    name = _bare(host)
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def schemes(host: str) -> tuple[str, ...]:
    """What to try, in order: as cosign and docker do, only near addresses may be plain."""
    if _is_loopback(host):
        return ("http", "https")
    name = _bare(host)
    if name.endswith(".local"):
        return ("https", "http")
    try:
        return ("https", "http") if ipaddress.ip_address(name).is_private else ("https",)
    except ValueError:
        return ("https",)
