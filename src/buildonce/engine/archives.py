"""Image archives (OCI layouts and `docker save`'s format) made into OCI layouts.

An archive is hostile input: nothing of it is written but blobs under the digest that their content
really has, and sizes are bounded.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from buildonce.engine.errors import QueryFailed

MAX_BLOB = 16 << 30  # bytes
MAX_DOCUMENT = 8 << 20  # bytes of a manifest, index or configuration
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_TIME_OF_WRITING = re.compile(
    rb'(?<="org\.opencontainers\.image\.created":")\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ(?=")'
)
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True, slots=True)
class Unpacked:
    """The image that an archive held.

    Attributes:
        digest: of its manifest.
        config: its configuration blob.
    """

    digest: str
    config: bytes


def date_index(archive: Path) -> None:
    """Set the time of writing in an archive's index, in place, to one that is always the same.

    The same image then has the same archive, and what is made of that comes from the cache.
    """
    with tarfile.open(archive) as tar:
        start, size = next((m.offset_data, m.size) for m in tar if m.name == "index.json")
    with archive.open("r+b") as file:
        file.seek(start)
        index = file.read(size)
        file.seek(start)
        file.write(_TIME_OF_WRITING.sub(b"1970-01-01T00:00:00Z", index))


def unpack(archive: Path, layout: Path, platform: str, tag: str = "") -> Unpacked:
    """Write the image of `archive` (for `platform`, under `tag`) as an OCI layout.

    Raises:
        QueryFailed: it is not an image archive, is damaged, or holds no such image.
    """
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    try:
        with tarfile.open(archive) as tar:
            members = {m.name.removeprefix("./"): m for m in tar.getmembers() if m.isfile()}

            def read(name: str) -> IO[bytes]:
                member = members.get(name)
                stream = tar.extractfile(member) if member else None
                if stream is None or member is None or member.size > MAX_BLOB:
                    raise QueryFailed(f"the image archive lacks {name}, or it is too large")
                return stream

            if "index.json" in members:
                manifest = _from_layout(read, members, blobs, platform, tag)
            elif "manifest.json" in members:
                manifest = _from_docker(read, blobs, tag)
            else:
                raise QueryFailed("not an image archive: neither index.json nor manifest.json")
    except (tarfile.TarError, EOFError, OSError, ValueError, KeyError, TypeError) as error:
        raise QueryFailed(f"the image archive cannot be read: {error}") from error
    digest = _keep(blobs, manifest)
    config = json.loads(manifest)["config"]["digest"].removeprefix("sha256:")
    index = {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": _MANIFEST,
                "digest": digest,
                "size": len(manifest),
                "annotations": {"org.opencontainers.image.ref.name": "image"},
            }
        ],
    }
    (layout / "index.json").write_text(json.dumps(index))
    return Unpacked(digest, (blobs / config).read_bytes())


def _document(stream: IO[bytes]) -> Any:
    data = stream.read(MAX_DOCUMENT + 1)
    if len(data) > MAX_DOCUMENT:
        raise QueryFailed("the image archive holds a document that is too large")
    return json.loads(data)


def _from_layout(
    read: Callable[[str], IO[bytes]],
    members: Mapping[str, tarfile.TarInfo],
    blobs: Path,
    platform: str,
    tag: str,
) -> bytes:
    candidates = list(_document(read("index.json"))["manifests"])
    if tag:
        key = "org.opencontainers.image.ref.name"
        candidates = [c for c in candidates if (c.get("annotations") or {}).get(key) == tag]
    while candidates:
        entry = candidates.pop(0)
        data = _blob(read, entry["digest"]).read(MAX_DOCUMENT)
        document = json.loads(data)
        if "manifests" in document:
            candidates = [*document["manifests"], *candidates]
            continue
        if not _suits(entry.get("platform"), platform):
            continue
        for part in (document["config"], *document["layers"]):
            if _copy(_blob(read, part["digest"]), blobs) != part["digest"]:
                raise QueryFailed(f"the image archive is damaged: {part['digest']} is not itself")
        return bytes(data)
    raise QueryFailed(f"the image archive holds no image for {platform}" + (tag and f", {tag}"))


def _blob(read: Callable[[str], IO[bytes]], digest: str) -> IO[bytes]:
    found = _DIGEST.fullmatch(digest)
    if found is None:
        raise QueryFailed(f"the image archive names a blob {digest!r}, which is no digest")
    return read(f"blobs/sha256/{found[1]}")


def _suits(entry: Mapping[str, str] | None, platform: str) -> bool:
    if not entry:
        return True
    os, architecture = (*platform.split("/"), "")[:2]
    return entry.get("os") == os and entry.get("architecture") == architecture


def _from_docker(read: Callable[[str], IO[bytes]], blobs: Path, tag: str) -> bytes:
    images = _document(read("manifest.json"))
    if tag:
        images = [i for i in images if any(t.endswith(f":{tag}") for t in i["RepoTags"] or ())]
    if not images:
        raise QueryFailed(f"the image archive holds no image {tag}")
    image = images[0]
    parts = []
    for name, kind in [(image["Config"], _CONFIG), *((n, _LAYER) for n in image["Layers"])]:
        digest = _copy(read(name), blobs)
        path = blobs / digest.removeprefix("sha256:")
        media = kind + "+gzip" if kind == _LAYER and _zipped(path) else kind
        parts.append({"mediaType": media, "digest": digest, "size": path.stat().st_size})
    manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": parts[0]}
    return json.dumps({**manifest, "layers": parts[1:]}).encode()


def _zipped(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _copy(stream: IO[bytes], blobs: Path) -> str:
    """Store a stream under the digest that its content has."""
    partial = blobs / ".partial"
    digest = hashlib.sha256()
    with partial.open("wb") as file:
        while block := stream.read(1 << 20):
            digest.update(block)
            file.write(block)
    partial.replace(blobs / digest.hexdigest())
    return f"sha256:{digest.hexdigest()}"


def _keep(blobs: Path, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return f"sha256:{digest}"
