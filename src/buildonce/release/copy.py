"""Bringing a release to another registry, with all that makes it believable, and verifying it.

    record = await copy_release(record, "registry.production.example/app", trust=theirs, …)

Image, the images of its platforms, signatures, attestations and the release record keep their bytes
and so their digests and signatures. The release gets its names (`rel-`, `rev-`) in the new place
only after everything was read there and verified with that place's own trust root.
"""

from __future__ import annotations

from dataclasses import replace

from buildonce.release.attached import ATTESTATIONS, SIGNATURES, attach, read_attached
from buildonce.release.descriptors import Descriptor, Manifest
from buildonce.release.errors import Absent, EvidenceMissing, RecordRefused, ReleaseConflict
from buildonce.release.evidence import Trust
from buildonce.release.models import Image, Record
from buildonce.release.parallel import each
from buildonce.release.record import REVISION_PREFIX, find_record, verify_record, version_tag
from buildonce.release.registry import Registry

_DEPTH = 4  # an index in an index in an index is nothing that anybody builds


async def copy_release(
    record: Record, to_repository: str, *, trust: Trust, registry: Registry
) -> Record:
    """Copy a release to another repository and verify it there; again it changes nothing.

    Args:
        record: the release, as found where it is now.
        to_repository: "host:port/name" of where it is to be.
        trust: whose signatures count in that place.
        registry: the client to read and write with.

    Returns:
        The release as found in the new place; the digest is the same.

    Raises:
        EvidenceMissing: a piece is not there to be copied, or not believed in the new place.
        Refusal: in its other kinds, as for `find_record` and `verify_record`.
        ReleaseConflict: the new place has another release of this version.
        RegistryError: one of the registries did not do its part.
    """
    release = record.release
    there = replace(release.image, repository=to_repository)
    tag = version_tag(release.version)
    known = await find_record(
        to_repository, version=release.version, trust=trust, registry=registry
    )
    if known is not None and known.digest != record.digest:
        raise ReleaseConflict(
            f"{to_repository} has another release {release.version}: its record is "
            f"{known.digest[:19]}, not {record.digest[:19]}",
            remedy="commit anew: a new commit is a new version",
        )
    source = release.image.repository
    try:
        parts = await _copy_manifest(source, to_repository, release.image.digest, registry)
        # The record refers to the image, so it comes after it.
        parts += await _copy_manifest(source, to_repository, record.digest, registry)
        await each(lambda digest: _copy_evidence(source, to_repository, digest, registry), parts)
    except Absent as error:
        raise EvidenceMissing(
            f"{release.version} cannot be copied whole from {source}: {error.message}",
            remedy="restore what is missing, or release the commit again as a new version",
        ) from None
    copied = await find_record(to_repository, digest=record.digest, trust=trust, registry=registry)
    if copied is None:
        raise RecordRefused(f"{to_repository} does not show the record that was copied to it")
    await verify_record(copied, trust=trust, registry=registry)
    names = [tag]
    if ".dirty." not in release.version:
        names.append(f"{REVISION_PREFIX}{release.revision}")
    manifest = await registry.manifest(there.repository, record.digest)
    for name in names:
        if known is None:
            await registry.push_manifest(
                to_repository, manifest.data, manifest.media_type, tag=name
            )
    return copied


async def _copy_manifest(
    source: str, target: str, digest: str, registry: Registry, depth: int = 0
) -> list[str]:
    """Copy a manifest and all that it names; the digests of the manifests."""
    manifest = await registry.manifest(source, digest)
    if depth > _DEPTH:
        raise EvidenceMissing(f"{source}@{digest} is nested too deeply to be an image")
    copied = [digest]
    # What a manifest names must be there before it: registries insist.
    for children in await each(
        lambda child: _copy_manifest(source, target, child.digest, registry, depth + 1),
        manifest.children,
    ):
        copied += children
    await each(lambda blob: _copy_blob(source, target, blob, registry), _blobs(manifest))
    await registry.push_manifest(target, manifest.data, manifest.media_type)
    return copied


async def _copy_blob(source: str, target: str, blob: Descriptor, registry: Registry) -> None:
    await registry.copy_blob(source, target, blob)


async def _copy_evidence(source: str, target: str, digest: str, registry: Registry) -> None:
    """Lay beside the copy what lies beside the original, next to what is there already."""
    for kind in (SIGNATURES, ATTESTATIONS):
        items = await read_attached(registry, Image(source, digest), kind)
        await attach(registry, Image(target, digest), kind, items)


def _blobs(manifest: Manifest) -> list[Descriptor]:
    blobs = [*manifest.layers, *([manifest.config] if manifest.config else [])]
    return list({blob.digest: blob for blob in blobs}.values())
