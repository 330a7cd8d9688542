"""Everything that is not exactly what was signed is refused, each in its own words; and cosign
itself comes to the same verdict on every case."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Sequence
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
    KEY_ANNOTATION,
    SIGNATURE_ANNOTATION,
    SIGNATURE_TYPE,
    SIGNATURES,
    Attached,
    attach,
    attached_tag,
    read_attached,
)
from buildonce.release.cosign import Cosign, CosignFailed
from buildonce.release.descriptors import OCI_CONFIG, OCI_MANIFEST, canonical
from buildonce.release.envelopes import (
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
from buildonce.release.record import find_record, verify_record, version_tag
from buildonce.release.registry import Registry
from buildonce.release.signing import Signer, sign
from tests.release.conftest import NOW, Project, push_image, push_index, statements
from tests.release.hostile import Fault, faulty, half, html, nothing, status

pytestmark = pytest.mark.anyio


async def lay(registry: Registry, image: Image, kind: str, items: Sequence[Attached]) -> None:
    """Let exactly these lie beside an image, as somebody can who writes to the registry."""
    layers = []
    for item in items:
        await registry.push_blob(image.repository, item.data, item.media_type)
        layers.append(item.descriptor.to_json())
    config = await registry.push_blob(image.repository, b"{}", OCI_CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.to_json(),
        "layers": layers,
    }
    await registry.push_manifest(
        image.repository,
        canonical(manifest),
        OCI_MANIFEST,
        tag=attached_tag(image.digest, kind),
    )


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


Tamper = Callable[[Project, Registry, Signer], Awaitable[None]]


async def other_image_under_the_tag(project: Project, registry: Registry, _: Signer) -> None:
    other = await push_image(registry, project.image.repository, "evil")
    await registry.tag(other.repository, other.digest, version_tag(project.record.release.version))


async def no_signature(project: Project, registry: Registry, _: Signer) -> None:
    await lay(registry, project.image, SIGNATURES, [])


async def signed_by_another_key(project: Project, registry: Registry, other: Signer) -> None:
    await lay(registry, project.image, SIGNATURES, [])
    await sign(project.image, (), signer=other, registry=registry)


async def signature_of_another_digest(project: Project, registry: Registry, _: Signer) -> None:
    other = await push_image(registry, project.image.repository, "other")
    await sign(other, (), signer=project.signer, registry=registry)
    await lay(registry, project.image, SIGNATURES, await read_attached(registry, other, SIGNATURES))


async def an_attestation_removed(project: Project, registry: Registry, _: Signer) -> None:
    items = await read_attached(registry, project.image, ATTESTATIONS)
    await lay(registry, project.image, ATTESTATIONS, items[1:])


async def all_attestations_removed(project: Project, registry: Registry, _: Signer) -> None:
    await lay(registry, project.image, ATTESTATIONS, [])


async def attestation_of_another_digest(project: Project, registry: Registry, _: Signer) -> None:
    other = await push_image(registry, project.image.repository, "other")
    await sign(other, statements(), signer=project.signer, registry=registry)
    await lay(
        registry, project.image, ATTESTATIONS, await read_attached(registry, other, ATTESTATIONS)
    )


def altered(old: bytes, new: bytes, *, resigned: bool) -> Tamper:
    """One attestation with something replaced in it: under its old signature, or with the
    signature of somebody else."""

    async def tamper(project: Project, registry: Registry, other: Signer) -> None:
        items = await read_attached(registry, project.image, ATTESTATIONS)
        changed = []
        for item in items:
            content = json.loads(item.data)
            payload = base64.b64decode(content["payload"])
            annotations = dict(item.annotations)
            if old in payload:
                content["payload"] = base64.b64encode(payload.replace(old, new)).decode()
                if resigned:
                    [content["signatures"][0]["sig"]] = await other.sign(
                        [encoding(payload.replace(old, new))]
                    )
                    annotations[KEY_ANNOTATION] = other.fingerprint
            changed.append(Attached(json.dumps(content).encode(), item.media_type, annotations))
        assert changed != items
        await lay(registry, project.image, ATTESTATIONS, changed)

    return tamper


async def record_removed(project: Project, registry: Registry, _: Signer) -> None:
    digest = project.record.digest
    await lay(registry, Image(project.image.repository, digest), SIGNATURES, [])


async def record_of_another_version(project: Project, registry: Registry, _: Signer) -> None:
    from tests.release.conftest import build

    other = await push_image(registry, project.image.repository, "other")
    record, _new = await project.store.cut(other, [], build("2026.11.22+gfffffff"))
    tag = version_tag(project.record.release.version)
    await registry.tag(other.repository, record.digest, tag)


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
