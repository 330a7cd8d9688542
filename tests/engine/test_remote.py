"""BUILDKIT_HOST: daemons that run already, over unix sockets and TCP with TLS, and those that will
not do."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from buildonce.engine.buildkit import network
from buildonce.engine.buildkit.proto import control_pb2
from buildonce.engine.buildkit.watcher import delete_bridge
from tests.engine.private import HELLO, PRELUDE, Private, program, until
from tests.loopback import free_port

pytestmark = [pytest.mark.embedded_only, pytest.mark.e2e]
HELLO_SAID = [{"answer": "hello\n"}]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ca.pem`, `server.pem/.key`, and the clients' folders `good`, `wrong-ca`, `no-certificate`,
    `strange` (a certificate that somebody else signed) and `empty`."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ca", "other"):
        _openssl(
            folder, "req", "-x509", *_KEY, "-keyout", f"{name}.key", "-out", f"{name}.pem",
            "-subj", f"/CN={name}",
        )  # fmt: skip
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
    for name, authority in (("server", "ca"), ("client", "ca"), ("stranger", "other")):
        _openssl(
            folder, "req", *_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr",
            "-subj", f"/CN={name}",
        )  # fmt: skip
        _openssl(
            folder, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem",
            "-CAkey", f"{authority}.key", "-CAcreateserial", "-days", "2", "-out", f"{name}.pem",
            "-extfile", "names",
        )  # fmt: skip
    for name, ca, client in (
        ("good", "ca", "client"),
        ("wrong-ca", "other", "client"),
        ("no-certificate", "ca", ""),
        ("strange", "ca", "stranger"),
        ("empty", "", ""),
    ):
        (folder / name).mkdir()
        if ca:
            (folder / name / "ca.pem").write_bytes((folder / f"{ca}.pem").read_bytes())
        if client:
            (folder / name / "cert.pem").write_bytes((folder / f"{client}.pem").read_bytes())
            (folder / name / "key.pem").write_bytes((folder / f"{client}.key").read_bytes())
    return folder


_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(folder: Path, *args: str) -> None:
    subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def daemon(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A daemon that somebody else has started: its addresses, on a socket and on TCP with TLS."""
    if os.geteuid() != 0:
        pytest.skip("only root starts one like this")
    folder = tmp_path_factory.mktemp("daemon")
    tcp = f"tcp://127.0.0.1:{free_port()}"
    unix = f"unix://{folder}/buildkitd.sock"
    (folder / "buildkitd.toml").write_text(
        f'root = "{folder}/state"\n[worker.containerd]\nenabled = false\n'
        f'[worker.oci]\nbinary = "{program("runc")}"\n' + _own_networks(folder)
    )
    command = [
        program("buildkitd"), "--config", f"{folder}/buildkitd.toml", "--addr", unix,
        "--addr", tcp, "--tlscert", f"{keys}/server.pem", "--tlskey", f"{keys}/server.key",
        "--tlscacert", f"{keys}/ca.pem",
    ]  # fmt: skip
    # It is killed in the end, and leaves the folders in which it has mounted things.
    environment = {**os.environ, "TMPDIR": str(folder)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        until((folder / "buildkitd.sock").exists)
        yield unix, tcp
    finally:
        process.terminate()
        process.wait()
        if os.geteuid() == 0:
            delete_bridge(network.choose(str(folder)).name)


def _own_networks(folder: Path) -> str:
    """Settings that give commands networks of their own, where the machine can."""
    try:
        bridge = network.choose(str(folder))
    except network.NoNetwork:
        return ""
    (folder / "network.conflist").write_text(bridge.configuration(folder / "addresses"))
    return (
        f'networkMode = "cni"\ncniConfigPath = "{folder}/network.conflist"\n'
        f'cniBinaryPath = "{bridge.plugins}"\n'
    )


@pytest.fixture
def hello(tmp_path: Path, rootfs: Path) -> Any:
    """What a program's questions are answered with the daemon at an address."""

    def ask(address: str, keys: Path | None = None, program: str = HELLO) -> list[dict[str, Any]]:
        variables = {"BUILDKIT_HOST": address}
        if keys:
            variables["BUILDONCE_BUILDKIT_TLS"] = str(keys)
        private = Private(tmp_path / "cache", rootfs, variables)
        answer = private.ask(program)
        assert not (private.cache / "buildkit").exists()  # no daemon of our own was started
        return answer

    return ask


def refused(answers: list[dict[str, Any]], address: str, *words: str) -> None:
    [answer] = answers
    assert answer["error"] == "QueryError", answer
    for word in (address, "try:", *words):
        assert word in answer["message"], answer["message"]
    for inside in ("ipv4:", "Traceback", "all addresses", "internal error"):
        assert inside not in answer["message"], answer["message"]
    assert len(answer["message"].splitlines()) == 2, answer["message"]


def test_a_daemon_on_a_socket(daemon: tuple[str, str], hello: Any) -> None:
    assert hello(daemon[0]) == HELLO_SAID


def test_a_daemon_on_tcp_with_tls(daemon: tuple[str, str], keys: Path, hello: Any) -> None:
    assert hello(daemon[1], keys / "good") == HELLO_SAID


SERVICE = (
    PRELUDE
    + """
async def main():
    web = (base().with_new_file("/www/index.html", "served").with_exposed_port(18231)
           .with_default_args(["httpd", "-f", "-p", "18231", "-h", "/www"]).as_service())
    asks = base().with_service_binding("web", web).with_env_variable("RUN", str(id(web)))
    await ask(asks.with_exec(["wget", "-qO-", "http://web:18231/"]).stdout())
    await ask(through(dag.host().tunnel(web)))
    await ask(dag.http("http://web:18231/", experimental_service_host=web).contents())
    await ask(asks.with_exec(["wget", "-qO-", "http://web:18231/index.html"]).stdout())

async def through(tunnel):
    from urllib.request import urlopen
    address = await (await tunnel.start()).endpoint(scheme="http")
    return (await asyncio.to_thread(urlopen, address)).read().decode()
run(main)
"""
)


def test_services_at_a_daemon_elsewhere(daemon: tuple[str, str], keys: Path, hello: Any) -> None:
    """Reached by commands, and from here, where its address means nothing."""
    assert hello(daemon[1], keys / "good", SERVICE) == [{"answer": "served"}] * 4


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("wrong-ca", ["not signed by", "wrong-ca/ca.pem"]),
        ("no-certificate", ["wants a certificate", "cert.pem and key.pem"]),
        ("strange", ["wants a certificate", "strange/cert.pem is not signed by"]),
        (None, ["TLS", "BUILDONCE_BUILDKIT_TLS"]),
    ],
)
def test_keys_that_do_not_fit(
    daemon: tuple[str, str], keys: Path, hello: Any, folder: str | None, words: list[str]
) -> None:
    refused(hello(daemon[1], keys / folder if folder else None), daemon[1], *words)


