"""A company's own certificate authority, as SSL_CERT_FILE names it, at a real HTTPS server."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import Thread

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from buildonce.delivery import SmokeFailed, http_smoke
from buildonce.trust import ssl_context

pytestmark = pytest.mark.anyio


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


def certificate(
    name: str, key: ec.EllipticCurvePrivateKey, by: tuple[x509.Certificate, object] | None
) -> x509.Certificate:
    """Of `name`, signed by an authority; by itself, as one, when there is none."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, signer = (by[0].subject, by[1]) if by else (subject, key)
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        .add_extension(address, critical=False)
        .sign(signer, hashes.SHA256())  # type: ignore[arg-type]
    )


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    return tmp_path / "authority.pem"


@pytest.fixture
def url(tmp_path: Path, authority: Path) -> Iterator[str]:
    """An HTTPS server whose certificate the authority has signed."""
    own, servers = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = certificate("a company", own, None)
    authority.write_bytes(root.public_bytes(Encoding.PEM))
    chain = tmp_path / "server.pem"
    chain.write_bytes(
        servers.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate("server", servers, (root, own)).public_bytes(Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    with ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"https://127.0.0.1:{server.server_port}"
        server.shutdown()


async def test_an_environment_behind_a_companys_own_authority(
    url: str, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SmokeFailed, match="certificate verify failed"):
        await http_smoke(attempts=1)(url)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    await http_smoke(attempts=1)(url)


def test_it_is_read_once_for_each_file(authority: Path, url: str) -> None:
    with pytest.MonkeyPatch.context() as patched:
        before = ssl_context()
        assert ssl_context() is before
        patched.setenv("SSL_CERT_FILE", str(authority))
        assert ssl_context() is not before
    assert ssl_context() is before
