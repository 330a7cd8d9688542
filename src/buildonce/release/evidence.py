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
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from buildonce.release.models import Image

if TYPE_CHECKING:
    from buildonce.release.registry import Registry

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
        name: tells several of one type apart: "sbom_image", "unit_tests"; "" where none was given.
        created: when it became known, as the signer says (UTC); None where it was not said.
    """

    type: str
    predicate: Mapping[str, Any]
    subject: str
    signed_by: str
    digest: str = ""
    name: str = ""
    created: datetime | None = None


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

    Attestations are in the order of the times that their signers gave (those without any first), so
    nobody who can write to the registry can make an old one look newer.
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


async def read_evidence(image: Image, trust: Trust, *, registry: Registry) -> Verified:
    """Read and verify what lies beside an image.

    Args:
        image: by digest; the registry is that of its repository.
        trust: whose signatures count.
        registry: the client to read with.

    Raises:
        EvidenceUnavailable: the registry did not give a whole answer, so nothing is known.
    """
    from buildonce.release.attached import ATTESTATIONS, SIGNATURES, read_attached
    from buildonce.release.errors import EvidenceUnavailable, RegistryError
    from buildonce.release.parallel import each
    from buildonce.release.verifying import verify_attestation, verify_signature

    try:
        found_signatures, found_attestations = await each(
            lambda kind: read_attached(registry, image, kind), (SIGNATURES, ATTESTATIONS)
        )
    except RegistryError as error:
        raise EvidenceUnavailable(
            f"the evidence of {image.reference} could not be read, so it counts for nothing: "
            f"{error.message}",
            remedy=error.remedy,
        ) from None
    signatures = [verify_signature(item, image, trust) for item in found_signatures]
    attestations = [verify_attestation(item, image, trust) for item in found_attestations]
    if trust.identities:
        from buildonce.release.keyless import verify_keyless

        signatures, attestations = await verify_keyless(
            image, trust, found_signatures, found_attestations, signatures, attestations
        )
    results = [*signatures, *attestations]
    beginning = datetime.min.replace(tzinfo=UTC)
    return Verified(
        image=image,
        signatures=tuple(item for item in signatures if isinstance(item, Signature)),
        attestations=tuple(
            sorted(
                (item for item in attestations if isinstance(item, Attestation)),
                key=lambda item: item.created or beginning,
            )
        ),
        refused=tuple(item for item in results if isinstance(item, Refused)),
    )
