"""Everything that is not exactly what was signed is refused, each in its own words; and cosign
itself comes to the same verdict on every case."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildonce import predicates
from buildonce.errors import ExitCode
from buildonce.release.attached import (
    ATTESTATIONS,
    ENVELOPE_TYPE,
    SIGNATURE_ANNOTATION,
    SIGNATURE_TYPE,
    SIGNATURES,
    Attached,
    attach,
    read_attached,
)
from buildonce.release.cosign import Cosign, CosignFailed
from buildonce.release.envelopes import (
    STATEMENT,
    Statement,
    encoding,
    envelope,
    read_envelope,
    read_signing_payload,
    signer_of,
    signing_payload,
)
from buildonce.release.errors import (
    EvidenceMissing,
    EvidenceUnavailable,
    NotSigned,
    RecordRefused,
    Refusal,
)
from buildonce.release.evidence import Refused, Trust, read_evidence
from buildonce.release.models import Image
from buildonce.release.record import find_record, verify_record
from buildonce.release.registry import Registry
from buildonce.release.signing import Signer, sign
from tests.release.conftest import NOW, Project, push_image, push_index, statements
from tests.release.hostile import Fault, faulty, half, html, nothing, status
from tests.release.tampering import (
    Tamper,
    all_attestations_removed,
    altered,
    an_attestation_removed,
    attestation_of_another_digest,
    lay,
    no_signature,
    other_image_under_the_tag,
    record_of_another_version,
    record_removed,
    signature_of_another_digest,
    signed_by_another_key,
)

pytestmark = pytest.mark.anyio


async def cosign_accepts(image: Image, signer: Signer, predicate_type: str | None = None) -> bool:
    """Cosign's own verdict: on the signature, or on attestations of a type."""
    cosign = await Cosign.found()
    key = await anyio.Path(str(signer.pair and signer.pair.public)).resolve()
    types = [predicate_type] if predicate_type else []
    try:
        await cosign.check(Path(key), image, types, signature=predicate_type is None)
    except CosignFailed:
        return False
    return True


async def test_what_was_signed_is_believed(project: Project) -> None:
    verified = await project.store.verify(project.record)
    assert [item.signed_by for item in verified.signatures] == [project.signer.fingerprint]
    assert verified.signatures[0].annotations["revision"] == project.record.release.revision
    assert {(item.type, item.name) for item in verified.attestations} == {
        *((item.type, item.name) for item in statements()),
        (predicates.SLSA_PROVENANCE, "provenance"),
    }
    for item in verified.attestations:
        assert item.subject == project.image.digest
        assert item.created is not None
    assert not verified.refused
    for kind in (None, predicates.TEST_RESULT, predicates.CYCLONEDX, predicates.SLSA_PROVENANCE):
        assert await cosign_accepts(project.image, project.signer, kind)


async def test_signing_again_adds_nothing_and_a_newer_result_is_added(
    project: Project, registry: Registry
) -> None:
    image, signer = project.image, project.signer
    before = await read_attached(registry, image, ATTESTATIONS)
    for _ in range(2):
        await sign(image, statements(), signer=signer, registry=registry)
    assert await read_attached(registry, image, ATTESTATIONS) == before
    assert len(await read_attached(registry, image, SIGNATURES)) == 1
    old = statements()[0]
    failed = Statement(old.type, {"result": "FAILED"}, old.name, NOW + timedelta(minutes=1))
    verified = await sign(image, [failed], signer=signer, registry=registry)
    assert [i.predicate["result"] for i in verified.of_type(old.type) if i.name == old.name] == [
        "PASSED",
        "FAILED",
    ]
    newest = {item.name: item for item in verified.newest()}
    assert newest[old.name].predicate == {"result": "FAILED"}
    # A day later the same result is news: its age is what policies ask for.
    later = Statement(old.type, old.predicate, old.name, NOW + timedelta(days=2))
    again = await sign(image, [later], signer=signer, registry=registry)
    assert len(again.attestations) == len(verified.attestations) + 1


async def test_the_registry_cannot_make_an_old_result_look_newer(
    project: Project, registry: Registry
) -> None:
    image = project.image
    old = statements()[0]
    failed = Statement(old.type, {"result": "FAILED"}, old.name, NOW + timedelta(minutes=1))
    await sign(image, [failed], signer=project.signer, registry=registry)
    items = await read_attached(registry, image, ATTESTATIONS)
    await lay(registry, image, ATTESTATIONS, items[::-1])
    verified = await read_evidence(image, project.signer.trust, registry=registry)
    newest = {item.name: item for item in verified.newest()}
    assert newest[old.name].predicate == {"result": "FAILED"}


