"""Whether one signature or attestation is to be believed; pure, and done here on purpose.

The bytes that are judged are the bytes that are used afterwards, and a refusal can say which of
the many ways it is wrong. `docs/decisions/0005` has the reasons; the tests hold it to cosign's own
verdict on every case.
"""

from __future__ import annotations

import base64
import binascii

from buildonce.release.attached import KEY_ANNOTATION, SIGNATURE_ANNOTATION, Attached
from buildonce.release.envelopes import read_envelope, read_signing_payload, signer_of
from buildonce.release.evidence import Attestation, Cause, Refused, Signature, Trust
from buildonce.release.models import Image
from buildonce.visible import on_one_line


def verify_signature(item: Attached, image: Image, trust: Trust) -> Signature | Refused:
    """Judge a signature that lies beside `image`."""
    try:
        signature = base64.b64decode(item.annotations.get(SIGNATURE_ANNOTATION, ""), validate=True)
        digest, annotations = read_signing_payload(item.data)
    except (ValueError, binascii.Error) as error:
        return Refused(
            "signature", "unreadable", f"a signature cannot be read: {error}", digest=item.digest
        )
    key = signer_of(item.data, (signature,), trust.keys)
    if key is None:
        cause, why = _unknown_signer(item, trust)
        return Refused("signature", cause, f"a signature {why}", digest=item.digest)
    if digest != image.digest:
        return Refused(
            "signature",
            "other-digest",
            f"a signature is of another image, {_short(digest)}, and was copied here",
            digest=item.digest,
        )
    return Signature(key.fingerprint, annotations, item.digest)


def verify_attestation(item: Attached, image: Image, trust: Trust) -> Attestation | Refused:
    """Judge an attestation that lies beside `image`."""
    claimed = item.annotations.get("predicateType", "")
    try:
        envelope = read_envelope(item.data)
    except ValueError as error:
        return Refused(
            "attestation",
            "unreadable",
            f"an attestation cannot be read: {error}",
            claimed,
            item.digest,
        )
    statement = envelope.statement
    what = f"the attestation {on_one_line(statement.name or statement.type)}"
    key = signer_of(envelope.signed, envelope.signatures, trust.keys)
    if key is None:
        cause, why = _unknown_signer(item, trust)
        return Refused("attestation", cause, f"{what} {why}", statement.type, item.digest)
    if image.digest not in statement.subjects:
        others = ", ".join(map(_short, statement.subjects)) or "nothing"
        return Refused(
            "attestation",
            "other-digest",
            f"{what} is about another image, {others}",
            statement.type,
            item.digest,
        )
    return Attestation(
        type=statement.type,
        predicate=statement.predicate,
        subject=image.digest,
        signed_by=key.fingerprint,
        digest=item.digest,
        name=statement.name,
        created=statement.created,
    )


def _unknown_signer(item: Attached, trust: Trust) -> tuple[Cause, str]:
    """No trusted key made the signature: another one did, or the content is no longer what it was.

    The hint beside it tells which; whoever forges it changes the message, never the verdict.
    """
    hint = item.annotations.get(KEY_ANNOTATION, "")
    if any(key.fingerprint == hint for key in trust.keys):
        return "altered", "was changed after it was signed: its signature does not fit"
    if hint:
        return "other-key", f"was signed by another key, {_short(hint)}, which is not trusted here"
    return "other-key", "was signed by a key that is not trusted here, or was changed since"


def _short(digest: str) -> str:
    return on_one_line(digest[:19] if digest.startswith("sha256:") else digest[:40])
