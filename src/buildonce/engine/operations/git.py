"""Git repositories and HTTP addresses, fetched by the daemon and pinned by what they hold."""

from __future__ import annotations

import base64
import fnmatch
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import anyio

from buildonce.engine import llb
from buildonce.engine.engine import Engine
from buildonce.engine.errors import QueryFailed
from buildonce.engine.operations import operation
from buildonce.engine.states import (
    DirectoryState,
    FileState,
    SecretState,
    ServiceState,
    SocketState,
)

_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


@dataclass(frozen=True, slots=True)
class RepositoryState:
    """A git repository that can be fetched from `url`."""

    url: str
    keep_git: bool = True
    user: str = ""
    token: SecretState | None = None
    header: SecretState | None = None
    socket: SocketState | None = None
    known_hosts: str = ""


@dataclass(frozen=True, slots=True)
class RefState:
    """One commit of a repository, and the name it was found by."""

    repository: RepositoryState
    name: str
    commit: str = field(default="")


@operation("Query.git")
def git(
    engine: Engine,
    self: None,
    url: str,
    keep_git_dir: bool = True,
    ssh_known_hosts: str = "",
    ssh_auth_socket: SocketState | None = None,
    http_auth_username: str = "",
    http_auth_token: SecretState | None = None,
    http_auth_header: SecretState | None = None,
    experimental_service_host: ServiceState | None = None,
) -> RepositoryState:
    if url.startswith("-") or any(c in url for c in "\0\n\r "):
        raise QueryFailed(f"{url!r} is not the address of a git repository")
    address = url
    if "://" not in url:
        scp = re.fullmatch(r"(?:[\w.-]+@)?[\w.-]+:(?!\d+/)\S+", url)
        address = url if scp else f"https://{url}"
    return RepositoryState(
        address,
        keep_git_dir,
        http_auth_username,
        http_auth_token,
        http_auth_header,
        ssh_auth_socket,
        ssh_known_hosts,
    )


async def _remote(engine: Engine, repository: RepositoryState) -> list[tuple[str, str]]:
    """(commit, name) of every reference of the repository, as `git ls-remote` tells."""
    key = ("git", repository)
    return await engine.remember(key, lambda: _ls_remote(engine, repository))