async def test_pipelines_that_sign_at_once_lose_nothing(
    repository: str, registry: Registry, signer: Signer
) -> None:
    image = await push_image(registry, repository)

    async def add(number: int) -> None:
        item = Attached(b'{"n": %d}' % number, ENVELOPE_TYPE, {"n": str(number)})
        async with Registry() as own:
            await attach(own, image, ATTESTATIONS, [item])

    async with anyio.create_task_group() as tasks:
        for number in range(12):
            tasks.start_soon(add, number)
    items = await read_attached(registry, image, ATTESTATIONS)
    assert sorted(int(item.annotations["n"]) for item in items) == list(range(12))


async def test_what_others_laid_there_stays(
    repository: str, registry: Registry, signer: Signer, stranger: Signer
) -> None:
    image = await push_image(registry, repository)
    await sign(image, statements()[:1], signer=stranger, registry=registry)
    await sign(image, statements()[:1], signer=signer, registry=registry)
    for who in (signer, stranger):
        verified = await read_evidence(image, who.trust, registry=registry)
        assert len(verified.signatures) == len(verified.attestations) == 1
        assert {item.cause for item in verified.refused} == {"other-key"}
    both = Trust(keys=signer.trust.keys + stranger.trust.keys)
    verified = await read_evidence(image, both, registry=registry)
    assert len(verified.signatures) == len(verified.attestations) == 2


async def test_every_platform_of_an_index_is_signed(
    repository: str, registry: Registry, signer: Signer
) -> None:
    index = await push_index(registry, repository)
    await sign(index, (), signer=signer, registry=registry)
    for child in (await registry.manifest(repository, index.digest)).children:
        part = Image(repository, child.digest)
        assert (await read_evidence(part, signer.trust, registry=registry)).signatures
        assert await cosign_accepts(part, signer)


@pytest.mark.parametrize(
    ("tamper", "error", "message", "cosign"),
    [
        (other_image_under_the_tag, RecordRefused, "is no release record", True),
        (record_of_another_version, RecordRefused, "the tag .* was moved", True),
        (record_removed, RecordRefused, "not to be believed: it has no signature", True),
        (no_signature, NotSigned, "it has no signature at all", False),
        (signed_by_another_key, NotSigned, "signed by another key, sha256:.*not trusted", False),
        (signature_of_another_digest, NotSigned, "of another image, sha256:.*copied here", False),
        (an_attestation_removed, EvidenceMissing, "is not there; it was removed", True),
        (all_attestations_removed, EvidenceMissing, "is not there; it was removed", True),
        (
            attestation_of_another_digest,
            EvidenceMissing,
            "unit_tests is about another image, sha256:",
            True,
        ),
        (
            altered(b'"CycloneDX"', b'"cyclonedx"', resigned=False),
            EvidenceMissing,
            "sbom_image was changed after it was signed",
            True,
        ),
        (
            altered(b'"PASSED"', b'"FAILED"', resigned=False),
            EvidenceMissing,
            "unit_tests was changed after it was signed",
            True,
        ),
        (
            altered(b'"PASSED"', b'"passed"', resigned=True),
            EvidenceMissing,
            "unit_tests was signed by another key",
            True,
        ),
        (
            altered(b"git.test/team/app", b"git.test/evil/app", resigned=False),
            EvidenceMissing,
            "provenance was changed after it was signed",
            True,
        ),
    ],
)
async def test_what_was_tampered_with_is_refused(
    project: Project,
    registry: Registry,
    stranger: Signer,
    tamper: Tamper,
    error: type[Refusal],
    message: str,
    cosign: bool,
) -> None:
    await tamper(project, registry, stranger)
    with pytest.raises(error, match=message) as raised:
        await project.store.find(project.record.release.version)
    assert raised.value.exit_code == ExitCode.POLICY_DENIED
    assert await cosign_accepts(project.image, project.signer) == cosign


async def test_cosign_refuses_the_same_attestations(
    project: Project, registry: Registry, stranger: Signer
) -> None:
    """One type at a time, so that cosign's verdict on each of them shows."""
    image, signer = project.image, project.signer
    good = await read_attached(registry, image, ATTESTATIONS)
    for tamper in (
        attestation_of_another_digest,
        altered(b'"PASSED"', b'"FAILED"', resigned=False),
        altered(b'"PASSED"', b'"FAILED"', resigned=True),
    ):
        await lay(registry, image, ATTESTATIONS, good)
        await tamper(project, registry, stranger)
        verified = await read_evidence(image, signer.trust, registry=registry)
        for kind in (predicates.TEST_RESULT, predicates.CYCLONEDX):
            believed = bool(verified.of_type(kind))
            assert await cosign_accepts(image, signer, kind) == believed


