"""Files behind HTTP addresses."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import dagger
import pytest

from tests.engine.engines import failure, unique
from tests.loopback import free_port, http_server

pytestmark = pytest.mark.anyio

TEXT = "two\n"


class Handler(SimpleHTTPRequestHandler):
    """Files of a folder; what is below `/private/` only with an `Authorization` of "let me in"."""

    def do_GET(self) -> None:
        allowed = self.headers.get("Authorization") == "let me in"
        if self.path.startswith("/private/") and not allowed:
            self.send_error(403)
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("http")
    (root / "private").mkdir()
    for name in ("f.txt", "no-suffix", "private/x"):
        (root / name).write_text(TEXT)
    return root


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    with http_server(partial(Handler, directory=str(folder))) as address:
        yield f"http://{address}"


async def test_contents_name_and_size(client: dagger.Client, server: str) -> None:
    found = client.http(f"{server}/f.txt?x=1")
    assert await found.contents() == TEXT
    assert await found.name() == "f.txt"
    assert await found.size() == 4
    assert await client.http(f"{server}/no-suffix").name() == "no-suffix"
    assert await client.http(f"{server}/").name() == "index"


async def test_in_a_container(base: dagger.Container, client: dagger.Client, server: str) -> None:
    plain = client.http(f"{server}/f.txt")
    named = client.http(f"{server}/f.txt", name="other.txt", permissions=0o755)
    assert await named.name() == "other.txt"
    made = base.with_file("/f", plain).with_file("/", named)
    ran = made.with_exec(["stat", "-c", "%n %a %u:%g", "/f", "/other.txt"])
    assert await ran.stdout() == "/f 600 0:0\n/other.txt 755 0:0\n"


async def test_what_is_not_there(client: dagger.Client, server: str) -> None:
    assert "404" in str(await failure(client.http(f"{server}/nope").contents()))


async def test_nothing_listens(client: dagger.Client) -> None:
    error = str(await failure(client.http(f"http://127.0.0.1:{free_port()}/x").contents()))
    assert "connection refused" in error


@pytest.mark.parametrize(
    "url",
    [
        "not a url",
        "ftp://127.0.0.1/x",
        "",
        "/etc/passwd",
        "file:///x",
        "http://[",
        "http://127.0.0.1:99999999/x",
    ],
)
async def test_what_is_no_address(client: dagger.Client, url: str) -> None:
    assert "internal error" not in str(await failure(client.http(url).contents()))


async def test_checksum(client: dagger.Client, server: str) -> None:
    right = "sha256:" + hashlib.sha256(TEXT.encode()).hexdigest()
    assert await client.http(f"{server}/f.txt", checksum=right).contents() == TEXT
    wrong = "sha256:" + "0" * 64
    error = str(await failure(client.http(f"{server}/f.txt", checksum=wrong).contents()))
    assert wrong in error
    assert right in error


async def test_an_address_is_read_once_a_session(
    client: dagger.Client, server: str, folder: Path
) -> None:
    name = unique("x")
    (folder / name).write_text("1")
    assert await client.http(f"{server}/{name}").contents() == "1"
    (folder / name).write_text("22")
    assert await client.http(f"{server}/{name}").contents() == "1"


async def test_a_header_as_a_secret(client: dagger.Client, server: str) -> None:
    assert "403" in str(await failure(client.http(f"{server}/private/x").contents()))
    secret = client.set_secret(unique("header"), "let me in")
    found = client.http(f"{server}/private/x", name="y", auth_header=secret)
    assert await found.contents() == TEXT


async def test_a_file_of_a_service(client: dagger.Client, web: dagger.Container) -> None:
    service = web.as_service()
    url = f"{await service.endpoint(scheme='http')}/index.html"
    file = client.http(url, experimental_service_host=service)
    assert await file.contents() == "served"
    assert await file.name() == "index.html"
    missing = client.http(url.replace("index", "none"), experimental_service_host=service)
    assert "404" in str(await failure(missing.contents()))


async def test_a_service_that_was_started_is_found_by_its_name(
    client: dagger.Client, web: dagger.Container
) -> None:
    service = await web.with_env_variable("ONE", unique()).as_service().start()
    url = f"http://{await service.hostname()}:8000/index.html"
    assert await client.http(url).contents() == "served"
    wrong = f"sha256:{'0' * 64}"
    for checksum, said in (
        (wrong, "http checksum mismatch"),
        (wrong, f"expected {wrong}"),
        ("not-a-digest", 'invalid checksum "not-a-digest"'),
    ):
        error = await failure(client.http(url, checksum=checksum).contents())
        assert said in str(error)
    await service.stop()
