"""The machine's proxy and package index reach commands, also where they listen on loopback only."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.loopback import http_server

from .private import PRELUDE, Private

pytestmark = pytest.mark.embedded_only
LOGIN = "word-of-the-proxy"
ASK = (
    PRELUDE
    + """
async def main():
    await ask(sh("wget -q -O - http://nowhere.example/page").stdout())
    await ask(sh("unset http_proxy; wget -q -O - $PIP_INDEX_URL").stdout())
    withheld = "$PIP_EXTRA_INDEX_URL$UV_INDEX"
    await ask(sh(f"echo $PIP_INDEX_URL $NO_PROXY; echo {withheld}$http_proxy").stdout())
    await ask(base().with_env_variable("GOPROXY", "own").with_exec(["sh", "-c", "echo $GOPROXY"])
              .stdout())
    dockerfile = "FROM scratch\\nCOPY . /\\nRUN wget -q -O /page http://nowhere.example/built"
    context = dag.host().directory(sys.argv[1]).with_new_file("Dockerfile", dockerfile)
    await ask(context.docker_build().file("page").contents())
run(main)
"""
)


class Told(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        login = self.headers.get("Proxy-Authorization") or self.headers.get("Authorization")
        self.wfile.write(f"{self.path} {bool(login)}\n".encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    with http_server(Told) as host:
        yield int(host.rpartition(":")[2])


def test_proxy_and_index_on_loopback(tmp_path: Path, rootfs: Path, port: int) -> None:
    settings = {
        "http_proxy": f"http://me:{LOGIN}@localhost:{port}",
        "PIP_INDEX_URL": f"http://127.0.0.1:{port}/simple",
        "PIP_EXTRA_INDEX_URL": f"https://me:{LOGIN}@index.example.org/simple",
        "UV_INDEX": "https://me:no@index.example.org/simple",
        "GOPROXY": "direct",
        "no_proxy": "127.0.0.1,localhost",
    }
    private = Private(tmp_path / "cache", rootfs, settings)
    try:
        running = private.start(ASK)
        page, index, shown, own, built = (answer.get("answer", answer) for answer in running.wait())
    finally:
        private.close()
    assert page == "http://nowhere.example/page True\n"
    assert index == "/simple False\n"
    place, address, proxy = shown.split()
    assert place == f"http://{address}:{port}/simple"
    assert proxy == f"http://me:***@{address}:{port}"
    assert own == "own\n"
    assert built == "http://nowhere.example/built True\n"
    assert LOGIN not in running.errors
    assert "PIP_EXTRA_INDEX_URL has a login in it" in running.errors
    assert "UV_INDEX has a login in it" in running.errors
    assert private.leftovers() == []
