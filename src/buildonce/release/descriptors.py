"""What a registry keeps: descriptors and manifests (OCI image specification 1.1, and Docker's v2).

manifest = Manifest.parse(data, "application/vnd.oci.image.manifest.v1+json")
manifest.digest            # of exactly these bytes
manifest.layers, manifest.children, manifest.subject
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
EMPTY: Final = "application/vnd.oci.empty.v1+json"

MANIFESTS: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES: Final = frozenset({OCI_INDEX, DOCKER_INDEX})

DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_MANY = 10_000  # entries of one manifest; what has more is meant to do harm


def digest_of(data: bytes) -> str:
    """ "sha256:…" of the bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def canonical(value: object) -> bytes:
    """The value as JSON bytes that depend on nothing but the value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class TwoReadings(ValueError):
    """JSON that means one thing to one reader and another thing to the next."""


def parse_json(data: bytes | str) -> Any:
    """JSON that every reader reads alike: where a key stands twice, some take the first of the two
    and some the last, and the one who verifies must not see another thing than the one who uses it.

    Raises:
        TwoReadings: a key stands twice.
        ValueError: it is no JSON.
    """
    try:
        return json.loads(data, object_pairs_hook=_each_once)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise TwoReadings(f"it has the key {twice[:80]!r} twice, so it can be read in two ways")
    return content


@dataclass(frozen=True)
class Descriptor:
    """Something in a registry: what kind, which digest, how many bytes.

    Raises:
        ValueError: the digest or the size is none.
    """

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: str = ""
    artifact_type: str = ""

    def __post_init__(self) -> None:
        if not DIGEST.fullmatch(self.digest):
            raise ValueError(f"{self.digest[:80]!r} is no sha256 digest")
        if self.size < 0:
            raise ValueError(f"{self.size} is no size")

    @classmethod
    def of(
        cls, data: bytes, media_type: str, annotations: Mapping[str, str] | None = None
    ) -> Descriptor:
        """The descriptor of these bytes."""
        return cls(media_type, digest_of(data), len(data), dict(annotations or {}))

    @classmethod
    def parse(cls, data: object) -> Descriptor:
        """Read a descriptor out of a manifest.

        Raises:
            ValueError: it is none.
        """
        if not isinstance(data, dict):
            raise ValueError("a descriptor is not an object")
        digest, size = data.get("digest"), data.get("size")
        if not isinstance(digest, str) or not isinstance(size, int) or isinstance(size, bool):
            raise ValueError("a descriptor has no digest or no size")
        annotations = data.get("annotations") or {}
        if not isinstance(annotations, dict):
            raise ValueError("a descriptor's annotations are not an object")
        return cls(
            media_type=str(data.get("mediaType", "")),
            digest=digest,
            size=size,
            annotations={str(key): str(value) for key, value in annotations.items()},
            platform=_platform(data.get("platform")),
            artifact_type=str(data.get("artifactType", "")),
        )

    def to_json(self) -> dict[str, Any]:
        """As a manifest holds it."""
        data: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
        }
        if self.artifact_type:
            data["artifactType"] = self.artifact_type
        if self.annotations:
            data["annotations"] = dict(self.annotations)
        return data


@dataclass(frozen=True)
class Manifest:
    """A manifest or an index, with the bytes that its digest is of.

    Attributes:
        data: the bytes.
        media_type: one of the four that are known.
        digest: of the bytes.
        content: the JSON object.
        layers: blobs of a manifest, without its configuration; empty for an index.
        config: the configuration's blob; None for an index.
        children: manifests of an index; empty for a manifest.
        subject: the manifest that this one is about; None for an image.
    """

    data: bytes
    media_type: str
    digest: str
    content: Mapping[str, Any]
    layers: tuple[Descriptor, ...] = ()
    config: Descriptor | None = None
    children: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None

    @classmethod
    def parse(cls, data: bytes, media_type: str) -> Manifest:
        """Read a manifest.

        Args:
            data: its bytes.
            media_type: what the registry calls it; "" to go by its own words.

        Raises:
            ValueError: it is none, is two things at once, or is of a kind that is not known.
        """
        try:
            content = parse_json(data)
        except TwoReadings:
            raise
        except ValueError:
            raise ValueError("it is not JSON") from None
        if not isinstance(content, dict) or content.get("schemaVersion") != 2:
            raise ValueError("it is no manifest of schema version 2")
        own = content.get("mediaType") or media_type
        # Whoever reads one as the other sees another image under the same digest (CVE-2021-41190).
        if media_type and own != media_type:
            raise ValueError(f"it calls itself {own!r} and was sent as {media_type!r}")
        if own not in MANIFESTS | INDEXES:
            raise ValueError(f"{str(own)[:80]!r} is no kind of manifest that is known")
        if (own in INDEXES) == ("layers" in content or "config" in content) or (
            own in MANIFESTS and "manifests" in content
        ):
            raise ValueError("it is an index and an image at once, or neither")
        layers, children = content.get("layers", []), content.get("manifests", [])
        if not isinstance(layers, list) or not isinstance(children, list):
            raise ValueError("its entries are no list")
        if len(layers) + len(children) > _MANY:
            raise ValueError(f"it has more than {_MANY} entries")
        subject = content.get("subject")
        return cls(
            data=data,
            media_type=own,
            digest=digest_of(data),
            content=content,
            layers=tuple(map(Descriptor.parse, layers)),
            config=Descriptor.parse(content.get("config")) if own in MANIFESTS else None,
            children=tuple(map(Descriptor.parse, children)),
            subject=Descriptor.parse(subject) if subject is not None else None,
        )

    @property
    def is_index(self) -> bool:
        return self.media_type in INDEXES

    @property
    def artifact_type(self) -> str:
        """What kind of artifact it is, as the referrers list tells it."""
        own = self.content.get("artifactType")
        return str(own or (self.config.media_type if self.config else ""))

    @property
    def annotations(self) -> dict[str, str]:
        found = self.content.get("annotations")
        return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.media_type, self.digest, len(self.data))


def _platform(data: object) -> str:
    if not isinstance(data, dict):
        return ""
    parts = (data.get(name) for name in ("os", "architecture", "variant"))
    return "/".join(str(part) for part in parts if part)
