"""Statements about an image, and the signed envelopes that carry them.

statement = Statement(predicates.CYCLONEDX, bom, name="sbom_image", created=now)
payload = statement.payload(image)             # in-toto Statement v1, JSON bytes
signed = envelope(payload, signature)          # DSSE, as cosign keeps and verifies it

What is signed of an envelope is its pre-authentication encoding (`encoding`), of an image's
signature the "simple signing" payload itself.

DSSE: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
in-toto: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from buildonce.release.descriptors import canonical, digest_of, parse_json
from buildonce.release.evidence import PublicKey
from buildonce.release.models import Image

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
_STATEMENTS = {STATEMENT, "https://in-toto.io/Statement/v0.1"}


@dataclass(frozen=True)
class Statement:
    """Something that is to be attested of an image.

    Args:
        type: predicate type, one of `buildonce.predicates`.
        predicate: its content.
        name: tells several of one type apart: "unit_tests".
        created: when it became known (UTC).
    """

    type: str
    predicate: Mapping[str, Any]
    name: str
    created: datetime

    @classmethod
    def parse(cls, type: str, text: str, *, name: str, created: datetime) -> Statement:
        """A statement of a predicate as JSON text.

        Raises:
            ValueError: the text is no JSON object.
        """
        try:
            predicate = json.loads(text)
        except RecursionError:
            predicate = None
        if not isinstance(predicate, dict):
            raise ValueError(f"the evidence {name} is no JSON object")
        return cls(type, predicate, name, created)

    def payload(self, image: Image) -> bytes:
        """The in-toto statement: what gets signed."""
        annotations = {"name": self.name, "created": self.created.astimezone(UTC).isoformat()}
        subject = {
            "name": image.repository,
            "digest": {"sha256": image.digest.removeprefix("sha256:")},
            "annotations": annotations,
        }
        return canonical(
            {
                "_type": STATEMENT,
                "subject": [subject],
                "predicateType": self.type,
                "predicate": dict(self.predicate),
            }
        )

    @property
    def content(self) -> tuple[str, str, str]:
        """What makes two statements say the same: type, name, digest of the predicate."""
        return self.type, self.name, digest_of(canonical(self.predicate))


@dataclass(frozen=True)
class Read:
    """A statement out of an envelope; nothing in it is verified.

    Args:
        subjects: the digests that it speaks of ("sha256:…").
    """

    type: str
    predicate: Mapping[str, Any]
    subjects: tuple[str, ...]
    name: str
    created: datetime | None


@dataclass(frozen=True)
class Envelope:
    """A DSSE envelope, taken apart.

    Args:
        signed: the bytes that its signatures are over.
        signatures: raw.
        statement: what it says, to be believed only after a signature was verified.
    """

    signed: bytes
    signatures: tuple[bytes, ...]
    statement: Read


def encoding(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: the bytes that a signature of an envelope is over."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def envelope(payload: bytes, signature: str) -> bytes:
    """The envelope of a payload with its one signature (base64), as cosign writes it."""
    content = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": "", "sig": signature}],
    }
    return json.dumps(content, separators=(",", ":")).encode()


def read_envelope(data: bytes) -> Envelope:
    """Take an envelope apart.

    Raises:
        ValueError: it is none with an in-toto statement.
    """
    try:
        content = parse_json(data)
        if content["payloadType"] != PAYLOAD_TYPE:
            raise ValueError("it does not carry an in-toto statement")
        payload = base64.b64decode(content["payload"], validate=True)
        signatures = tuple(
            base64.b64decode(entry["sig"], validate=True) for entry in content["signatures"]
        )
        return Envelope(encoding(payload), signatures, read_statement(payload))
    except (KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise ValueError(f"it is no envelope: {type(error).__name__}") from None


def read_statement(payload: bytes) -> Read:
    """Read an in-toto statement.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    content = parse_json(payload)
    if content["_type"] not in _STATEMENTS:
        raise ValueError("its statement is of a version that is not known")
    subjects: list[str] = []
    annotations: dict[str, object] = {}
    for subject in content["subject"]:
        digest = subject["digest"].get("sha256")
        if isinstance(digest, str):
            subjects.append(f"sha256:{digest}")
        annotations = subject.get("annotations") or annotations
    predicate = content["predicate"]
    if not isinstance(predicate, dict) or not isinstance(content["predicateType"], str):
        raise ValueError("its predicate is no object")
    return Read(
        type=content["predicateType"],
        predicate=predicate,
        subjects=tuple(subjects),
        name=str(annotations.get("name", "")),
        created=_time(annotations.get("created")),
    )


def signing_payload(image: Image, annotations: Mapping[str, str]) -> bytes:
    """What a signature on an image is over: the "simple signing" payload, as cosign writes it."""
    return canonical(
        {
            "critical": {
                "identity": {"docker-reference": image.repository},
                "image": {"docker-manifest-digest": image.digest},
                "type": "cosign container image signature",
            },
            "optional": dict(annotations) or None,
        }
    )


def read_signing_payload(data: bytes) -> tuple[str, dict[str, str]]:
    """The digest that a signature's payload names, and its annotations.

    Raises:
        ValueError: it is none.
    """
    try:
        content = parse_json(data)
        digest = content["critical"]["image"]["docker-manifest-digest"]
        optional = content.get("optional") or {}
        if content["critical"]["type"] != "cosign container image signature":
            raise ValueError("it is not a signature of an image")
        if not isinstance(digest, str) or not isinstance(optional, dict):
            raise ValueError("it names no digest")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it is no signature: {type(error).__name__}") from None
    return digest, {str(key): str(value) for key, value in optional.items()}


def signer_of(
    signed: bytes, signatures: Sequence[bytes], keys: Sequence[PublicKey]
) -> PublicKey | None:
    """The first of the keys that made one of the signatures over these bytes; None: none did."""
    for key in keys:
        for signature in signatures:
            if _verifies(key, signature, signed):
                return key
    return None


@lru_cache(maxsize=64)
def _loaded(pem: str) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    return load_pem_public_key(pem.encode())


def _verifies(key: PublicKey, signature: bytes, signed: bytes) -> bool:
    """As cosign does: SHA-256; ECDSA in ASN.1, RSA with PKCS #1 v1.5, Ed25519."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    from cryptography.hazmat.primitives.hashes import SHA256

    loaded = _loaded(key.pem)
    try:
        match loaded:
            case ec.EllipticCurvePublicKey():
                loaded.verify(signature, signed, ec.ECDSA(SHA256()))
            case rsa.RSAPublicKey():
                loaded.verify(signature, signed, padding.PKCS1v15(), SHA256())
            case ed25519.Ed25519PublicKey():
                loaded.verify(signature, signed)
            case _:
                return False
    except InvalidSignature:
        return False
    return True


def _time(text: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(text) if isinstance(text, str) else None
        return time.astimezone(UTC) if time is not None and time.tzinfo else None
    except (ValueError, OverflowError):  # of the latter: the last day of the year 9999, far west
        return None
