"""What cosign keeps beside an image: one manifest of signatures, one of attestations.

They are named by tags made of the image's digest, `sha256-<hex>.sig` and `.att`; each layer is one
signature or attestation. The layout is cosign's own (its "legacy" format, which any registry
takes), so `cosign verify` reads what is written here and this reads what `cosign sign` wrote.

    items = await read_attached(registry, image, ATTESTATIONS)
    await attach(registry, image, ATTESTATIONS, new)        # adds, never replaces
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio

from buildonce import places
from buildonce.release.descriptors import (
    OCI_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    canonical,
    digest_of,
)
from buildonce.release.errors import Absent, Corrupt, RegistryError
from buildonce.release.models import Image
from buildonce.release.parallel import each
from buildonce.release.registry import Registry
from buildonce.toolchain.locks import locked

SIGNATURES: Final = "sig"
ATTESTATIONS: Final = "att"
SIGNATURE_TYPE: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
ENVELOPE_TYPE: Final = "application/vnd.dsse.envelope.v1+json"
SIGNATURE_ANNOTATION: Final = "dev.cosignproject.cosign/signature"
KEY_ANNOTATION: Final = "buildonce.signed-by"  # a hint for messages; nothing relies on it

_MOST_ITEMS = 1000  # as cosign
_MOST_BYTES = 256 << 20
_ATTEMPTS = 10


@dataclass(frozen=True)
class Attached:
    """A signature or an attestation as it lies in the registry, unverified."""

    data: bytes
    media_type: str
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return digest_of(self.data)

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor.of(self.data, self.media_type, self.annotations)

    @property
    def identity(self) -> tuple[str, str]:
        """Two signatures by two keys are over the same bytes: the annotation tells them apart."""
        return self.digest, self.annotations.get(SIGNATURE_ANNOTATION, "")


def attached_tag(digest: str, kind: str) -> str:
    """The tag of what cosign keeps beside a manifest: "sha256-<hex>.sig"."""
    return f"{digest.replace(':', '-')}.{kind}"


async def read_attached(registry: Registry, image: Image, kind: str) -> list[Attached]:
    """All that lies beside an image, in the order in which it was added; empty when nothing does.

    Raises:
        RegistryError: it could not be read whole.
    """
    manifest = await _manifest(registry, image, kind)
    layers = manifest.layers if manifest else ()
    if len(layers) > _MOST_ITEMS or sum(layer.size for layer in layers) > _MOST_BYTES:
        raise RegistryError(f"too much lies beside {image.reference} to be looked through")

    async def read(layer: Descriptor) -> Attached:
        data = await registry.blob(image.repository, layer)
        return Attached(data, layer.media_type, layer.annotations)

    return await each(read, layers)


async def attach(registry: Registry, image: Image, kind: str, new: Sequence[Attached]) -> None:
    """Lay signatures or attestations beside an image, next to those that are there.

    Registries cannot compare and swap: of two that write at once one may be lost. On one machine a
    lock prevents it; else it is seen, because what was written is read again, and mended.

    Raises:
        RegistryError: it was not accepted, or was overwritten again and again.
    """
    if not new:
        return
    lock = places.cache() / "locks" / f"evidence-{image.digest[7:]}.{kind}.lock"
    async with locked(lock):
        await each(lambda i: registry.push_blob(image.repository, i.data, i.media_type), new)
        for attempt in range(_ATTEMPTS):
            before = await _manifest(registry, image, kind)
            there = list(before.layers) if before else []
            known = {(d.digest, d.annotations.get(SIGNATURE_ANNOTATION, "")) for d in there}
            missing = [item for item in new if item.identity not in known]
            if not missing:
                return
            if attempt:  # somebody else writes at this very time
                await anyio.sleep(random.uniform(0.05, 0.2) * attempt)  # noqa: S311
            await _write(registry, image, kind, [*there, *(i.descriptor for i in missing)])
    raise RegistryError(
        f"what is laid beside {image.reference} is overwritten by somebody else again and again",
        remedy="let one pipeline sign an image at a time, then run this one again",
    )


async def _manifest(registry: Registry, image: Image, kind: str) -> Manifest | None:
    tag = attached_tag(image.digest, kind)
    try:
        found = await registry.manifest(image.repository, tag)
    except Absent:
        return None
    if found.is_index:
        raise Corrupt(f"{image.repository}:{tag} is an index, and evidence is never kept in one")
    return found


async def _write(registry: Registry, image: Image, kind: str, layers: Sequence[Descriptor]) -> None:
    config = await registry.push_blob(image.repository, _config(layers), OCI_CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    await registry.push_manifest(
        image.repository,
        canonical(manifest),
        OCI_MANIFEST,
        tag=attached_tag(image.digest, kind),
    )


def _config(layers: Sequence[Descriptor]) -> bytes:
    """The image configuration that cosign gives such a manifest."""
    never = "0001-01-01T00:00:00Z"
    return canonical(
        {
            "architecture": "",
            "config": {},
            "created": never,
            "history": [{"created": never} for _ in layers],
            "os": "",
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
        }
    )
