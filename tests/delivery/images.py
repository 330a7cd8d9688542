"""Tiny images, made of one static busybox and a start script, pushed over plain HTTP."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import shutil
import tarfile
from pathlib import Path

import httpx

from buildonce.release import Image

_OCI = "application/vnd.oci.image"

SERVE = """
mkdir -p /tmp/www
echo "{\\"digest\\": \\"$BUILDONCE_DIGEST\\", \\"version\\": \\"$BUILDONCE_VERSION\\", \
\\"greeting\\": \\"$GREETING\\"}" > /tmp/www/healthz
trap 'exit 0' TERM
httpd -f -p 8080 -h /tmp/www &
wait
"""
"""Answers /healthz with what it was given, and ends at once when asked to."""

EXIT = "echo starting; echo cannot find the flux capacitor >&2; exit 7"


def push(repository: str, script: str, *, tag: str) -> Image:
    """Push an image whose start command is the shell script, to a plain-HTTP registry."""
    host, _, name = repository.partition("/")
    layer = _layer()
    config = json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
            "os": "linux",
            "config": {
                "User": "65532:65532",
                "Env": ["PATH=/bin"],
                "Cmd": ["/bin/sh", "-c", script],
                "Labels": {"tag": tag},
            },
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": _descriptor("config.v1+json", config),
            "layers": [_descriptor("layer.v1.tar", layer)],
        }
    ).encode()
    with httpx.Client(base_url=f"http://{host}", trust_env=False, timeout=30) as client:
        for blob in (layer, config):
            begun = client.post(f"/v2/{name}/blobs/uploads/").raise_for_status()
            place = httpx.URL(begun.headers["location"])
            place = place.copy_add_param("digest", _digest(blob))
            client.put(place, content=blob).raise_for_status()
        client.put(
            f"/v2/{name}/manifests/{tag}",
            content=manifest,
            headers={"Content-Type": f"{_OCI}.manifest.v1+json"},
        ).raise_for_status()
    return Image(repository, _digest(manifest))


def _layer() -> bytes:
    busybox = shutil.which("busybox")
    if busybox is None:
        raise RuntimeError("busybox is not installed: apt-get install busybox-static")
    content = Path(busybox).read_bytes()
    if b"/lib64/ld-linux" in content or b"/lib/ld-linux" in content:
        raise RuntimeError("busybox is not static: apt-get install busybox-static")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, mode in (("bin", 0o755), ("tmp", 0o1777)):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, mode
            tar.addfile(folder)
        binary = tarfile.TarInfo("bin/busybox")
        binary.size, binary.mode = len(content), 0o755
        tar.addfile(binary, io.BytesIO(content))
        for applet in ("sh", "mkdir", "httpd", "sleep"):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return buffer.getvalue()


def _descriptor(kind: str, blob: bytes) -> dict[str, object]:
    return {"mediaType": f"{_OCI}.{kind}", "size": len(blob), "digest": _digest(blob)}


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"
