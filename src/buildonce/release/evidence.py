"""What is known of an image and by whom it was signed: signatures and attestations, verified.

    trust = Trust.from_files([Path("release.pub")])
    verified = await read_evidence(image, trust, registry=registry)
    verified.signatures                            # by keys of `trust`, over this very digest
    verified.of_type(predicates.CYCLONEDX)         # as many as there are, oldest first
    verified.refused                               # what is there and must not be believed, and why

Nothing of an attestation reaches the caller before its signature was checked with a key of the
trust root and its subject was compared with the digest that was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from buildonce.release.models import Image

Cause = Literal["other-key", "other-digest", "altered", "unreadable"]


@dataclass(frozen=True)
class Identity:
    """A keyless signer: who, according to whom.

    Args:
        issuer: the OpenID Connect issuer, exactly: "https://token.actions.githubusercontent.com".
        subject: what its certificate must name, exactly; with ^ in front, an expression.
    """

    issuer: str
    subject: str


@dataclass(frozen=True)
class PublicKey:
    """A public key that signs.

    Args:
        pem: the key, as PEM.
        fingerprint: "sha256:" and the SHA-256 of its DER form: what `signed_by` says.
        origin: where it was read, for messages.
    """

    pem: str
    fingerprint: str
    origin: str = ""


@dataclass(frozen=True)
class Trust:
    """Whose signatures count: any of the keys, or any of the identities.

    Args:
        keys: public keys.
        identities: keyless signers; these are verified by cosign with Sigstore's trust root.
        transparency_log: keyless signatures must be in the transparency log.
    """

    keys: tuple[PublicKey, ...] = ()
    identities: tuple[Identity, ...] = ()
    transparency_log: bool = False

    @classmethod
    def from_files(cls, paths: Sequence[Path]) -> Trust:
        """The trust root of public key files (PEM).

        Raises:
            BuildonceError: a file cannot be read or holds no public key.
        """
        from buildonce.release.keys import read_public_key

        return cls(keys=tuple(read_public_key(path) for path in paths))


@dataclass(frozen=True)
class Signature:
    """A verified signature over the image's digest.

    Args:
        signed_by: fingerprint of the key, or "issuer subject" of a keyless signer.
        annotations: what the signer signed beside the digest: {"revision": ...}.
        digest: of the signed payload in the registry.
    """

    signed_by: str
    annotations: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""


@dataclass(frozen=True)
class Attestation:
    """A verified in-toto attestation on the image's digest.

    Args:
        type: predicate type, one of `buildonce.predicates`.
        predicate: its content.
        subject: the digest that it speaks of; always that of the image asked for.
        signed_by: fingerprint of the key, or "issuer subject" of a keyless signer.
        digest: of the signed envelope in the registry: evidence is named by it.
        name: tells several of one type apart: "sbom-image", "unit_tests"; "" where none was given.
    """

    type: str
    predicate: Mapping[str, Any]
    subject: str
    signed_by: str
    digest: str = ""
    name: str = ""


@dataclass(frozen=True)
class Refused:
    """Something that lies beside the image and is not to be believed.

    Args:
        what: "signature" or "attestation".
        cause: signed by another key; over another digest; changed after it was signed; no
            signature or attestation at all.
        message: one sentence for people.
        type: the predicate type that it claims, unverified; "" where it claims none.
        digest: of the blob in the registry.
    """

    what: Literal["signature", "attestation"]
    cause: Cause
    message: str
    type: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Verified:
    """What was found on an image. An empty `signatures` means: not signed by anybody trusted.

    Attestations are in the order in which they were added: of two with one type and name, the
    later one is the newer.
    """

    image: Image
    signatures: tuple[Signature, ...] = ()
    attestations: tuple[Attestation, ...] = ()
    refused: tuple[Refused, ...] = ()

    def of_type(self, predicate_type: str) -> tuple[Attestation, ...]:
        """The attestations of a type, oldest first."""
        return tuple(item for item in self.attestations if item.type == predicate_type)

    def newest(self) -> tuple[Attestation, ...]:
        """The attestations without those that a later one of the same type and name replaces."""
        latest = {(item.type, item.name): item for item in self.attestations}
        return tuple(item for item in self.attestations if latest[item.type, item.name] is item)
