"""Somebody who approves releases, and may think better of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from buildonce.delivery.statements import Signer, Statement
from buildonce.release import Release


class Approver:
    """With a key of their own."""

    def __init__(self, name: str = "ann") -> None:
        key = Ed25519PrivateKey.generate()
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        self.approvers = {name: public.decode()}
        self._signer = Signer(name, key)

    def word(
        self, what: Release, where: str, *, given: bool, now: datetime
    ) -> tuple[str, dict[str, Any]]:
        """Kind and data of the ledger's event, as `buildonce approve` or `reject` write it."""
        statement = Statement(
            given=given,
            project="shop",
            environment=where,
            digest=what.image.digest,
            version=what.version,
            actor=self._signer.actor,
            at=now,
            until=now + timedelta(days=7),
        )
        data = {
            "environment": where,
            "actor": statement.actor,
            "version": what.version,
            "digest": what.image.digest,
            "rollout": None,
            "reason": None,
            "expires": statement.until.isoformat(),
            "envelope": self._signer.sign(statement),
        }
        return "approval.given" if given else "approval.refused", data
