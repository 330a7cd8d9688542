"""Where containers have the network of the machine: no root, or nothing to make networks with."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.loopback import free_port, http_server

from .private import PRELUDE, Private

# The engine finds no programs that make networks, as on a machine that has none.
WITHOUT_PLUGINS = """
import sys
if any(arg.endswith("buildonce") for arg in sys.orig_argv):
    from buildonce.engine.buildkit import hub, network
    network.CNI_FOLDERS = ()
    hub._NEEDED = ("no-such-program",)
"""
ASK = (
    PRELUDE
    + """
async def main():
    port, other = int(sys.argv[2]), int(sys.argv[3])
    forwards = [dagger.PortForward(backend=port, frontend=front) for front in (port, other)]
    service = dag.host().service(forwards)
    for front in (port, other):
        command = ["wget", "-q", "-O", "-", f"http://app:{front}/"]
        await ask(base().with_service_binding("app", service).with_exec(command).stdout())
run(main)
"""
)


class Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello\n")

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    with http_server(Hello) as host:
        yield int(host.rpartition(":")[2])


def test_a_port_of_this_machine_is_reached_under_its_own_number_and_another(
    tmp_path: Path, rootfs: Path, port: int
) -> None:
    """Its own number is taken there, by the very program that is meant."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_PLUGINS)
    private = Private(tmp_path / "cache", rootfs, {"PYTHONPATH": str(tmp_path)})
    try:
        running = private.start(ASK, str(port), str(free_port()))
        assert running.wait() == [{"answer": "hello\n"}, {"answer": "hello\n"}]
        assert "share the network of the machine" in running.errors
    finally:
        private.close()
    assert private.leftovers() == []
