"""Signatures without a key: the signer's identity in a certificate, judged by cosign.

The certificate, its authority and the transparency log are Sigstore's, and cosign knows its trust
root; so here it is cosign that verifies, and its verdict is matched with the bytes that were read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from buildonce.release.attached import Attached
from buildonce.release.cosign import Cosign
from buildonce.release.descriptors import canonical
from buildonce.release.envelopes import read_envelope
from buildonce.release.evidence import Attestation, Identity, Refused, Signature, Trust
from buildonce.release.models import Image


async def verify_keyless(
    image: Image,
    trust: Trust,
    signatures: Sequence[Attached],
    attestations: Sequence[Attached],
    judged_signatures: Sequence[Signature | Refused],
    judged_attestations: Sequence[Attestation | Refused],
) -> tuple[list[Signature | Refused], list[Attestation | Refused]]:
    """What of the refused ones cosign accepts as made by one of the trusted identities."""
    cosign = await Cosign.found()
    new_signatures, new_attestations = list(judged_signatures), list(judged_attestations)
    for identity in trust.identities:
        who = f"{identity.issuer} {identity.subject}"
        options = _options(identity, trust)
        accepted = _accepted_claims(await cosign.accepted(["verify", *options], image))
        for number, item in enumerate(signatures):
            # Annotations are left out: cosign's output does not tell which signature had which.
            if isinstance(new_signatures[number], Refused) and _claim(item.data) in accepted:
                new_signatures[number] = Signature(who, {}, item.digest)
        for kind in _types(attestations):
            command = ["verify-attestation", "--type", kind, *options]
            payloads = _attested_payloads(await cosign.accepted(command, image))
            for number, item in enumerate(attestations):
                if isinstance(new_attestations[number], Refused):
                    found = _attestation(item, kind, payloads, image, who)
                    new_attestations[number] = found or new_attestations[number]
    return new_signatures, new_attestations


def _options(identity: Identity, trust: Trust) -> list[str]:
    subject = identity.subject
    flag = "--certificate-identity-regexp" if subject[:1] == "^" else "--certificate-identity"
    options = [flag, subject, "--certificate-oidc-issuer", identity.issuer]
    return options if trust.transparency_log else [*options, "--insecure-ignore-tlog"]


def _types(attestations: Iterable[Attached]) -> list[str]:
    kinds = set()
    for item in attestations:
        try:
            kinds.add(read_envelope(item.data).statement.type)
        except ValueError:
            continue
    return sorted(kinds)


def _accepted_claims(output: str) -> set[bytes]:
    """What the signatures claim that `cosign verify` printed; it prints only accepted ones."""
    return {canonical(item["critical"]) for item in (json.loads(output) if output.strip() else [])}


def _claim(data: bytes) -> bytes:
    try:
        return canonical(json.loads(data)["critical"])
    except (ValueError, KeyError, TypeError):
        return b""


def _attested_payloads(output: str) -> set[str]:
    return {json.loads(line)["payload"] for line in output.splitlines() if line.strip()}


def _attestation(
    item: Attached, kind: str, payloads: set[str], image: Image, who: str
) -> Attestation | None:
    try:
        statement = read_envelope(item.data).statement
        payload = json.loads(item.data)["payload"]
    except (ValueError, KeyError):
        return None
    if statement.type != kind or payload not in payloads or image.digest not in statement.subjects:
        return None
    return Attestation(
        statement.type,
        statement.predicate,
        image.digest,
        who,
        item.digest,
        statement.name,
        statement.created,
    )
