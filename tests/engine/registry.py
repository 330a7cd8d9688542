"""A registry that has a few images, in memory: the reading half of the distribution protocol.

with serving({"configured:1": image(layer, {"User": "app"})}) as address:
    client.container().from_(f"{address}/configured:1")
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.loopback import http_server

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class Image:
    """An image: its manifest, and every blob that it names, by digest."""

    manifest: bytes
    blobs: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        return digest(self.manifest)


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer(folder: Path) -> bytes:
    """The content of a folder as an uncompressed layer, everything owned by root."""

    def own(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mtime = 0
        return member

    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for path in sorted(folder.rglob("*")):
            tar.add(path, path.relative_to(folder).as_posix(), recursive=False, filter=own)
    return target.getvalue()


def image(content: bytes, settings: Mapping[str, Any], *, architecture: str = "amd64") -> Image:
    """An image of one layer with the given `config` object."""
    config = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": [digest(content)]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": digest(config), "size": len(config)},
            "layers": [{"mediaType": LAYER, "digest": digest(content), "size": len(content)}],
        }
    ).encode()
    return Image(manifest, {digest(config): config, digest(content): content})


@contextmanager
def serving(images: Mapping[str, Image], *, login: str = "") -> Iterator[str]:
    """Serve images by `name:tag` on a free port of loopback; gives `127.0.0.1:PORT`.

    Args:
        login: `user:password` without which nothing is given out.
    """
    manifests: dict[str, bytes] = {}
    blobs: dict[str, bytes] = {}
    for reference, one in images.items():
        name, _, tag = reference.partition(":")
        manifests[f"{name}/manifests/{tag}"] = one.manifest
        manifests[f"{name}/manifests/{one.digest}"] = one.manifest
        blobs.update({f"{name}/blobs/{key}": data for key, data in one.blobs.items()})
    wanted = "Basic " + base64.b64encode(login.encode()).decode() if login else None

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.split("?")[0].removeprefix("/v2/")
            if wanted and self.headers.get("Authorization") != wanted:
                self._send(401, _error("UNAUTHORIZED"), login="Basic realm=test")
            elif path in ("", "/v2"):
                self._send(200, b"{}")
            elif path in manifests:
                self._send(200, manifests[path], kind=MANIFEST)
            elif path in blobs:
                self._send(200, blobs[path], kind="application/octet-stream")
            else:
                self._send(404, _error("MANIFEST_UNKNOWN"))

        do_HEAD = do_GET

        def _send(
            self, status: int, body: bytes, *, kind: str = "application/json", login: str = ""
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Docker-Content-Digest", digest(body))
            if login:
                self.send_header("WWW-Authenticate", login)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http_server(Handler) as address:
        yield address


def _error(code: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode()
