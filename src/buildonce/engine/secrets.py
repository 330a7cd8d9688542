"""The values of secrets, kept out of everything that is stored or shown.

A secret is known elsewhere by its *identity*: its name and a keyed hash of its value, so that in
cache keys two values of one name differ and neither can be guessed. The key is random, made once a
machine, and never leaves the cache folder. With a cache key of the user's own the identity is that
instead: then a fresh token does not run again what an older one made.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets as random
import subprocess
import tempfile
from pathlib import Path

import anyio

from buildonce.engine.errors import NotServed, QueryFailed
from buildonce.engine.states import SecretState

MAX_BYTES = 500_000  # what BuildKit carries as a secret


class SecretStore:
    """The secrets of one session, by identity; a Dockerfile's `id=` finds them by name."""

    def __init__(self, cache: Path, workdir: Path) -> None:
        self._key = _machine_key(cache / "secret-identity.key")
        self._workdir = workdir
        self._values: dict[str, bytes] = {}
        self._by_name: dict[str, str] = {}

    def put(
        self, name: str, plaintext: str | bytes, *, uri: str = "", cache_key: str | None = None
    ) -> SecretState:
        """Keep a value and answer what stands for it."""
        value = plaintext.encode() if isinstance(plaintext, str) else plaintext
        if len(value) > MAX_BYTES:
            raise QueryFailed(f"the secret {name!r} is larger than {MAX_BYTES} bytes")
        if cache_key is None:
            told_apart = hmac.new(self._key, name.encode() + b"\0" + value, hashlib.sha256)
            identity = f"secret:{told_apart.hexdigest()}"
        else:
            digest = hashlib.sha256(f"{name}\0{cache_key}".encode()).hexdigest()
            identity = f"secret:key:{digest}"
        self._values[identity] = value
        self._by_name[name] = identity
        return SecretState("" if uri else name, identity, uri)

    def keep(self, identity: str, value: bytes) -> None:
        """Keep a value that has an identity already."""
        self._values[identity] = value

    async def fetch(self, uri: str, cache_key: str | None) -> SecretState:
        """The secret that a URI names: `env://NAME`, `file://PATH` or `cmd://COMMAND`.

        Raises:
            QueryFailed: there is no such variable or file, or the command failed.
        """
        scheme, separator, rest = uri.partition("://")
        if not separator:
            raise QueryFailed(
                f"parse {_start(uri)}: malformed id: a secret's address is env://NAME, "
                "file://PATH or cmd://COMMAND"
            )
        match scheme:
            case "env":
                if rest not in os.environ:
                    raise QueryFailed(f"secret env var not found: {_start(rest)}")
                value = os.environ[rest].encode()
            case "file":
                value = await self._file(rest)
            case "cmd":
                value = await _command(rest)
            case "op" | "vault" | "aws" | "libsecret" | "gcp":
                raise NotServed(f"Query.secret(uri: {scheme}://…)")
            case _:
                raise QueryFailed(f'unsupported secret provider: "{scheme}"')
        return self.put(uri, value, uri=uri, cache_key=cache_key)

    async def _file(self, path: str) -> bytes:
        target = self._workdir / Path(path).expanduser()
        try:
            return await anyio.Path(target).read_bytes()
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise QueryFailed(f'failed to read secret file "{path}": open {path}: {why}') from error

    async def value(self, identity: str) -> bytes:
        """The value behind an identity or a name.

        Raises:
            QueryFailed: there is none in this session.
        """
        found = self._values.get(identity)
        if found is None:
            found = self._values.get(self._by_name.get(identity, ""))
        if found is None:
            raise QueryFailed("no such secret in this session")
        return found


async def _command(command: str) -> bytes:
    done = await anyio.run_process(["sh", "-c", command], check=False, stderr=subprocess.DEVNULL)
    if done.returncode != 0:
        # Neither the command nor what it printed is repeated: either may hold the secret.
        raise QueryFailed(f"failed to run secret command: exit status {done.returncode}")
    return done.stdout


def _start(text: str) -> str:
    """The beginning of what may be a secret that somebody has put in the wrong place."""
    return f'"{text[:3]}..."'


def _machine_key(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        # Linked into place when whole: another session may be making one at this moment.
        with tempfile.NamedTemporaryFile(dir=path.parent) as file:
            file.write(random.token_bytes(32))
            file.flush()
            with contextlib.suppress(FileExistsError):
                os.link(file.name, path)
    return path.read_bytes()
