"""Git repositories: elsewhere, behind a service, or in a directory."""

from __future__ import annotations

import base64
import fnmatch
import os
import re
import shlex
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from buildonce.engine import llb, repositories, semver
from buildonce.engine.addresses import parts_of, served
from buildonce.engine.engine import Engine
from buildonce.engine.errors import QueryFailed
from buildonce.engine.fileops import FileActions
from buildonce.engine.operations import operation
from buildonce.engine.operations.directory import directory, with_directory, with_timestamps
from buildonce.engine.states import (
    ChangesetState,
    DirectoryState,
    SecretState,
    ServiceState,
    SocketState,
)
from buildonce.engine.worktrees import git as run_git
from buildonce.engine.worktrees import without_login

_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


@dataclass(frozen=True, slots=True)
class RepositoryState:
    """A git repository that can be fetched from `url`, or that `folder` holds."""

    url: str
    keep_git: bool = True
    user: str = ""
    token: SecretState | None = None
    header: SecretState | None = None
    socket: SocketState | None = None
    known_hosts: str = ""
    folder: DirectoryState | None = None
    service: ServiceState | None = None

    @property
    def shown(self) -> str:
        return without_login(self.url) or "of the directory"


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
        service=experimental_service_host
        or engine.services.by_name(parts_of(address).hostname or ""),
    )


async def _remote(engine: Engine, repository: RepositoryState) -> list[tuple[str, str]]:
    """(commit, name) of every reference of the repository, as `git ls-remote` tells."""
    key = ("git", repository)
    return await engine.remember(key, lambda: _ls_remote(engine, repository))


@asynccontextmanager
async def _access(
    engine: Engine, repository: RepositoryState
) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """The repository's address for git on this machine, and git's environment to reach it with."""
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    if repository.folder is not None:
        path = await repositories.of_directory(engine, repository.folder)
        yield f"file://{path}", {**environment, "GIT_ALLOW_PROTOCOL": "file:https:http:git:ssh"}
        return
    environment["GIT_ALLOW_PROTOCOL"] = "https:http:git:ssh"
    settings: dict[str, str] = {}
    if header := await _header(engine, repository):
        settings["http.extraHeader"] = f"Authorization: {header}"
    if repository.socket is not None:
        environment["SSH_AUTH_SOCK"] = repository.socket.address.removeprefix("unix:")
    if repository.known_hosts:
        hosts = engine.scratch_folder() / "known_hosts"
        hosts.write_text(repository.known_hosts)
        environment["GIT_SSH_COMMAND"] = f"ssh -o UserKnownHostsFile={shlex.quote(str(hosts))}"
    parts = parts_of(repository.url)
    if repository.service is None:
        yield repository.url, {**environment, **_by_environment(settings)}
        return
    async with served(engine, repository.service, parts) as (host, port):
        place = f"{host}:{port}"
        if parts.scheme == "ssh":
            place = f"{parts.username}@{place}" if parts.username else place
            alias = f"[{parts.hostname}]:{parts.port}" if parts.port else parts.hostname or ""
            ssh = environment.get("GIT_SSH_COMMAND", "ssh")
            environment["GIT_SSH_COMMAND"] = f"{ssh} -o HostKeyAlias={shlex.quote(alias)}"
        environment["no_proxy"] = ",".join(filter(None, (os.environ.get("no_proxy"), host)))
        settings[f"url.{parts.scheme}://{place}/.insteadOf"] = f"{parts.scheme}://{parts.netloc}/"
        yield repository.url, {**environment, **_by_environment(settings)}


async def _header(engine: Engine, repository: RepositoryState) -> str:
    if repository.header is not None:
        return (await engine.secrets.value(repository.header.identity)).decode()
    if repository.token is None:
        return ""
    token = await engine.secrets.value(repository.token.identity)
    user = (repository.user or "x-access-token").encode()
    return "basic " + base64.b64encode(user + b":" + token).decode()


