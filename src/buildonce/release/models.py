"""The data of a release: every field is checked when it is made, so a wrong one cannot exist."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Self

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REVISION = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class Image:
    """A container image by its digest: what a tag names may move, this may not.

    Args:
        repository: registry host, port and name: "127.0.0.1:5080/dashboard".
        digest: "sha256:" and 64 lower-case hexadecimal digits.

    Raises:
        ValueError: the digest is not one, or the repository carries a tag or a digest.
    """

    repository: str
    digest: str

    def __post_init__(self) -> None:
        if not _DIGEST.fullmatch(self.digest):
            raise ValueError(f"not an image digest: {self.digest!r}")
        name = self.repository.rpartition("/")[2]
        if not name or "/" not in self.repository or ":" in name or "@" in self.repository:
            raise ValueError(f"not an image repository: {self.repository!r}")

    @classmethod
    def from_reference(cls, reference: str) -> Self:
        """Read "repository@sha256:…" or "repository:tag@sha256:…"; the tag is dropped.

        Raises:
            ValueError: there is no digest in it.
        """
        repository, _, digest = reference.partition("@")
        registry, slash, name = repository.rpartition("/")
        return cls(f"{registry}{slash}{name.partition(':')[0]}", digest)

    @property
    def reference(self) -> str:
        """What container tools take: "repository@sha256:…"."""
        return f"{self.repository}@{self.digest}"

    @property
    def short(self) -> str:
        """The first 12 digits of the digest, for people."""
        return self.digest.removeprefix("sha256:")[:12]


@dataclass(frozen=True)
class Release:
    """What is promoted: one commit, and the image that was built from it once.

    Args:
        version: readable and sortable: "2026.11.21+g1a2b3c4".
        revision: the full commit hash.
        image: the artifact.
        created: when the release was cut (UTC).
        configuration: `Config.digest` of the pipeline that cut it.

    Raises:
        ValueError: a field is not what it says.
    """

    version: str
    revision: str
    image: Image
    created: datetime
    configuration: str

    def __post_init__(self) -> None:
        if not self.version or any(c.isspace() for c in self.version):
            raise ValueError(f"not a version: {self.version!r}")
        if not _REVISION.fullmatch(self.revision):
            raise ValueError(f"not a commit hash: {self.revision!r}")
        if not _DIGEST.fullmatch(self.configuration):
            raise ValueError(f"not a configuration digest: {self.configuration!r}")
        if self.created.tzinfo is None:
            raise ValueError("`created` has no time zone")
        object.__setattr__(self, "created", self.created.astimezone(UTC))

    def to_json(self) -> dict[str, Any]:
        """As JSON data; keys as in the ledger's `release.created`, and `created`."""
        return {
            "version": self.version,
            "revision": self.revision,
            "repository": self.image.repository,
            "digest": self.image.digest,
            "created": self.created.isoformat(),
            "configuration": self.configuration,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read what `to_json` wrote; keys it does not know are left alone.

        Raises:
            KeyError: a key is missing.
            ValueError: a field is not what it says.
        """
        return cls(
            version=data["version"],
            revision=data["revision"],
            image=Image(data["repository"], data["digest"]),
            created=datetime.fromisoformat(data["created"]),
            configuration=data["configuration"],
        )


@dataclass(frozen=True)
class Listed:
    """A piece of evidence as the release record lists it.

    Args:
        digest: of the signed envelope: `Attestation.digest`.
        type: predicate type.
        name: tells several of one type apart.
    """

    digest: str
    type: str
    name: str


@dataclass(frozen=True)
class Record:
    """The signed release record, as it was found in a registry and verified.

    Args:
        release: what was released; its image's repository is the one where it was found.
        evidence: what was attested when the release was cut; more may have come since.
        platforms: digest of each platform's image ("linux/arm64"); empty for a single image.
        source: address of the source repository, without credentials; "" where it has none.
        run: id of the run that cut it.
        committed: the commit's date (UTC).
        digest: of the record itself in the registry.
        signed_by: who signed the record.
    """

    release: Release
    evidence: tuple[Listed, ...] = ()
    platforms: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    run: str = ""
    committed: datetime | None = None
    digest: str = ""
    signed_by: str = ""

    def to_json(self) -> dict[str, Any]:
        """What is kept and signed; where it is kept and who signed it is no part of it."""
        return {
            "schema": 1,
            **self.release.to_json(),
            "platforms": dict(self.platforms),
            "source": self.source,
            "run": self.run,
            "committed": self.committed.isoformat() if self.committed else None,
            "evidence": [
                {"digest": item.digest, "type": item.type, "name": item.name}
                for item in self.evidence
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, repository: str) -> Self:
        """Read what `to_json` wrote, found in `repository`.

        Raises:
            KeyError, TypeError, ValueError: it is no record that this version understands.
        """
        if data["schema"] != 1:
            raise ValueError(f"it has the schema {data['schema']!r}, which is not known")
        release = Release.from_json(dict(data))
        committed = data["committed"]
        return cls(
            release=replace(release, image=Image(repository, release.image.digest)),
            evidence=tuple(
                Listed(str(item["digest"]), str(item["type"]), str(item["name"]))
                for item in data["evidence"]
            ),
            platforms={str(name): str(digest) for name, digest in data["platforms"].items()},
            source=str(data["source"]),
            run=str(data["run"]),
            committed=datetime.fromisoformat(committed) if committed else None,
        )
