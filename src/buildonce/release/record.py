"""The release record: what a version is, signed, immutable, beside the image in the registry.

    record, new = await cut_release(image, statements, version="2026.11.21+g1a2b3c4", …)
    record = await find_record(repository, version="2026.11.21+g1a2b3c4", trust=…, registry=…)
    verified = await verify_record(record, trust=…, registry=…)

It is an OCI artifact whose subject is the image, named by the tags `rel-<version>` and
`rev-<commit>`, with a cosign signature of its own. Any machine that can read the registry finds it,
and believes it for its signature alone: a tag that was moved to another record is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from buildonce import places
from buildonce.release.descriptors import EMPTY, OCI_MANIFEST, Manifest, canonical, parse_json
from buildonce.release.envelopes import Statement
from buildonce.release.errors import (
    Absent,
    EvidenceMissing,
    EvidenceUnavailable,
    NotSigned,
    RecordRefused,
    RegistryError,
    ReleaseConflict,
)
from buildonce.release.evidence import Trust, Verified, read_evidence
from buildonce.release.models import Image, Listed, Record, Release
from buildonce.release.parallel import each
from buildonce.release.parts import parts_of
from buildonce.release.registry import Registry
from buildonce.release.signing import Signer, sign
from buildonce.toolchain.locks import locked
from buildonce.visible import on_one_line

RECORD_TYPE: Final = "application/vnd.buildonce.release.v1+json"
VERSION_PREFIX: Final = "rel-"
REVISION_PREFIX: Final = "rev-"
_RECORD_BYTES = 4 << 20
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


def version_tag(version: str) -> str:
    """The tag that a version's record has; "+" is not allowed in tags.

    Raises:
        ValueError: no tag can name this version.
    """
    tag = VERSION_PREFIX + version.replace("+", "_")
    if not _TAG.fullmatch(tag):
        raise ValueError(f"the version {version!r} cannot be named in a registry")
    return tag


async def cut_release(
    image: Image,
    statements: Sequence[Statement],
    *,
    version: str,
    revision: str,
    configuration: str,
    signer: Signer,
    registry: Registry,
    source: str = "",
    run: str = "",
    committed: datetime | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Record, bool]:
    """Sign an image and its evidence, and record it as a release; whether that is a new one.

    The same release again changes nothing; evidence that is new is added to the image.

    Args:
        image: what was pushed.
        statements: the evidence of this run.
        version: of the release.
        revision: the commit's full hash.
        configuration: `Config.digest`.
        signer: who signs.
        registry: the client to write with.
        source: address of the source repository, without credentials.
        run: id of this run.
        committed: the commit's date.
        say: called with a line for people when it waits.

    Raises:
        ReleaseConflict: this version was released, and was something else.
        BuildonceError: it could not be signed or stored.
    """
    repository = image.repository
    lock = places.cache() / "locks" / f"release-{repository.replace('/', '_')}-{version}.lock"
    async with locked(lock, waiting=say):
        known = await find_record(
            repository, version=version, trust=signer.trust, registry=registry
        )
        if known is not None:
            _same(known, image, revision, configuration)
            await sign(image, statements, signer=signer, registry=registry)
            await verify_record(known, trust=signer.trust, registry=registry)
            return known, False
        verified = await sign(
            image,
            statements,
            signer=signer,
            registry=registry,
            annotations={"version": version, "revision": revision},
        )
        contents = {(item.type, item.name) for item in statements}
        manifest = await registry.manifest(repository, image.digest)
        record = Record(
            Release(version, revision, image, datetime.now(UTC), configuration),
            evidence=tuple(
                Listed(item.digest, item.type, item.name)
                for item in verified.newest()
                if (item.type, item.name) in contents
            ),
            platforms={
                child.platform: child.digest
                for child in manifest.children
                if child.platform and not child.platform.startswith("unknown")
            },
            source=source,
            run=run,
            committed=committed,
        )
        return await _store(record, manifest, signer, registry), True


async def find_record(
    repository: str,
    *,
    trust: Trust,
    registry: Registry,
    version: str | None = None,
    revision: str | None = None,
    digest: str | None = None,
) -> Record | None:
    """The record of a version, of a commit, or of a record's own digest; None: there is none.

    Raises:
        RecordRefused: there is one, and it is not to be believed.
        EvidenceUnavailable: the registry did not give a whole answer.
    """
    what = version or revision or digest or ""
    if version is not None:
        reference = version_tag(version)
    else:
        reference = digest or f"{REVISION_PREFIX}{revision}"
    try:
        manifest = await registry.manifest(repository, reference)
        record = await _read(repository, manifest, registry)
    except Absent:
        return None
    except RegistryError as error:
        raise EvidenceUnavailable(
            f"the release record of {what} could not be read, so nothing is known of it: "
            f"{error.message}",
            remedy=error.remedy,
        ) from None
    release = record.release
    if (version is not None and release.version != version) or (
        revision is not None and release.revision != revision
    ):
        raise RecordRefused(
            f"the registry gives the record of {on_one_line(release.version)} for {what}: "
            f"the tag {reference} was moved",
            remedy=f"find out who writes to {repository}; what was released is in the ledger",
        )
    verified = await read_evidence(Image(repository, manifest.digest), trust, registry=registry)
    if not verified.signatures:
        why = "; ".join(item.message for item in verified.refused) or "it has no signature"
        raise RecordRefused(
            f"the release record of {what} in {repository} is not to be believed: {why}",
            remedy="release the commit again with a key that is trusted here, "
            "or add the signer's public key to those that are trusted",
        )
    return replace(record, digest=manifest.digest, signed_by=verified.signatures[0].signed_by)


async def list_records(
    repository: str, *, trust: Trust, registry: Registry, limit: int = 20
) -> list[Record | RecordRefused]:
    """The newest releases in a repository, newest first; those not to be believed as their errors.

    Raises:
        EvidenceUnavailable: the registry did not give a whole answer.
    """
    try:
        tags = await registry.tags(repository)
    except RegistryError as error:
        raise EvidenceUnavailable(
            f"the releases in {repository} could not be listed: {error.message}",
            remedy=error.remedy,
        ) from None
    names = [tag for tag in tags if tag.startswith(VERSION_PREFIX)]

    async def read(tag: str) -> Record | RecordRefused | None:
        version = tag.removeprefix(VERSION_PREFIX).replace("_", "+")
        try:
            return await find_record(repository, version=version, trust=trust, registry=registry)
        except RecordRefused as error:
            return error

    # Versions begin with the commit's date, so the newest are the last by name.
    found = await each(read, sorted(names, reverse=True)[:limit])
    return [item for item in found if item is not None]


async def verify_record(record: Record, *, trust: Trust, registry: Registry) -> Verified:
    """Make sure that all of a release is there and signed: the image, that of each platform, and
    every piece of evidence that the record lists.

    Raises:
        NotSigned: the image, or one of its platforms, is not signed by anybody trusted.
        EvidenceMissing: something is gone, was changed, or is signed by somebody else.
        EvidenceUnavailable: the registry did not give a whole answer.
    """
    image = record.release.image
    try:
        parts = await parts_of(image, registry)
    except Absent as error:
        raise EvidenceMissing(
            f"the image of {record.release.version} is not there whole: {error.message}",
            remedy="restore it, or release the commit again as a new version",
        ) from None
    except RegistryError as error:
        raise EvidenceUnavailable(
            f"the image {image.reference} could not be read: {error.message}", remedy=error.remedy
        ) from None
    found = await each(lambda part: read_evidence(part, trust, registry=registry), parts)
    for verified in found:
        require_signature(verified)
    verified = found[0]
    present = {item.digest for item in verified.attestations}
    refused = {item.digest: item.message for item in verified.refused}
    gone = [item for item in record.evidence if item.digest not in present]
    if gone:
        reasons = [
            f"{item.name or item.type}: "
            + refused.get(item.digest, "is not there; it was removed or replaced")
            for item in gone
        ]
        # What replaced it has another digest: what is wrong with that one is worth knowing.
        listed = {item.digest for item in record.evidence}
        reasons += [message for digest, message in refused.items() if digest not in listed]
        raise EvidenceMissing(
            f"evidence of {record.release.version} is missing: " + "; ".join(reasons),
            remedy="restore it from a copy of the registry, or release the commit again",
        )
    return verified


def require_signature(verified: Verified) -> None:
    """Make sure that somebody who is trusted has signed the digest.

    Raises:
        NotSigned: nobody has; the message says what there is instead.
    """
    if verified.signatures:
        return
    refused = [item.message for item in verified.refused if item.what == "signature"]
    raise NotSigned(
        f"{verified.image.reference} is not signed by anybody who is trusted here: "
        + ("; ".join(refused) or "it has no signature at all"),
        remedy="deploy a digest that the pipeline released: buildonce release list",
    )


def _same(known: Record, image: Image, revision: str, configuration: str) -> None:
    release = known.release
    differing = [
        f"{name} {was} then, {now} now"
        for name, was, now in (
            ("image", release.image.digest, image.digest),
            ("commit", release.revision, revision),
            ("configuration", release.configuration, configuration),
        )
        if was != now
    ]
    if differing:
        raise ReleaseConflict(
            f"{release.version} was released on {release.created:%Y-%m-%d %H:%M} UTC and cannot "
            f"become something else: {'; '.join(differing)}",
            remedy="deploy the release that there is, or commit the change: a new commit is a new "
            "version",
        )


async def _store(record: Record, image: Manifest, signer: Signer, registry: Registry) -> Record:
    """Push the record, sign it, and only then give it its names."""
    release = record.release
    repository = release.image.repository
    layer = await registry.push_blob(repository, canonical(record.to_json()), RECORD_TYPE)
    config = await registry.push_blob(repository, b"{}", EMPTY)
    manifest = canonical(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": RECORD_TYPE,
            "config": config.to_json(),
            "layers": [layer.to_json()],
            "subject": image.descriptor.to_json(),
            "annotations": {
                "org.opencontainers.image.version": release.version,
                "org.opencontainers.image.revision": release.revision,
                "org.opencontainers.image.created": release.created.isoformat(),
            },
        }
    )
    digest = await registry.push_manifest(repository, manifest, OCI_MANIFEST)
    own = Image(repository, digest)
    await sign(own, (), signer=signer, registry=registry, annotations={"version": release.version})
    names = [version_tag(release.version)]
    if ".dirty." not in release.version:
        names.append(f"{REVISION_PREFIX}{release.revision}")
    for name in names:
        await registry.push_manifest(repository, manifest, OCI_MANIFEST, tag=name)
    stored = await find_record(
        repository, version=release.version, trust=signer.trust, registry=registry
    )
    if stored is None or stored.digest != digest:
        raise ReleaseConflict(
            f"{release.version} was released by somebody else at this very time",
            remedy="run the pipeline again: it will take the release that there is",
        )
    return stored


async def _read(repository: str, manifest: Manifest, registry: Registry) -> Record:
    """What a record says; its signature is not looked at here."""
    if manifest.artifact_type != RECORD_TYPE or len(manifest.layers) != 1:
        raise RecordRefused(f"{repository}@{manifest.digest} is no release record")
    data = await registry.blob(repository, manifest.layers[0], limit=_RECORD_BYTES)
    try:
        record = Record.from_json(parse_json(data), repository=repository)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise RecordRefused(
            f"the release record {repository}@{manifest.digest} cannot be understood: {error}"
        ) from None
    if manifest.subject is None or manifest.subject.digest != record.release.image.digest:
        raise RecordRefused(
            f"the release record {repository}@{manifest.digest} is about another image than it says"
        )
    return record