def _by_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Settings of git as variables, after the user's own: everyone can read a command line."""
    first = int(os.environ.get("GIT_CONFIG_COUNT") or 0)
    variables = {"GIT_CONFIG_COUNT": str(first + len(settings))}
    for number, (key, value) in enumerate(settings.items(), first):
        variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return variables


async def _ls_remote(engine: Engine, repository: RepositoryState) -> list[tuple[str, str]]:
    words = ("ls-remote", "--symref", "--")
    try:
        async with _access(engine, repository) as (address, environment):
            folder = engine.scratch_folder()
            listed = await run_git(folder, *words, address, reaching=environment)
    except QueryFailed as error:
        reason = str(error).splitlines()[-1]
        raise QueryFailed(f"cannot read the git repository {repository.shown}: {reason}") from None
    rows: list[tuple[str, str]] = []
    for line in listed.decode(errors="replace").splitlines():
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
    raise QueryFailed(f'repository {repository.shown} does not contain ref "{name}"')


@operation("Directory.asGit")
async def as_git(engine: Engine, self: DirectoryState) -> RepositoryState:
    return RepositoryState("", folder=self)


@operation("GitRepository.url")
async def url(engine: Engine, self: RepositoryState) -> str | None:
    return self.url or None


@operation("GitRepository.head")
async def head(engine: Engine, self: RepositoryState) -> RefState:
    rows = {ref: commit for commit, ref in await _remote(engine, self)}
    if "HEAD" not in rows:
        raise QueryFailed(f"git repository {self.shown} has no HEAD: is it empty?")
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


@operation("GitRepository.latestVersion")
async def latest_version(engine: Engine, self: RepositoryState) -> RefState:
    versions = [
        tag for tag in await _names(engine, self, "refs/tags/", ["v*"]) if semver.valid(tag)
    ]
    if not versions:
        raise QueryFailed("no valid semver tags found")
    return await tag(engine, self, max(versions, key=semver.order))


@operation("GitRepository.uncommitted")
async def uncommitted(engine: Engine, self: RepositoryState) -> ChangesetState:
    if self.folder is None:
        files = await tree(engine, await head(engine, self))
        return ChangesetState(files, files)
    clean = await repositories.without_changes(engine, self.folder)
    if clean is None:
        return ChangesetState(self.folder, self.folder)
    kept = directory(engine, self.folder, ".git")
    return ChangesetState(await with_directory(engine, clean, ".git", kept), self.folder)


@operation("GitRef.commonAncestor")
async def common_ancestor(engine: Engine, self: RefState, other: RefState) -> RefState:
    async with (
        _access(engine, self.repository) as (address, reaching),
        _access(engine, other.repository) as (other_address, other_reaching),
    ):
        commit = await repositories.common_ancestor(
            engine,
            [(address, self.commit, reaching), (other_address, other.commit, other_reaching)],
        )
    return RefState(self.repository, commit, commit)


@operation("GitRef.tree")
async def tree(
    engine: Engine,
    self: RefState,
    discard_git_dir: bool = False,
    depth: int = 1,
    include_tags: bool = False,
) -> DirectoryState:
    repository = self.repository
    keep = repository.keep_git and not discard_git_dir
    here = repository.folder is not None or repository.service is not None
    if here or (keep and (depth != 1 or include_tags)):
        # The daemon fetches single commits of repositories elsewhere; the rest git does here.
        async with _access(engine, repository) as (address, reaching):
            return await repositories.checked_out(
                engine,
                address,
                self.commit,
                self.name,
                depth=depth,
                tags=include_tags,
                keep_git=keep,
                origin=repository.url,
                reaching=reaching,
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
        name=f"git {repository.shown}#{self.name}",
    )
    if keep and self.name.startswith("refs/"):
        # BuildKit knows the commit alone.
        actions = FileActions(output).mkfile(f"/.git/{self.name}", f"{self.commit}\n".encode())
        if self.name.startswith("refs/heads/"):
            actions = actions.mkfile("/.git/HEAD", f"ref: {self.name}\n".encode())
        output = actions.done(platform=engine.platform)
    checked_out = DirectoryState(output, "/", engine.platform)
    return with_timestamps(engine, checked_out, repositories.EPOCH)
