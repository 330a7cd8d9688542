"""`[signing]`: with which key a release is signed, and what that tells others.

    [signing]                                   # left out: a key of this machine, made on first use
    key = "file:keys/release.key"               # COSIGN_PASSWORD has its password
    key = "awskms:///alias/release"             # the key never leaves AWS
    public_key = "keys/release.pub"             # needed with KMS: who verifies needs no AWS
    key = "keyless"                             # the CI's own identity, by Sigstore
    identity = { issuer = "https://…", subject = "https://…" }

Nothing is sent to a transparency log unless `transparency_log = true`, or the key is "keyless",
which is nothing without one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from buildonce.config.base import Table

LOCAL = "local"
KEYLESS = "keyless"


class SignerIdentity(Table):
    """Who signs without a key.

    Attributes:
        issuer: the OpenID Connect issuer, exactly.
        subject: what the certificate names, exactly; with ^ in front, an expression.
    """

    issuer: Annotated[str, Field(pattern="^https://")]
    subject: Annotated[str, Field(min_length=1)]


class SigningConfig(Table):
    """How releases are signed.

    Attributes:
        key: "local", "file:PATH", "awskms://…" or "keyless".
        public_key: the public half, relative to the configuration; beside a key file it is found.
        identity: who signs, when keyless.
        transparency_log: also write signatures into Sigstore's public log.
    """

    key: Annotated[str, Field(pattern=r"^(local|keyless|file:.+|awskms://.+)$")] = LOCAL
    public_key: Path | None = None
    identity: SignerIdentity | None = None
    transparency_log: bool = False

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.key.startswith("awskms:") and self.public_key is None:
            raise ValueError(
                "signing.public_key: a KMS key needs its public half as a file, so that verifying "
                f"needs no AWS: cosign public-key --key {self.key} > release.pub"
            )
        if (self.key == KEYLESS) != (self.identity is not None):
            raise ValueError('signing.identity: belongs to key = "keyless", and only to it')
        return self
