"""Git repositories over HTTP, as a server on loopback gives them out."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import dagger
import pytest

from tests.engine.engines import failure, on, unique
from tests.loopback import http_server

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Repository:
    """A served repository: two commits, the first tagged v1.0.0, the second v1.1.0 by a tag object;
    the branches main and, on the first, feature."""

    url: str
    work: Path
    first: str
    second: str


def git(folder: Path, *args: str) -> str:
    identity = {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "t"), ("EMAIL", "t@example.org"))
    }
    done = subprocess.run(
        ["git", "-c", "init.defaultBranch=main", "-C", str(folder), *args],
        env={**os.environ, **identity, "GIT_CONFIG_GLOBAL": os.devnull},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@contextmanager
def serving(root: Path, *, login: str = "") -> Iterator[str]:
    """The repositories below `root` over HTTP, by git's own server program."""
    wanted = "Basic " + base64.b64encode(login.encode()).decode() if login else None
    backend = Path(git(root, "--exec-path")) / "git-http-backend"

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if wanted and self.headers.get("Authorization", "").casefold() != wanted.casefold():
                self._answer(401, [("WWW-Authenticate", "Basic realm=test")], b"")
                return
            path, _, query = self.path.partition("?")
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    sent += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            done = subprocess.run(
                [str(backend)],
                input=sent,
                capture_output=True,
                check=True,
                env={
                    **os.environ,
                    "GIT_PROJECT_ROOT": str(root),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "GIT_CONFIG_COUNT": "2",
                    "GIT_CONFIG_KEY_0": "safe.directory",
                    "GIT_CONFIG_VALUE_0": "*",
                    "GIT_CONFIG_KEY_1": "uploadpack.allowAnySHA1InWant",
                    "GIT_CONFIG_VALUE_1": "true",
                    "PATH_INFO": path,
                    "QUERY_STRING": query,
                    "REQUEST_METHOD": self.command,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "CONTENT_LENGTH": str(len(sent)),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                },
            )
            head, _, body = done.stdout.partition(b"\r\n\r\n")
            status, headers = 200, []
            for line in head.decode().splitlines():
                name, _, value = line.partition(": ")
                if name == "Status":
                    status = int(value.split()[0])
                else:
                    headers.append((name, value))
            self._answer(status, headers, body)

        do_POST = do_GET

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http_server(Handler) as address:
        yield f"http://{address}"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    root = tmp_path_factory.mktemp("git")
    work = root / "repo"
    (work / "d").mkdir(parents=True)
    git(work, "init", "-q")
    (work / "f.txt").write_text("one\n")
    (work / "d/g").write_text("g")
    (work / "l").symlink_to("f.txt")
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", "one")
    git(work, "tag", "v1.0.0")
    git(work, "branch", "feature")
    (work / "f.txt").write_text("two\n")
    git(work, "commit", "-q", "-a", "-m", "two")
    git(work, "tag", "-a", "v1.1.0", "-m", "second")
    with serving(root) as address:
        first, second = git(work, "rev-parse", "HEAD~", "HEAD").split()
        yield Repository(f"{address}/repo/.git", work, first, second)


@pytest.fixture
def remote(client: dagger.Client, repository: Repository) -> dagger.GitRepository:
    return client.git(repository.url)


async def test_references(remote: dagger.GitRepository, repository: Repository) -> None:
    first, second = repository.first, repository.second
    for found, commit, name in (
        (remote.branch("main"), second, "refs/heads/main"),
        (remote.branch("feature"), first, "refs/heads/feature"),
        (remote.tag("v1.0.0"), first, "refs/tags/v1.0.0"),
        (remote.tag("v1.1.0"), second, "refs/tags/v1.1.0"),
        (remote.head(), second, "refs/heads/main"),
        (remote.ref("feature"), first, "refs/heads/feature"),
        (remote.ref("refs/heads/main"), second, "refs/heads/main"),
        (remote.ref("v1.0.0"), first, "refs/tags/v1.0.0"),
        (remote.commit(first), first, first),
    ):
        assert (await found.commit(), await found.ref()) == (commit, name)