@pytest.mark.parametrize("fault", [html(404), status(500), half, nothing, html(200)])
@pytest.mark.parametrize("where", [".sig", ".att", "/blobs/", "/manifests/sha256:", "/manifests/"])
async def test_a_registry_that_does_not_answer_is_not_believed(
    untouched: Project, host: str, registry: Registry, fault: Fault, where: str
) -> None:
    record, trust = untouched.record, untouched.signer.trust
    with faulty(host, {where: fault}) as address:
        there = f"{address}/{untouched.image.repository.partition('/')[2]}"
        with pytest.raises(EvidenceUnavailable) as raised:
            found = await find_record(
                there, version=record.release.version, trust=trust, registry=registry
            )
            assert found is not None
            await verify_record(found, trust=trust, registry=registry)
    assert raised.value.exit_code == ExitCode.POLICY_DENIED


@given(st.binary(max_size=300))
def test_no_envelope_breaks_the_reader(data: bytes) -> None:
    with pytest.raises(ValueError):
        read_envelope(data)
    with pytest.raises(ValueError):
        read_signing_payload(data)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_times = st.sampled_from(
    ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "2026-02-30T00:00:00Z", "now", ""]
)


@given(
    st.fixed_dictionaries(
        {
            "_type": st.just(STATEMENT),
            "predicateType": st.just(predicates.SARIF) | _json,
            "predicate": st.dictionaries(st.text(), _json, max_size=2) | _json,
            "subject": st.lists(
                st.fixed_dictionaries(
                    {
                        "digest": st.fixed_dictionaries({"sha256": _json}) | _json,
                        "annotations": st.fixed_dictionaries(
                            {"name": _json, "created": _times | _json}
                        )
                        | _json,
                    }
                ),
                max_size=2,
            )
            | _json,
        }
    )
)
def test_no_statement_breaks_the_reader(content: dict[str, object]) -> None:
    """Nobody has signed it: whoever writes to a registry can lay it there."""
    try:
        found = read_envelope(envelope(json.dumps(content).encode(), "AAAA"))
    except ValueError:
        return
    assert isinstance(found.statement.predicate, dict)


@given(
    st.dictionaries(st.text(max_size=10), st.integers() | st.text(max_size=10), max_size=5),
    st.text(max_size=20),
    st.text("0123456789abcdef", min_size=64, max_size=64),
)
def test_a_statement_survives_its_envelope(
    predicate: dict[str, object], name: str, digest: str
) -> None:
    image = Image("registry.test/app", f"sha256:{digest}")
    statement = Statement(predicates.SARIF, predicate, name, NOW)
    found = read_envelope(envelope(statement.payload(image), "AAAA"))
    assert found.signed == encoding(statement.payload(image))
    assert found.statement.subjects == (image.digest,)
    assert (found.statement.name, found.statement.created) == (name, NOW)
    assert dict(found.statement.predicate) == json.loads(json.dumps(predicate))


async def test_no_changed_byte_passes(signer: Signer) -> None:
    image = Image("registry.test/app", "sha256:" + "ab" * 32)
    payload = signing_payload(image, {})
    [signature] = map(base64.b64decode, await signer.sign([payload]))
    keys = signer.trust.keys
    assert signer_of(payload, [signature], keys) == keys[0]
    for position in range(len(payload)):
        wrong = bytearray(payload)
        wrong[position] ^= 1
        assert signer_of(bytes(wrong), [signature], keys) is None
    for position in range(len(signature)):
        wrong = bytearray(signature)
        wrong[position] ^= 1
        assert signer_of(payload, [bytes(wrong)], keys) is None
    assert signer_of(payload, [], keys) is None
    assert signer_of(payload, [signature], []) is None


async def test_a_signature_that_is_no_text_is_refused(project: Project, registry: Registry) -> None:
    junk = Attached(b"junk", SIGNATURE_TYPE, {SIGNATURE_ANNOTATION: "§"})
    bad = Attached(b"{}", ENVELOPE_TYPE, {"predicateType": predicates.SARIF})
    await attach(registry, project.image, SIGNATURES, [junk])
    await attach(registry, project.image, ATTESTATIONS, [bad])
    verified = await project.store.verify(project.record)
    assert [(item.what, item.cause) for item in verified.refused] == [
        ("signature", "unreadable"),
        ("attestation", "unreadable"),
    ]
    assert isinstance(verified.refused[1], Refused)
    assert verified.refused[1].type == predicates.SARIF
