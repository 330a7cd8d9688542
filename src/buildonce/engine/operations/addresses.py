"""Addresses: one text for an image, a folder, a repository, a secret, a service or a socket."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from buildonce.engine.engine import Engine
from buildonce.engine.errors import QueryFailed
from buildonce.engine.operations import git, operation
from buildonce.engine.operations import host as hosts
from buildonce.engine.operations.container import from_
from buildonce.engine.operations.directory import directory as subdirectory
from buildonce.engine.operations.directory import file as subfile
from buildonce.engine.operations.git import RefState, RepositoryState
from buildonce.engine.states import (
    ContainerState,
    DirectoryState,
    FileState,
    SecretState,
    ServiceState,
    SocketState,
)

_GIT = re.compile(r"(?:https?|ssh|git)://|(?:[\w.-]+@)[\w.-]+:", re.ASCII)
_HOST = hosts.HostState()


@dataclass(frozen=True, slots=True)
class AddressState:
    """A text that names something; what, the field that it is asked for says."""

    value: str

    @property
    def local(self) -> str:
        """As a path of this machine."""
        return self.value.removeprefix("file://")

    def in_git(self) -> tuple[str, str, str] | None:
        """Repository, reference and path within; None where it names no repository elsewhere."""
        if not _GIT.match(self.value):
            return None
        url, _, fragment = self.value.partition("#")
        reference, _, path = fragment.partition(":")
        return url, reference, path


@operation("Query.address")
def address(engine: Engine, self: None, value: str) -> AddressState:
    if not value:
        raise QueryFailed("resource cannot have empty address")
    return AddressState(value)


@operation("Address.value")
async def value(engine: Engine, self: AddressState) -> str:
    return self.value


@operation("Address.container")
async def container(engine: Engine, self: AddressState) -> ContainerState:
    return await from_(engine, ContainerState(engine.platform), self.value)


@operation("Address.gitRepository")
async def git_repository(engine: Engine, self: AddressState) -> RepositoryState:
    found = self.in_git()
    if found is None:
        return await git.as_git(engine, await hosts.directory(engine, _HOST, self.local))
    url, reference, path = found
    if reference or path:
        part = "ref" if reference else "subdir"
        raise QueryFailed(f"git repository address cannot contain {part}")
    return git.git(engine, None, url)


@operation("Address.gitRef")
async def git_ref(engine: Engine, self: AddressState) -> RefState:
    found = self.in_git()
    if found is None:
        path, _, reference = self.local.partition("#")
        repository = await git.as_git(engine, await hosts.directory(engine, _HOST, path))
        return await _reference(engine, repository, reference)
    url, reference, path = found
    if path:
        raise QueryFailed("git ref address cannot contain subdir")
    return await _reference(engine, git.git(engine, None, url), reference)


async def _reference(engine: Engine, repository: RepositoryState, name: str) -> RefState:
    return await (git.ref(engine, repository, name) if name else git.head(engine, repository))


async def _tree(engine: Engine, url: str, reference: str) -> DirectoryState:
    return await git.tree(engine, await _reference(engine, git.git(engine, None, url), reference))


@operation("Address.directory")
async def directory(
    engine: Engine,
    self: AddressState,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    gitignore: bool = False,
    no_cache: bool = False,
) -> DirectoryState:
    found = self.in_git()
    if found is None:
        return await hosts.directory(
            engine, _HOST, self.local, exclude, include, gitignore=gitignore
        )
    url, reference, path = found
    whole = await _tree(engine, url, reference)
    return subdirectory(engine, whole, path) if path else whole


@operation("Address.file")
async def file(
    engine: Engine,
    self: AddressState,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    gitignore: bool = False,
    no_cache: bool = False,
) -> FileState:
    found = self.in_git()
    if found is None:
        return await hosts.file(engine, _HOST, self.local)
    url, reference, path = found
    if not path:
        raise QueryFailed("no file path specified within git repository")
    whole = await _tree(engine, url, reference)
    return await subfile(engine, whole, path)


@operation("Address.secret")
async def secret(engine: Engine, self: AddressState) -> SecretState:
    text = self.value if ":" in self.value else f"env://{self.value}"
    scheme, _, rest = text.partition(":")
    place, _, query = rest.removeprefix("//").partition("?")
    settings = dict(parse_qsl(query, keep_blank_values=True))
    cache_key = settings.pop("cacheKey", None)
    uri = f"{scheme}://{place}" + (f"?{urlencode(settings)}" if settings else "")
    return await engine.secrets.fetch(uri, cache_key)


@operation("Address.service")
def service(engine: Engine, self: AddressState) -> ServiceState:
    parts = urlsplit(self.value)
    if parts.scheme not in ("tcp", "udp"):
        raise QueryFailed(
            f'unsupported service address: "{parts.scheme}". Must be a valid tcp:// or udp:// URL'
        )
    try:
        port = parts.port
    except ValueError as error:
        raise QueryFailed(f"{self.value}: {error}") from None
    if not parts.hostname or port is None:
        raise QueryFailed(f"{self.value}: a service's address is tcp://HOST:PORT")
    forward = {"frontend": port, "backend": port, "protocol": parts.scheme.upper()}
    return hosts.service(engine, _HOST, [forward], parts.hostname)


@operation("Address.socket")
def socket(engine: Engine, self: AddressState) -> SocketState:
    return hosts.unix_socket(engine, _HOST, self.value.removeprefix("unix://"))