async def test_tags_and_branches(remote: dagger.GitRepository) -> None:
    assert sorted(set(await remote.tags())) == ["v1.0.0", "v1.1.0"]
    assert await remote.tags(patterns=["v1.0*"]) == ["v1.0.0"]
    assert await remote.branches() == ["feature", "main"]
    assert await remote.branches(patterns=["f*"]) == ["feature"]


async def test_trees(remote: dagger.GitRepository, repository: Repository) -> None:
    assert await remote.branch("main").tree().entries() == [".git/", "d/", "f.txt", "l"]
    bare = remote.branch("main").tree(discard_git_dir=True)
    assert await bare.entries() == ["d/", "f.txt", "l"]
    assert await bare.file("l").contents() == "two\n"
    for found in (remote.tag("v1.0.0"), remote.commit(repository.first), remote.branch("feature")):
        assert await found.tree().file("f.txt").contents() == "one\n"


async def test_what_a_container_sees(base: dagger.Container, remote: dagger.GitRepository) -> None:
    tree = remote.tag("v1.0.0").tree(discard_git_dir=True)
    paths = ["/d/f.txt", "/d/d"]
    seen = base.with_directory("/d", tree).with_exec(["stat", "-c", "%n %a %u:%g", *paths])
    assert await seen.stdout() == "/d/f.txt 644 0:0\n/d/d 755 0:0\n"


async def test_the_git_directory_is_of_use(
    remote: dagger.GitRepository, repository: Repository, tmp_path: Path
) -> None:
    await remote.branch("main").tree().export(str(tmp_path / "x"))
    assert git(tmp_path / "x", "rev-parse", "HEAD") == repository.second
    assert git(tmp_path / "x", "log", "--format=%s") == "two"
    assert git(tmp_path / "x", "status", "--porcelain") == ""
    assert git(tmp_path / "x", "remote", "get-url", "origin") == repository.url


async def test_history_and_tags(remote: dagger.GitRepository, tmp_path: Path) -> None:
    await remote.branch("main").tree(depth=0, include_tags=True).export(str(tmp_path / "x"))
    assert git(tmp_path / "x", "log", "--format=%s").split() == ["two", "one"]
    assert git(tmp_path / "x", "tag").split() == ["v1.0.0", "v1.1.0"]
    assert git(tmp_path / "x", "status", "--porcelain", "--branch") == "## main"


async def test_a_checkout_is_on_its_branch(
    base: dagger.Container, remote: dagger.GitRepository
) -> None:
    for ref, head in (
        ("main", "ref: refs/heads/main\n"),
        ("v1.0.0", await remote.tag("v1.0.0").commit() + "\n"),
    ):
        tree = remote.ref(ref).tree()
        assert await tree.file(".git/HEAD").contents() == head
        shown = base.with_directory("/d", tree).with_exec(["stat", "-c", "%Y", "/d/f.txt", "/d/d"])
        assert await shown.stdout() == "1\n1\n"


async def test_versions_and_ancestors(remote: dagger.GitRepository, repository: Repository) -> None:
    assert await remote.latest_version().ref() == "refs/tags/v1.1.0"
    ancestor = remote.branch("main").common_ancestor(remote.branch("feature"))
    assert await ancestor.commit() == repository.first
    assert await remote.uncommitted().is_empty()


async def test_a_login_in_the_address_is_not_told(client: dagger.Client) -> None:
    word = unique("word")
    url = f"http://me:{word}@127.0.0.1:1/x.git"
    for question in (client.git(url).head().commit(), client.git(url).branch("main").commit()):
        assert on(embedded=word, dagger="nothing") not in str(await failure(question))


@pytest.fixture
def server(client: dagger.Client, repository: Repository) -> dagger.Service:
    """What leads to the server of this machine that has the repository."""
    port = int(repository.url.split(":")[2].split("/")[0])
    return client.host().service([dagger.PortForward(backend=port, frontend=8080)])


