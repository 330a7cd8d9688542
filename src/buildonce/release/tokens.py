"""What a registry wants to see before it answers: a password, or a token from its token server.

    header = await authorization(client, "registry.test", challenge, scope, login)

Our password for a registry is sent where that registry says its tokens come from, as docker does,
but never without TLS over a network, and never along with a redirect.
https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import re

import httpx

from buildonce.release.addresses import schemes, url_of
from buildonce.release.answers import SMALL, bounded, object_of, unreachable
from buildonce.release.credentials import Login
from buildonce.release.errors import RegistryError, RegistryRefused, RegistryUnreachable

_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


async def authorization(
    client: httpx.AsyncClient, host: str, challenge: str, scope: str, login: Login | None
) -> str:
    """The Authorization header that a challenge (RFC 7235) asks for.

    Args:
        client: to ask the token server with.
        host: the registry that wants it.
        challenge: its WWW-Authenticate header.
        scope: what is wanted: "repository:app:pull".
        login: who we are to it; None: nobody.

    Raises:
        RegistryError: it wants another login, or no token is to be had.
    """
    kind, _, rest = challenge.partition(" ")
    if kind.lower() == "basic":
        if login is None or not login.user:
            raise _login_wanted(host)
        return _basic(login)
    values = dict(_CHALLENGE.findall(rest))
    if kind.lower() != "bearer" or "realm" not in values:
        raise _login_wanted(host)
    realm = url_of(values["realm"], host)
    if realm.scheme != "https" and "http" not in schemes(realm.netloc.decode("ascii", "replace")):
        raise RegistryError(
            f"the registry {host} wants its password sent without TLS to {realm.host}"
        )
    query = {"service": values.get("service", ""), "scope": scope or values.get("scope", "")}
    request = _request(client, realm, {k: v for k, v in query.items() if v}, login)
    try:
        answer = await client.send(request, stream=True)
    except httpx.HTTPError as error:
        raise unreachable(host, "asking for a token", error) from error
    try:
        if answer.status_code in (400, 401, 403):
            raise _login_wanted(host)
        body = b"".join([c async for c in bounded(answer, SMALL, host, "asking for a token")])
    finally:
        await answer.aclose()
    content = object_of(body) if answer.status_code == 200 else {}
    token = content.get("token") or content.get("access_token")
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise RegistryUnreachable(
            f"the token server of {host} gave no token: HTTP {answer.status_code}"
        )
    return f"Bearer {token}"


def _request(
    client: httpx.AsyncClient, realm: httpx.URL, query: dict[str, str], login: Login | None
) -> httpx.Request:
    if login and login.identity_token:
        form = {
            **query,
            "client_id": "buildonce",
            "grant_type": "refresh_token",
            "refresh_token": login.identity_token,
        }
        return client.build_request("POST", realm, data=form)
    headers = {"Authorization": _basic(login)} if login else {}
    return client.build_request("GET", realm.copy_merge_params(query), headers=headers)


def _basic(login: Login) -> str:
    return str(httpx.BasicAuth(login.user, login.password)._auth_header)


def _login_wanted(host: str) -> RegistryRefused:
    return RegistryRefused(
        f"the registry {host} wants a login, or does not accept ours",
        status=401,
        remedy=f"docker login {host}",
    )
