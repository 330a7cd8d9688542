"""Signed words: a person's yes or no on one digest in one environment, that nobody else can write.

    signer = find_signer(config.approvers, key=None, user="ann")
    signed = signer.sign(statement)
    verified(signed, approvers=config.approvers)          # the statement, or BadSignature

A word is an in-toto statement in a DSSE envelope, signed with Ed25519: with the approver's own SSH
key, whose public half is under [approvers], or, where nobody is listed, with a key that this
machine's user keeps. Why this and not a signing service: docs/decisions/0009-approvals.md.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from buildonce import places
from buildonce.delivery.errors import DeliveryError

PREDICATE_TYPE = "urn:buildonce:approval:v1"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_KEY_VARIABLE = "BUILDONCE_APPROVAL_KEY"


class BadSignature(DeliveryError):
    """A word that was not signed by whom it names, or says something else than it seems to."""


@dataclass(frozen=True)
class Statement:
    """What is signed.

    Attributes:
        given: yes; False is no.
        project, environment, digest, version: about what.
        actor: whose word it is.
        at, until: when it was given, and until when it counts (UTC).
        rollout: of this rollout only: an answer to its question.
        reason: for people.
    """

    given: bool
    project: str
    environment: str
    digest: str
    version: str
    actor: str
    at: datetime
    until: datetime
    rollout: str | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As an in-toto statement."""
        return {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [
                {
                    "name": self.version,
                    "digest": {"sha256": self.digest.removeprefix("sha256:")},
                }
            ],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "approved": self.given,
                "project": self.project,
                "environment": self.environment,
                "actor": self.actor,
                "at": self.at.isoformat(),
                "until": self.until.isoformat(),
                "rollout": self.rollout,
                "reason": self.reason,
            },
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Statement:
        """Read what `to_json` wrote; KeyError, TypeError or ValueError when it is not that."""
        if data["predicateType"] != PREDICATE_TYPE:
            raise ValueError(f"it is of type {data['predicateType']!r}")
        (subject,) = data["subject"]
        predicate = data["predicate"]
        return cls(
            given=predicate["approved"] is True,
            project=predicate["project"],
            environment=predicate["environment"],
            digest=f"sha256:{subject['digest']['sha256']}",
            version=subject["name"],
            actor=predicate["actor"],
            at=datetime.fromisoformat(predicate["at"]),
            until=datetime.fromisoformat(predicate["until"]),
            rollout=predicate["rollout"],
            reason=predicate["reason"],
        )


@dataclass(frozen=True)
class Signer:
    """Somebody with a private key."""

    actor: str
    key: Ed25519PrivateKey

    def sign(self, statement: Statement) -> dict[str, Any]:
        """The DSSE envelope of the statement."""
        payload = json.dumps(statement.to_json(), sort_keys=True).encode()
        signature = self.key.sign(_to_be_signed(payload))
        return {
            "payloadType": _PAYLOAD_TYPE,
            "payload": base64.b64encode(payload).decode(),
            "signatures": [
                {
                    "keyid": fingerprint(self.key.public_key()),
                    "sig": base64.b64encode(signature).decode(),
                }
            ],
        }


def verified(envelope: Mapping[str, Any], *, approvers: Mapping[str, str]) -> Statement:
    """The statement, once the key of the person that it names has signed it.

    Args:
        envelope: as `Signer.sign` made it; nothing of it is believed.
        approvers: public keys by name; empty means this machine's own key.

    Raises:
        BadSignature: it is not what it says.
    """
    try:
        payload = base64.b64decode(envelope["payload"], validate=True)
        (signature,) = envelope["signatures"]
        sealed = base64.b64decode(signature["sig"], validate=True)
        if envelope["payloadType"] != _PAYLOAD_TYPE:
            raise ValueError(f"its payload is {envelope['payloadType']!r}")
        statement = Statement.from_json(json.loads(payload))
    except (KeyError, TypeError, ValueError) as error:
        raise BadSignature(f"an approval cannot be read: {error}") from error
    if approvers:
        known = approvers.get(statement.actor)
        key = _public(known) if known else None
    else:
        key = _machine_key().public_key() if _machine_key_path().exists() else None
    if key is None:
        raise BadSignature(f"there is no key of {statement.actor} to verify an approval with")
    try:
        key.verify(sealed, _to_be_signed(payload))
    except InvalidSignature:
        raise BadSignature(
            f"an approval in the name of {statement.actor} is not signed with the key of "
            f"{statement.actor}"
        ) from None
    return statement


def find_signer(approvers: Mapping[str, str], *, key: Path | None, user: str) -> Signer:
    """Who signs here.

    Args:
        approvers: public keys by name; empty means this machine's own key, in the user's name.
        key: the private key; None takes $BUILDONCE_APPROVAL_KEY, then ~/.ssh/id_ed25519.
        user: the name of the user.

    Raises:
        DeliveryError: there is no such key, or it is nobody's under [approvers].
    """
    if not approvers:
        return Signer(user, _machine_key())
    path = key or Path(os.environ.get(_KEY_VARIABLE) or "~/.ssh/id_ed25519")
    private = _private(path.expanduser())
    mine = fingerprint(private.public_key())
    for name, text in approvers.items():
        if fingerprint(_public(text)) == mine:
            return Signer(name, private)
    raise DeliveryError(
        f"the key {path} ({mine}) belongs to none of {', '.join(approvers)}",
        remedy=f"give the private key of an approver with --key or {_KEY_VARIABLE}, or add its "
        ".pub under [approvers] in pipeline.toml",
    )


def fingerprint(key: Ed25519PublicKey) -> str:
    """As `ssh-keygen -l` says it: "SHA256:…"."""
    raw = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(base64.b64decode(raw.split()[1]))
    return "SHA256:" + base64.b64encode(digest.finalize()).decode().rstrip("=")


def _to_be_signed(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    kind = _PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _public(text: str) -> Ed25519PublicKey:
    try:
        key = serialization.load_ssh_public_key(text.encode())
    except ValueError as error:
        raise DeliveryError(
            f"a key under [approvers] cannot be read: {error}",
            remedy="copy the line of the .pub file that `ssh-keygen -t ed25519` wrote",
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise DeliveryError("a key under [approvers] is no Ed25519 key")
    return key


def _private(path: Path) -> Ed25519PrivateKey:
    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise DeliveryError(
            f"the private key {path} cannot be read: {error}",
            remedy=f"give one without a passphrase with --key or {_KEY_VARIABLE}; "
            "`ssh-keygen -t ed25519 -f FILE` makes one",
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise DeliveryError(f"{path} is no Ed25519 key", remedy="ssh-keygen -t ed25519 -f FILE")
    return key


def _machine_key_path() -> Path:
    return places.home() / "keys" / "approvals_ed25519"


def _machine_key() -> Ed25519PrivateKey:
    """This machine's key for approvals; made on first use."""
    path = _machine_key_path()
    if path.exists():
        return _private(path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
    try:
        os.link(scratch, path)  # whoever comes first has made it
    except FileExistsError:
        pass
    finally:
        scratch.unlink()
    return _private(path)
