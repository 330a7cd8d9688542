"""Keys: the machine's own pair, made on first use, and reading public ones.

    pair = await machine_key("dashboard", say=print)
    pair.private, pair.public, pair.password()
    read_public_key(Path("release.pub")).fingerprint

A pair lies in `places.home()/keys/<project>/`, a folder that only its owner reads. The private key
is encrypted; its password stands beside it, because a pipeline runs unattended: what protects the
key is the folder. For more than one machine use a key file of your own, KMS, or keyless signing.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import anyio

from buildonce import places
from buildonce.config import Config
from buildonce.config.signing import KEYLESS, LOCAL
from buildonce.errors import BuildonceError
from buildonce.release.errors import Refusal
from buildonce.release.evidence import Identity, PublicKey, Trust
from buildonce.toolchain.locks import locked
from buildonce.toolchain.whole import whole_folder, write_whole

PASSWORD_VARIABLE = "COSIGN_PASSWORD"  # noqa: S105 - the name of a variable

Say = Callable[[str], None]


class NothingTrusted(Refusal):
    """There is no public key yet that could verify a release."""


@dataclass(frozen=True)
class KeyPair:
    """Files of a key pair.

    Args:
        private: the encrypted private key, as cosign makes it.
        public: the public key (PEM).
        password_file: has the private key's password; None: it is in COSIGN_PASSWORD.
    """

    private: Path
    public: Path
    password_file: Path | None = None

    def password(self) -> str:
        """The private key's password.

        Raises:
            BuildonceError: there is none.
        """
        if self.password_file is not None:
            return self.password_file.read_text("utf-8")
        if (password := os.environ.get(PASSWORD_VARIABLE)) is not None:
            return password
        raise BuildonceError(
            f"the password of the signing key {self.private} is not known",
            remedy=f"export {PASSWORD_VARIABLE}=…   (empty when the key has none)",
        )


def key_folder(project: str) -> Path:
    """Where the machine's own pair of a project is."""
    return places.home() / "keys" / project


def machine_pair(project: str) -> KeyPair:
    """The files of the machine's own pair, which need not exist yet."""
    folder = key_folder(project)
    return KeyPair(folder / "release.key", folder / "release.pub", folder / "password")


async def machine_key(project: str, *, cosign: Path, say: Say = lambda _: None) -> KeyPair:
    """The machine's own pair for a project; made when there is none, which `say` tells.

    Raises:
        BuildonceError: it cannot be made, or others can read it.
    """
    pair = machine_pair(project)
    folder = pair.private.parent
    if not pair.private.exists():
        async with locked(folder.parent / f".{project}.lock"):
            if not pair.private.exists():
                await _generate(folder, cosign)
                say(
                    f"! a signing key was made for this machine: {folder}\n"
                    "  What it signs is trusted here only. For a team set [signing] key to a key "
                    "file, awskms:// or keyless (docs/evidence.md)."
                )
    _only_ours(folder)
    return pair


def read_public_key(path: Path) -> PublicKey:
    """A public key file (PEM).

    Raises:
        BuildonceError: it cannot be read, or holds no public key that can verify signatures.
    """
    try:
        pem = path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise BuildonceError(
            f"the public key {path} cannot be read: {error}",
            remedy="put the signer's public key there (cosign public-key --key …), "
            "or correct its path in the configuration",
        ) from None
    return parse_public_key(pem, origin=str(path))


@lru_cache(maxsize=64)
def parse_public_key(pem: str, *, origin: str = "") -> PublicKey:
    """A public key as PEM text.

    Raises:
        BuildonceError: it is no public key that can verify signatures.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_pem_public_key,
    )

    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    weak = isinstance(key, rsa.RSAPublicKey) and key.key_size < 2048
    if weak or not isinstance(
        key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
    ):
        raise BuildonceError(
            f"{origin or 'the text'} holds no public key (PEM) that can verify signatures",
            remedy="cosign public-key --key … writes one",
        )
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(pem, f"sha256:{hashlib.sha256(der).hexdigest()}", origin)


def own_trust(config: Config) -> Trust:
    """Whom the pipeline's own `[signing]` makes: what is trusted where a policy names nobody.

    Raises:
        BuildonceError: the public key is not there.
    """
    signing, folder = config.signing, config.path.parent
    if signing.key == KEYLESS and signing.identity is not None:
        identity = Identity(signing.identity.issuer, signing.identity.subject)
        return Trust(identities=(identity,), transparency_log=True)
    public = machine_pair(config.project.name).public
    if signing.public_key is not None:
        public = folder / signing.public_key.expanduser()
    elif signing.key != LOCAL:
        private = folder / Path(signing.key.removeprefix("file:")).expanduser()
        public = private.with_suffix(".pub")
    elif not public.exists():
        raise NothingTrusted(
            f"this machine has no signing key for {config.project.name} yet, so it trusts no "
            "release",
            remedy="run the pipeline, which makes one; or name the signer's public key in "
            "[signing] public_key",
        )
    return Trust(keys=(read_public_key(public),))


async def _generate(folder: Path, cosign: Path) -> None:
    password = secrets.token_urlsafe(32)
    with whole_folder(folder) as making:
        making.chmod(0o700)
        done = await anyio.run_process(
            [str(cosign), "generate-key-pair", "--output-key-prefix", "release"],
            cwd=making,
            env={**os.environ, PASSWORD_VARIABLE: password},
            check=False,
        )
        if done.returncode != 0:
            raise BuildonceError(
                "cosign could not make a key pair: "
                + done.stderr.decode(errors="replace").strip()[-300:]
            )
        write_whole(making / "password", password, mode=0o600)
        (making / "release.key").chmod(0o600)
    folder.chmod(0o700)


def _only_ours(folder: Path) -> None:
    facts = folder.stat()
    if facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        raise BuildonceError(
            f"the signing key's folder {folder} is open to others",
            remedy=f"chmod 700 {folder}; if others may have read it, remove it: a new key is made",
        )