def test_keys_that_are_not_there(daemon: tuple[str, str], keys: Path, hello: Any) -> None:
    refused(hello(daemon[1], keys / "empty"), "empty/ca.pem", "No such file", "cert.pem")


def test_nothing_at_the_address(tmp_path: Path, keys: Path, hello: Any) -> None:
    unused = f"tcp://127.0.0.1:{free_port()}"
    refused(hello(unused, keys / "good"), unused, "Connection refused", "BUILDKIT_HOST")
    refused(hello(f"unix://{tmp_path}/none"), f"unix://{tmp_path}/none", "No such file")
    refused(hello("podman-container://here"), "podman-container://here", "unix://", "tcp://")


def test_a_daemon_that_never_answers(hello: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        refused(hello(address), address, "timed out")


@pytest.mark.parametrize("version", ["v0.11.6", None])
def test_a_daemon_that_is_too_old(hello: Any, version: str | None) -> None:
    with old_daemon(version) as address:
        words = [version, "oldest"] if version else ["not a buildkitd that we can speak with"]
        refused(hello(address), address, *words)


@contextmanager
def old_daemon(version: str | None) -> Iterator[str]:
    """Says that it has this version; None: it is so old that it cannot even say that."""

    def info(request: Any, context: Any) -> Any:
        answer = control_pb2.InfoResponse()
        answer.buildkitVersion.version = version or ""
        return answer

    def workers(request: Any, context: Any) -> Any:
        return control_pb2.ListWorkersResponse()

    methods = {
        "Info": grpc.unary_unary_rpc_method_handler(
            info, control_pb2.InfoRequest.FromString, lambda m: m.SerializeToString()
        ),
        "ListWorkers": grpc.unary_unary_rpc_method_handler(
            workers, control_pb2.ListWorkersRequest.FromString, lambda m: m.SerializeToString()
        ),
    }
    server = grpc.server(futures.ThreadPoolExecutor(2))
    if version:
        handler = grpc.method_handlers_generic_handler("moby.buildkit.v1.Control", methods)
        server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"tcp://127.0.0.1:{port}"
    finally:
        server.stop(0).wait()