async def test_a_repository_of_a_service(
    client: dagger.Client, server: dagger.Service, repository: Repository
) -> None:
    """Named as commands would call it."""
    url = f"{await server.endpoint(scheme='http')}/repo/.git"
    found = client.git(url, experimental_service_host=server)
    assert await found.branch("feature").commit() == repository.first
    assert await found.tag("v1.0.0").tree(discard_git_dir=True).file("f.txt").contents() == "one\n"


async def test_a_repository_of_a_service_in_a_container(
    client: dagger.Client,
    base: dagger.Container,
    server: dagger.Service,
    repository: Repository,
) -> None:
    relay = base.with_service_binding("server", server).with_exposed_port(8000)
    arguments = ["nc", "-ll", "-p", "8000", "-e", "/bin/shim", "connect", "server:8080"]
    service = relay.as_service(args=arguments)
    url = f"http://{await service.hostname()}:8000/repo/.git"
    found = client.git(url, experimental_service_host=service)
    assert await found.tag("v1.0.0").commit() == repository.first
    assert await found.branch("main").tree().file("f.txt").contents() == "two\n"


async def test_what_is_not_there(remote: dagger.GitRepository) -> None:
    for question, name in (
        (remote.branch("nope").commit(), "refs/heads/nope"),
        (remote.tag("nope").id(), "refs/tags/nope"),
        (remote.ref("nope").tree().entries(), "nope"),
    ):
        error = str(await failure(question))
        assert "does not contain ref" in error
        assert name in error


@pytest.mark.parametrize("name", ["e023868", "zzz", "main"])
async def test_what_is_no_commit(remote: dagger.GitRepository, name: str) -> None:
    error = str(await failure(remote.commit(name).commit()))
    assert "invalid commit SHA" in error
    assert name in error


async def test_a_commit_that_is_not_there(remote: dagger.GitRepository) -> None:
    nowhere = remote.commit("0" * 40)
    assert await nowhere.commit() == "0" * 40
    assert await failure(nowhere.tree().entries())


async def test_no_repository(client: dagger.Client, repository: Repository) -> None:
    url = repository.url.replace("/repo/", "/none/")
    assert await failure(client.git(url).branch("main").commit())


@pytest.mark.parametrize(
    "url", ["file:///etc", "/etc", "--upload-pack=touch /tmp/x", "ext::sh -c x", "https://[x/y"]
)
async def test_nothing_but_remote_repositories(client: dagger.Client, url: str) -> None:
    assert "internal error" not in str(await failure(client.git(url).head().commit()))


async def test_a_branch_is_looked_up_once_a_session(
    client: dagger.Client, remote: dagger.GitRepository, repository: Repository
) -> None:
    git(repository.work, "branch", "moving", repository.first)
    fresh = client.git(repository.url.replace("127.0.0.1", "localhost"))
    assert await fresh.branch("moving").commit() == repository.first
    git(repository.work, "branch", "-f", "moving", repository.second)
    assert await fresh.branch("moving").commit() == repository.first
    git(repository.work, "branch", "-D", "moving")


async def test_a_repository_that_wants_a_login(
    client: dagger.Client, repository: Repository
) -> None:
    token = unique("token")
    with serving(repository.work.parent, login=f"x-access-token:{token}") as address:
        url = f"{address}/repo/.git"
        error = str(await failure(client.git(url).branch("main").commit()))
        assert token not in error
        given = client.set_secret(unique("git"), token)
        allowed = client.git(url, http_auth_token=given)
        assert await allowed.branch("main").commit() == repository.second
        assert await allowed.branch("main").tree().file("f.txt").contents() == "two\n"
        wrong = client.set_secret(unique("git"), unique("wrong"))
        refused = client.git(url, http_auth_token=wrong)
        assert await failure(refused.tag("v1.0.0").tree().entries())
        name = f"basic {base64.b64encode(f'x-access-token:{token}'.encode()).decode()}"
        header = client.set_secret(unique("git"), name)
        with_header = client.git(url, http_auth_header=header)
        assert await with_header.tag("v1.0.0").tree().file("f.txt").contents() == "one\n"