async def _ls_remote(engine: Engine, repository: RepositoryState) -> list[tuple[str, str]]:
    environment = {"GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "https:http:git:ssh"}
    header = b""
    if repository.header is not None:
        header = await engine.secrets.value(repository.header.identity)
    elif repository.token is not None:
        token = await engine.secrets.value(repository.token.identity)
        user = (repository.user or "x-access-token").encode()
        header = b"basic " + base64.b64encode(user + b":" + token)
    if header:
        # By environment: a command line can be read by everyone on the machine.
        environment |= {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "http.extraHeader",
            "GIT_CONFIG_VALUE_0": "Authorization: " + header.decode(),
        }
    try:
        done = await anyio.run_process(
            ["git", "ls-remote", "--symref", "--", repository.url],
            env={**os.environ, **environment},
            check=False,
        )
    except FileNotFoundError:
        raise QueryFailed("git is not installed on this machine: install it to use git()") from None
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip().splitlines()
        raise QueryFailed(
            f"cannot read the git repository {repository.url}: {reason[-1] if reason else '?'}"
        )
    rows: list[tuple[str, str]] = []
    for line in done.stdout.decode(errors="replace").splitlines():
        left, _, right = line.partition("\t")
        if left.startswith("ref: "):
            rows.append((left.removeprefix("ref: "), "symref:" + right))
        else:
            rows.append((left, right))
    return rows


async def _find(engine: Engine, repository: RepositoryState, name: str) -> RefState:
    rows = {ref: commit for commit, ref in await _remote(engine, repository)}
    for candidate in (name, f"refs/heads/{name}", f"refs/tags/{name}", f"refs/{name}"):
        if candidate in rows:
            # An annotated tag is an object of its own; the commit is the peeled one.
            return RefState(repository, candidate, rows.get(candidate + "^{}", rows[candidate]))
    raise QueryFailed(f'repository {repository.url} does not contain ref "{name}"')


@operation("GitRepository.url")
async def url(engine: Engine, self: RepositoryState) -> str:
    return self.url


@operation("GitRepository.head")
async def head(engine: Engine, self: RepositoryState) -> RefState:
    rows = {ref: commit for commit, ref in await _remote(engine, self)}
    if "HEAD" not in rows:
        raise QueryFailed(f"git repository {self.url} has no HEAD: is it empty?")
    return RefState(self, rows.get("symref:HEAD", "HEAD"), rows["HEAD"])


@operation("GitRepository.branch")
async def branch(engine: Engine, self: RepositoryState, name: str) -> RefState:
    return await _find(engine, self, f"refs/heads/{name.removeprefix('refs/heads/')}")


@operation("GitRepository.tag")
async def tag(engine: Engine, self: RepositoryState, name: str) -> RefState:
    return await _find(engine, self, f"refs/tags/{name.removeprefix('refs/tags/')}")


@operation("GitRepository.ref")
async def ref(engine: Engine, self: RepositoryState, name: str) -> RefState:
    if _COMMIT.fullmatch(name):
        return RefState(self, name, name)
    return await _find(engine, self, name)


@operation("GitRepository.commit")
def commit(engine: Engine, self: RepositoryState, id: str) -> RefState:
    if not _COMMIT.fullmatch(id):
        raise QueryFailed(f'invalid commit SHA: "{id}": the full hash is needed')
    return RefState(self, id, id)


@operation("GitRepository.branches")
async def branches(
    engine: Engine, self: RepositoryState, patterns: Sequence[str] = ()
) -> list[str]:
    return await _names(engine, self, "refs/heads/", patterns)


@operation("GitRepository.tags")
async def tags(engine: Engine, self: RepositoryState, patterns: Sequence[str] = ()) -> list[str]:
    return await _names(engine, self, "refs/tags/", patterns)


async def _names(
    engine: Engine, repository: RepositoryState, prefix: str, patterns: Sequence[str]
) -> list[str]:
    names = [
        name.removeprefix(prefix)
        for _, name in await _remote(engine, repository)
        if name.startswith(prefix) and not name.endswith("^{}")
    ]
    if not patterns:
        return names
    shaped = [p.removeprefix(prefix) for p in patterns]
    return [n for n in names if any(fnmatch.fnmatch(n, p) for p in shaped)]


@operation("GitRef.commit")
async def ref_commit(engine: Engine, self: RefState) -> str:
    return self.commit


@operation("GitRef.ref")
async def ref_name(engine: Engine, self: RefState) -> str:
    return self.name


@operation("GitRef.tree")
def tree(
    engine: Engine,
    self: RefState,
    discard_git_dir: bool = False,
    depth: int = 1,
    include_tags: bool = False,
) -> DirectoryState:
    repository = self.repository
    keep = repository.keep_git and not discard_git_dir
    if keep and (depth != 1 or include_tags):
        raise QueryFailed(
            "GitRef.tree with a depth other than 1, or with tags, is not served by buildonce's "
            "embedded engine, which fetches single commits; run the same program on Dagger "
            "(`dagger run …`) to use it"
        )
    address = re.sub(r"^[a-z+]+://(?:[^/@]*@)?", "", repository.url)
    attributes = {"git.fullurl": repository.url}
    if keep:
        attributes["git.keepgitdir"] = "true"
    if repository.token is not None:
        attributes["git.authtokensecret"] = repository.token.identity
    if repository.header is not None:
        attributes["git.authheadersecret"] = repository.header.identity
    if repository.socket is not None:
        attributes["git.mountsshsock"] = repository.socket.address
    if repository.known_hosts:
        attributes["git.knownsshhosts"] = repository.known_hosts
    output = llb.source(
        f"git://{address}#{self.commit}",
        attributes,
        platform=engine.platform,
        name=f"git {repository.url}#{self.name}",
    )
    return DirectoryState(output, "/", engine.platform)


@operation("Query.http")
def http(
    engine: Engine,
    self: None,
    url: str,
    name: str | None = None,
    permissions: int | None = None,
    checksum: str | None = None,
    auth_header: SecretState | None = None,
    experimental_service_host: ServiceState | None = None,
) -> FileState:
    if not url.startswith(("http://", "https://")):
        raise QueryFailed(f"{url!r} is not an HTTP address")
    chosen = name or urlsplit(url).path.rpartition("/")[2] or "index"
    if "/" in chosen:
        raise QueryFailed(f"{chosen!r} is not a file name: it must not hold a slash")
    attributes = {"http.filename": chosen}
    attributes["http.perm"] = oct(0o600 if permissions is None else permissions).replace("0o", "0")
    if checksum:
        attributes["http.checksum"] = checksum
    if auth_header is not None:
        attributes["http.authheadersecret"] = auth_header.identity
    output = llb.source(url, attributes, platform=engine.platform, name=f"http {url}")
    return FileState(output, f"/{chosen}", engine.platform)
