"""Signing: an image's digest, and what is attested of it.

    signer = await Signer.configured(config, say=print)
    verified = await sign(image, statements, signer=signer, registry=registry)

All that has to be signed is signed in one go, laid beside the image in one write each, read again
and verified, by this program and by cosign. What is there already and says the same is left as it
is: a second run signs nothing, and loses nothing of what others laid there.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from buildonce.config import Config
from buildonce.config.signing import KEYLESS, LOCAL
from buildonce.errors import BuildonceError
from buildonce.release.attached import (
    ATTESTATIONS,
    ENVELOPE_TYPE,
    KEY_ANNOTATION,
    SIGNATURE_ANNOTATION,
    SIGNATURE_TYPE,
    SIGNATURES,
    Attached,
    attach,
)
from buildonce.release.cosign import Cosign
from buildonce.release.descriptors import canonical, digest_of
from buildonce.release.envelopes import Statement, encoding, envelope, signing_payload
from buildonce.release.evidence import Trust, Verified, read_evidence
from buildonce.release.keys import KeyPair, machine_key, own_trust
from buildonce.release.models import Image
from buildonce.release.parallel import each
from buildonce.release.parts import parts_of
from buildonce.release.registry import Registry

# The same result of a check that ran again is news only after this while.
FRESH = timedelta(days=1)


class SigningFailed(BuildonceError):
    """What was signed cannot be found again, or is not accepted."""


@dataclass(frozen=True)
class Signer:
    """Who signs.

    Args:
        cosign: the program.
        key: path of the private key, or awskms://…; "" when keyless.
        trust: what verifies that which this signer signs.
        pair: the files of the key; None for KMS and keyless.
        log: everything also goes into the transparency log.
    """

    cosign: Cosign
    key: str
    trust: Trust
    pair: KeyPair | None = None
    log: bool = False

    @classmethod
    async def configured(cls, config: Config, *, say: Callable[[str], None]) -> Signer:
        """The signer of `[signing]`; a key of this machine is made where none is configured.

        Raises:
            BuildonceError: a key is missing, or cosign cannot be had.
        """
        cosign = await Cosign.found()
        signing = config.signing
        key, pair = signing.key, None
        if key == LOCAL:
            pair = await machine_key(config.project.name, cosign=cosign.path, say=say)
        elif key.startswith("file:"):
            private = config.path.parent / Path(key.removeprefix("file:")).expanduser()
            if not private.is_file():
                raise BuildonceError(
                    f"{config.where('signing', 'key')}: there is no signing key at {private}",
                    remedy="cosign generate-key-pair "
                    f"--output-key-prefix {private.with_suffix('')}",
                )
            pair = KeyPair(private, private.with_suffix(".pub"))
        reference = str(pair.private) if pair else "" if key == KEYLESS else key
        return cls(cosign, reference, own_trust(config), pair, signing.transparency_log)

    @property
    def fingerprint(self) -> str:
        """Of the key; "" when keyless."""
        return self.trust.keys[0].fingerprint if self.trust.keys else ""

    @property
    def offline(self) -> bool:
        """Whether nothing but the registry and the key is needed."""
        return bool(self.key) and not self.log

    async def sign(self, blobs: Sequence[bytes]) -> list[str]:
        """Signatures (base64) over the blobs."""
        password = self.pair.password() if self.pair else ""
        return await self.cosign.sign_blobs(self.key, blobs, password=password)


async def sign(
    image: Image,
    statements: Sequence[Statement],
    *,
    signer: Signer,
    registry: Registry,
    annotations: Mapping[str, str] | None = None,
    attest_only: bool = False,
) -> Verified:
    """Sign an image, the images of its platforms, and what is attested of it.

    Args:
        image: what is signed; of an index also every manifest in it is.
        statements: what is attested; those that are there already are left out.
        annotations: what the signature says beside the digest.
        attest_only: add to the evidence of an image that somebody else has signed.

    Returns:
        All that then lies beside the image, verified.

    Raises:
        SigningFailed: something of it cannot be found again afterwards.
        BuildonceError: the key or the registry cannot be used.
    """
    parts = [] if attest_only else await parts_of(image, registry)
    signed = await each(lambda part: _is_signed(part, signer, registry), parts)
    unsigned = [part for part, done in zip(parts, signed, strict=True) if not done]
    before = await read_evidence(image, signer.trust, registry=registry)
    missing = _missing(statements, before)
    if not unsigned and not missing:
        return before
    if signer.offline:
        await _sign_offline(image, unsigned, missing, signer, registry, annotations or {})
    else:
        await _sign_with_log(image, unsigned, missing, signer, annotations or {})
    after = await read_evidence(image, signer.trust, registry=registry)
    if not (after.signatures or attest_only):
        raise SigningFailed(f"the signature of {image.reference} is not there after it was made")
    if lost := _missing(statements, after):
        names = ", ".join(statement.name or statement.type for statement in lost)
        raise SigningFailed(
            f"attestations of {image.reference} are not there after they were made: {names}"
        )
    if signer.offline:
        await _check_with_cosign(image, unsigned, missing, signer)
    return after


async def _is_signed(part: Image, signer: Signer, registry: Registry) -> bool:
    return bool((await read_evidence(part, signer.trust, registry=registry)).signatures)


def _missing(statements: Sequence[Statement], found: Verified) -> list[Statement]:
    """The statements that nothing found says already, as lately."""
    known = {
        (item.type, item.name, digest_of(canonical(item.predicate))): item.created
        for item in found.attestations  # in the order of their times: the latest one stays
    }
    missing = {}
    for statement in statements:
        kind, name, digest = statement.content
        # Cosign alone, with the log, writes no names.
        there = known.get((kind, name, digest), known.get((kind, "", digest), ...))
        fresh = there is not ... and (there is None or there + FRESH > statement.created)
        if not fresh:
            missing[statement.content] = statement
    return list(missing.values())


async def _sign_offline(
    image: Image,
    unsigned: Sequence[Image],
    statements: Sequence[Statement],
    signer: Signer,
    registry: Registry,
    annotations: Mapping[str, str],
) -> None:
    """Sign everything in one go, then lay it down."""
    claims = [signing_payload(part, annotations) for part in unsigned]
    payloads = [statement.payload(image) for statement in statements]
    signatures = await signer.sign([*claims, *map(encoding, payloads)])
    hint = {KEY_ANNOTATION: signer.fingerprint}
    for part, claim, signature in zip(unsigned, claims, signatures, strict=False):
        item = Attached(claim, SIGNATURE_TYPE, {SIGNATURE_ANNOTATION: signature, **hint})
        await attach(registry, part, SIGNATURES, [item])
    envelopes = [
        Attached(
            envelope(payload, signature),
            ENVELOPE_TYPE,
            {SIGNATURE_ANNOTATION: "", "predicateType": statement.type, **hint},
        )
        for statement, payload, signature in zip(
            statements, payloads, signatures[len(claims) :], strict=True
        )
    ]
    await attach(registry, image, ATTESTATIONS, envelopes)


async def _sign_with_log(
    image: Image,
    unsigned: Sequence[Image],
    statements: Sequence[Statement],
    signer: Signer,
    annotations: Mapping[str, str],
) -> None:
    """Let cosign do it alone, one after another: the log's entry and the certificate belong
    together with what is laid down, and of two at once one would be lost."""
    key = ["--key", signer.key] if signer.key else []
    password = signer.pair.password() if signer.pair else ""
    notes = [word for pair in annotations.items() for word in ("-a", "=".join(pair))]
    for part in unsigned:
        await signer.cosign.upload(["sign", *key, *notes], part, password)
    with tempfile.TemporaryDirectory(prefix="buildonce-attest-") as folder:
        for statement in statements:
            file = Path(folder, "predicate.json")
            file.write_text(json.dumps(dict(statement.predicate)), "utf-8")
            command = ["attest", *key, "--type", statement.type, "--predicate", str(file)]
            await signer.cosign.upload(command, image, password)


async def _check_with_cosign(
    image: Image, signed: Sequence[Image], statements: Sequence[Statement], signer: Signer
) -> None:
    """What is new must also be accepted by the program that everybody else verifies with."""
    with tempfile.TemporaryDirectory(prefix="buildonce-key-") as folder:
        key = Path(folder, "signer.pub")
        key.write_text(signer.trust.keys[0].pem, "ascii")
        types = sorted({statement.type for statement in statements})
        if types:
            await signer.cosign.check(key, image, types, signature=image in signed)
        for part in signed:
            if part != image or not types:
                await signer.cosign.check(key, part, [])
