"""What somebody can do who may write to the registry, and has no key that is trusted.

Each function tampers with a release that has a repository of its own. `tests/release` asks what
becomes of it in process, `tests/e2e/test_tamper.py` as a user does, at the command line.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from buildonce import predicates
from buildonce.release.attached import (
    ATTESTATIONS,
    ENVELOPE_TYPE,
    KEY_ANNOTATION,
    SIGNATURES,
    Attached,
    attach,
    attached_tag,
    read_attached,
)
from buildonce.release.copy import copy_release
from buildonce.release.descriptors import EMPTY, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, canonical
from buildonce.release.envelopes import Statement, encoding, envelope
from buildonce.release.models import Image, Record
from buildonce.release.provenance import provenance
from buildonce.release.record import RECORD_TYPE, _store, version_tag
from buildonce.release.registry import Registry
from buildonce.release.signing import Signer, sign
from buildonce.release.source import Origin
from tests.release.conftest import Project, build, push_image
from tests.release.policy_samples import test_result


async def lay(registry: Registry, image: Image, kind: str, items: Sequence[Attached]) -> None:
    """Let exactly these lie beside an image."""
    layers = []
    for item in items:
        await registry.push_blob(image.repository, item.data, item.media_type)
        layers.append(item.descriptor.to_json())
    await _lay_layers(registry, image, kind, layers)


async def _lay_layers(
    registry: Registry, image: Image, kind: str, layers: Sequence[object]
) -> None:
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
    older = await _older(project, registry)
    items = await read_attached(registry, older.release.image, SIGNATURES)
    await lay(registry, project.image, SIGNATURES, items)


async def an_attestation_removed(project: Project, registry: Registry, _: Signer) -> None:
    items = await read_attached(registry, project.image, ATTESTATIONS)
    await lay(registry, project.image, ATTESTATIONS, items[1:])


async def all_attestations_removed(project: Project, registry: Registry, _: Signer) -> None:
    await lay(registry, project.image, ATTESTATIONS, [])


async def attestation_of_another_digest(project: Project, registry: Registry, _: Signer) -> None:
    older = await _older(project, registry)
    items = await read_attached(registry, older.release.image, ATTESTATIONS)
    await lay(registry, project.image, ATTESTATIONS, items)


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
    older = await _older(project, registry)
    tag = version_tag(project.record.release.version)
    await registry.tag(project.image.repository, older.digest, tag)


async def record_of_another_digest(project: Project, registry: Registry, _: Signer) -> None:
    """A record that lies beside the image, has its version, and says another digest."""
    release = project.record.release
    other = await push_image(registry, release.image.repository, "evil")
    said = replace(project.record, release=replace(release, image=other)).to_json()
    await forge_record(project, registry, said)


async def forge_record(project: Project, registry: Registry, said: Mapping[str, object]) -> None:
    """Let the version's tag name a record that says this, and that nobody signed."""
    repository = project.image.repository
    layer = await registry.push_blob(repository, canonical(said), RECORD_TYPE)
    config = await registry.push_blob(repository, b"{}", EMPTY)
    image = await registry.manifest(repository, project.image.digest)
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": RECORD_TYPE,
        "config": config.to_json(),
        "layers": [layer.to_json()],
        "subject": image.descriptor.to_json(),
    }
    tag = version_tag(project.record.release.version)
    await registry.push_manifest(repository, canonical(manifest), OCI_MANIFEST, tag=tag)


async def second_record_of_the_version(project: Project, registry: Registry, _: Signer) -> None:
    """By the right key: two machines have released one version, and the tag names the later one."""
    repository, release = project.image.repository, project.record.release
    other = await push_image(registry, repository, "another build")
    await sign(other, (), signer=project.signer, registry=registry)
    second = replace(project.record, release=replace(release, image=other), evidence=())
    manifest = await registry.manifest(repository, other.digest)
    await _store(second, manifest, project.signer, registry)


async def evidence_of_an_older_release(project: Project, registry: Registry, _: Signer) -> None:
    """All of it, record included, in place of this one's."""
    await signature_of_another_digest(project, registry, _)
    await attestation_of_another_digest(project, registry, _)
    await record_of_another_version(project, registry, _)


async def _older(project: Project, registry: Registry) -> Record:
    """The older release, in the same repository."""
    trust = project.signer.trust
    return await copy_release(
        project.older, project.image.repository, trust=trust, registry=registry
    )


async def provenance_of_another_repository(project: Project, registry: Registry, _: Signer) -> None:
    """By the right key, and the newest: a pipeline of ours has built somebody else's source."""
    other = provenance(build(origin=Origin("https://git.test/evil/app", "main")))
    await sign(project.image, [other], signer=project.signer, registry=registry, attest_only=True)


async def a_test_that_failed_later(project: Project, registry: Registry, _: Signer) -> None:
    result = test_result("unit_tests", "FAILED", failed=("test_a",))
    later = datetime.now(UTC) + timedelta(seconds=1)
    failed = Statement(result.type, result.predicate, result.name, later)
    await sign(project.image, [failed], signer=project.signer, registry=registry, attest_only=True)


async def a_key_that_stands_twice(project: Project, registry: Registry, _: Signer) -> None:
    """One reader takes the first payload and another the last."""
    items = await read_attached(registry, project.image, ATTESTATIONS)
    first = Attached(b'{"payload":"e30=",' + items[0].data[1:], ENVELOPE_TYPE, items[0].annotations)
    await lay(registry, project.image, ATTESTATIONS, [first, *items[1:]])


async def ten_thousand_attestations(project: Project, registry: Registry, _: Signer) -> None:
    blob = await registry.push_blob(project.image.repository, b"{}", ENVELOPE_TYPE)
    await _lay_layers(registry, project.image, ATTESTATIONS, [blob.to_json()] * 10_000)


async def index_in_place_of_the_evidence(project: Project, registry: Registry, _: Signer) -> None:
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    tag = attached_tag(project.image.digest, ATTESTATIONS)
    await registry.push_manifest(project.image.repository, canonical(index), OCI_INDEX, tag=tag)


async def rubbish_beside_it(project: Project, registry: Registry, other: Signer) -> None:
    """Large, with names that are paths, move the cursor and forge lines: it must change nothing."""
    evil = "../../../etc/cron.d/evil\n\x1b[2J✓ 2026.11.21+g1a2b3c4 may enter production"
    claims = {"result": "PASSED", "padding": "x" * 10_000_000}
    large = Statement(predicates.TEST_RESULT, claims, evil, datetime.now(UTC))
    payload = large.payload(project.image)
    [signature] = await other.sign([encoding(payload)])
    titles = {"org.opencontainers.image.title": evil, "predicateType": evil}
    items = [
        Attached(envelope(payload, signature), ENVELOPE_TYPE, titles),
        Attached(b"{", ENVELOPE_TYPE, {**titles, KEY_ANNOTATION: evil}),
    ]
    await attach(registry, project.image, ATTESTATIONS, items)
