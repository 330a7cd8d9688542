"""Who we are to a registry: what `docker login` wrote, and its credential helpers.

login = await docker_login("registry.example.com")     # Login(user, password) or None

The order is docker's: `credHelpers` of the host, `auths`, `credsStore`. The file is
`$DOCKER_CONFIG/config.json`, `~/.docker/config.json`, or podman's `auth.json`.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

import anyio

from buildonce.release.errors import RegistryError

_TOKEN_USER = "<token>"  # noqa: S105 - what helpers answer in place of a user for identity tokens
_HELPER_SECONDS = 30.0
_DOCKER_HUB = "https://index.docker.io/v1/"


@dataclass(frozen=True)
class Login:
    """A user and a password; or an identity token, to be exchanged for access tokens."""

    user: str
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)


async def docker_login(host: str) -> Login | None:
    """What docker or podman would say to the registry at `host`; None to be anonymous.

    Raises:
        RegistryError: the file or the helper that is to know cannot be used.
    """
    for path in _files():
        content = await anyio.to_thread.run_sync(_read, path)
        if content and (login := await _from_file(content, path, host)):
            return login
    return None


def _files() -> list[Path]:
    folder = os.environ.get("DOCKER_CONFIG")
    files = [Path(folder) if folder else Path.home() / ".docker"]
    files = [file / "config.json" for file in files]
    if own := os.environ.get("REGISTRY_AUTH_FILE"):
        files.append(Path(own))
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        files.append(Path(runtime) / "containers" / "auth.json")
    return files


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RegistryError(
            f"the registry logins in {path} cannot be read: {error}",
            remedy=f"correct {path}, or log in again: docker login",
        ) from None
    return content if isinstance(content, dict) else {}


async def _from_file(content: dict[str, Any], path: Path, host: str) -> Login | None:
    helpers = content.get("credHelpers")
    if isinstance(helpers, dict) and (helper := helpers.get(host)):
        return await _ask_helper(str(helper), host)
    auths = content.get("auths")
    for name, entry in auths.items() if isinstance(auths, dict) else ():
        if _host(str(name)) == host and isinstance(entry, dict) and entry:
            return _login(entry, path, host)
    if store := content.get("credsStore"):
        return await _ask_helper(str(store), _DOCKER_HUB if host == "docker.io" else host)
    return None


def _host(name: str) -> str:
    """The host that an entry of `auths` is for: older clients wrote whole addresses."""
    host = name.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return "docker.io" if host in ("index.docker.io", "registry-1.docker.io") else host


def _login(entry: dict[str, Any], path: Path, host: str) -> Login | None:
    token = str(entry.get("identitytoken", ""))
    if entry.get("auth"):
        try:
            text = base64.b64decode(str(entry["auth"]), validate=True).decode()
        except ValueError:
            raise RegistryError(
                f"the login for {host} in {path} is damaged",
                remedy=f"docker login {host}",
            ) from None
        user, _, password = text.partition(":")
        return Login(user, password.rstrip("\0"), token)
    if entry.get("username"):
        return Login(str(entry["username"]), str(entry.get("password", "")), token)
    return Login("", "", token) if token else None


async def _ask_helper(helper: str, host: str) -> Login | None:
    program = f"docker-credential-{helper}"
    if "/" in helper or shutil.which(program) is None:
        raise RegistryError(
            f"the registry login for {host} is kept by {program}, which is not installed",
            remedy=f"install {program}, or log in without it: docker login {host}",
        )
    with anyio.move_on_after(_HELPER_SECONDS):
        done = await anyio.run_process(
            [program, "get"], input=host.encode(), stdout=PIPE, stderr=DEVNULL, check=False
        )
        if done.returncode != 0:
            # So they say "no credentials"; what else went wrong shows when we are refused.
            return None
        try:
            answer = json.loads(done.stdout)
            user, secret = str(answer["Username"]), str(answer["Secret"])
        except (ValueError, KeyError, TypeError):
            raise RegistryError(f"{program} gave an answer for {host} that is none") from None
        return Login("", "", secret) if user == _TOKEN_USER else Login(user, secret)
    raise RegistryError(f"{program} did not answer for {host} in {_HELPER_SECONDS:.0f} s")
