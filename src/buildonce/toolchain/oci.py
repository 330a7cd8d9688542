"""A one-layer image from a tar, as an OCI layout, and pushing it: standard library and httpx only.

    digest = write_layout(folder, tar, keep=wanted, config={"Env": ["LANG=C.UTF-8"]})
    await push(folder, "127.0.0.1:5080/base/python:bookworm")

The same tar gives the same digest: nothing of the time, the user or the machine gets in.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import anyio

from buildonce.errors import BuildonceError
from buildonce.toolchain.processes import Progress, silent

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

_BLOCK = 1 << 20
# Loopback traffic is cheap and processor time is not: level 2 takes a third of the time of 6.
_LEVEL = 2


@dataclass(frozen=True)
class Blob:
    """A blob of a layout: digest ("sha256:..."), size in bytes, media type."""

    digest: str
    size: int
    media_type: str

    def descriptor(self, **more: object) -> dict[str, object]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size, **more}


def write_layout(
    folder: Path,
    rootfs: Path,
    *,
    architecture: str,
    created: str,
    config: Mapping[str, object],
    keep: Callable[[tarfile.TarInfo], bool] = lambda _entry: True,
    add: Iterable[tuple[tarfile.TarInfo, bytes]] = (),
) -> str:
    """Write the tar file `rootfs` as an image with one layer into `folder`; blocks for seconds.

    Args:
        folder: an empty folder that becomes an OCI layout.
        rootfs: the file system as a tar file.
        architecture: GOARCH of the programs in it.
        created: RFC 3339 time for the image's configuration.
        config: the image's `config` object: Env, Cmd, ...
        keep: whether an entry of the tar belongs into the layer.
        add: entries to add at the end, with their content.

    Returns:
        The digest of the manifest.
    """
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layer, diff_id = _write_layer(blobs, rootfs, keep, add)
    image = {
        "architecture": architecture,
        "os": "linux",
        "created": created,
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": created, "created_by": "buildonce setup"}],
    }
    configuration = _write_json(blobs, image, CONFIG)
    manifest = _write_json(
        blobs,
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": configuration.descriptor(),
            "layers": [layer.descriptor()],
        },
        MANIFEST,
    )
    platform = {"architecture": architecture, "os": "linux"}
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [manifest.descriptor(platform=platform)],
    }
    (folder / "index.json").write_text(_json(index), "utf-8")
    (folder / "oci-layout").write_text(_json({"imageLayoutVersion": "1.0.0"}), "utf-8")
    return manifest.digest


def layout_digest(folder: Path) -> str:
    """The digest of the one manifest in the layout at `folder`.

    Raises:
        OSError, KeyError, ValueError: it is no whole layout.
    """
    index = json.loads((folder / "index.json").read_text("utf-8"))
    return str(index["manifests"][0]["digest"])


def _write_layer(
    blobs: Path,
    rootfs: Path,
    keep: Callable[[tarfile.TarInfo], bool],
    add: Iterable[tuple[tarfile.TarInfo, bytes]],
) -> tuple[Blob, str]:
    making = blobs / ".layer"
    with making.open("wb") as file:
        packed = _Digesting(file)
        # No name and no time in gzip's header.
        with gzip.GzipFile(
            filename="", mode="wb", compresslevel=_LEVEL, fileobj=cast(IO[bytes], packed), mtime=0
        ) as compressed:
            plain = _Digesting(compressed)
            with (
                tarfile.open(rootfs, "r:") as source,
                tarfile.open(
                    fileobj=cast(IO[bytes], plain), mode="w|", format=tarfile.PAX_FORMAT
                ) as target,
            ):
                for entry in source:
                    if keep(entry):
                        content = source.extractfile(entry) if entry.isreg() else None
                        target.addfile(_nameless(entry), content)
                for entry, data in add:
                    entry.size = len(data)
                    target.addfile(_nameless(entry), io.BytesIO(data))
    blob = Blob(packed.digest, packed.size, LAYER)
    making.rename(blobs / blob.digest.removeprefix("sha256:"))
    return blob, plain.digest


def _nameless(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """The entry without the names of owners and times: those differ between machines."""
    entry.uname = entry.gname = ""
    entry.mtime = int(entry.mtime)
    # Only extended attributes (file capabilities) are content.
    entry.pax_headers = {
        key: value for key, value in entry.pax_headers.items() if key.startswith("SCHILY.xattr.")
    }
    return entry


class _Digesting:
    """A writable file that knows the digest and size of what went through it."""

    def __init__(self, target: IO[bytes] | gzip.GzipFile) -> None:
        self._target = target
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.size += len(data)
        self._target.write(data)
        return len(data)

    def flush(self) -> None:
        self._target.flush()

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def _write_json(blobs: Path, value: object, media_type: str) -> Blob:
    data = _json(value).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return Blob(f"sha256:{digest}", len(data), media_type)


async def pushed_digest(reference: str) -> str | None:
    """The digest that `reference` (host:port/name:tag, plain HTTP) has in its registry, if any."""
    import httpx

    host, name, tag = _split(reference)
    try:
        # `trust_env=False`: a proxy of the machine has no business on loopback.
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            answer = await client.head(
                f"http://{host}/v2/{name}/manifests/{tag}", headers={"Accept": MANIFEST}
            )
    except httpx.HTTPError:
        return None
    return answer.headers.get("Docker-Content-Digest") if answer.status_code == 200 else None


async def push(folder: Path, reference: str, *, progress: Progress = silent) -> str:
    """Push the image of the layout at `folder` to a registry on loopback, by plain HTTP.

    Returns:
        The digest of the pushed manifest.

    Raises:
        BuildonceError: the registry does not answer or refuses.
    """
    import httpx

    host, name, tag = _split(reference)
    digest = layout_digest(folder)
    manifest = _blob(folder, digest).read_bytes()
    described: dict[str, Any] = json.loads(manifest)
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            base = f"http://{host}/v2/{name}"
            for blob in (described["config"], *described["layers"]):
                await _push_blob(client, base, folder, blob, progress)
            answer = await client.put(
                f"{base}/manifests/{tag}", content=manifest, headers={"Content-Type": MANIFEST}
            )
            answer.raise_for_status()
    except httpx.HTTPStatusError as error:
        raise BuildonceError(
            f"the registry {host} refused {reference}: HTTP {error.response.status_code}",
            remedy="`buildonce registry status` names its log; free disk space if it is full",
        ) from error
    except httpx.HTTPError as error:
        raise BuildonceError(
            f"the registry {host} does not answer: {error}", remedy="type `buildonce registry up`"
        ) from error
    return digest


async def _push_blob(
    client: Any, base: str, folder: Path, blob: Mapping[str, Any], progress: Progress
) -> None:
    digest, size = str(blob["digest"]), int(blob["size"])
    if (await client.head(f"{base}/blobs/{digest}")).status_code == 200:
        return
    progress(f"pushing {size / 1e6:.1f} MB")
    start = await client.post(f"{base}/blobs/uploads/")
    start.raise_for_status()
    where = start.request.url.join(start.headers["Location"])
    answer = await client.put(
        where.copy_merge_params({"digest": digest}),
        content=_chunks(_blob(folder, digest)),
        headers={"Content-Type": "application/octet-stream", "Content-Length": str(size)},
    )
    answer.raise_for_status()


async def _chunks(file: Path) -> AsyncIterator[bytes]:
    async with await anyio.open_file(file, "rb") as opened:
        while chunk := await opened.read(_BLOCK):
            yield chunk


def _blob(folder: Path, digest: str) -> Path:
    return folder / "blobs" / "sha256" / digest.removeprefix("sha256:")


def _split(reference: str) -> tuple[str, str, str]:
    host, _, rest = reference.partition("/")
    name, _, tag = rest.rpartition(":")
    if not (host and name and tag):
        raise ValueError(f"host:port/name:tag is wanted, not {reference!r}")
    return host, name, tag
