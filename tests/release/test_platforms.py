"""A release for several platforms: the index is the artifact, all its images are part of it."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

from buildonce.release.copy import copy_release
from buildonce.release.errors import EvidenceMissing, EvidenceUnavailable
from buildonce.release.models import Image, Record, Release
from buildonce.release.policy_check import examine
from buildonce.release.record import find_record, verify_record
from buildonce.release.registry import Registry
from buildonce.release.signing import Signer
from buildonce.release.store import Store

from .conftest import build, config_of, push_index, statements
from .hostile import faulty, status

pytestmark = pytest.mark.anyio

UNKNOWN = json.dumps({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "no"}]}).encode()
ENVIRONMENT = """
[policies.production]
tests = []
[environments.production]
port = 9003
policy = "production"
"""


@pytest.fixture(scope="session")
def for_two(host: str, signer: Signer, home: Path) -> Record:
    """A release for two platforms, signed once; tests only read it."""

    async def cut() -> Record:
        repository = f"{host}/team/platforms"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BUILDONCE_HOME", str(home))
            async with Store.open(config_of(repository, home)) as store:
                index = await push_index(store.registry, repository)
                record, _ = await store.cut(index, statements(), build())
                return record

    return anyio.run(cut)


async def test_the_index_is_the_artifact_and_names_its_images(
    for_two: Record, registry: Registry
) -> None:
    index = for_two.release.image
    manifest = await registry.manifest(index.repository, index.digest)
    assert manifest.is_index
    assert for_two.platforms == {child.platform: child.digest for child in manifest.children}
    assert sorted(for_two.platforms) == ["linux/amd64", "linux/arm64"]


async def test_a_copy_has_every_platform_and_the_same_digest(
    for_two: Record, signer: Signer, registry: Registry, repository: str
) -> None:
    copied = await copy_release(for_two, repository, trust=signer.trust, registry=registry)
    assert copied.release.image == Image(repository, for_two.release.image.digest)
    await verify_record(copied, trust=signer.trust, registry=registry)
    for digest in copied.platforms.values():
        assert (await registry.manifest(repository, digest)).digest == digest


async def test_a_platform_that_is_missing_is_refused(
    for_two: Record, host: str, signer: Signer, home: Path, registry: Registry, repository: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("BUILDONCE_HOME", str(home))
    child = for_two.platforms["linux/arm64"]
    with faulty(host, {f"/manifests/{child}": status(404, UNKNOWN)}) as address:
        there = f"{address}/team/platforms"
        record = await find_record(
            there, version=for_two.release.version, trust=signer.trust, registry=registry
        )
        assert record is not None
        with pytest.raises(EvidenceMissing, match=f"is not there whole: .*{child}"):
            await verify_record(record, trust=signer.trust, registry=registry)
        with pytest.raises(EvidenceMissing, match="cannot be copied whole"):
            await copy_release(record, repository, trust=signer.trust, registry=registry)
        config = config_of(there, home, ENVIRONMENT)
        decision = await examine(
            record.release, "production", config=config, ledger=None, registry=registry
        )
        (line,) = decision.failing
        assert (line.what, line.state) == ("image", "missing")
        assert child in line.found


async def test_the_index_exchanged_for_one_of_its_images_is_refused(
    for_two: Record, host: str, signer: Signer, home: Path, registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """That one is signed too: each platform's image is."""
    monkeypatch.setenv("BUILDONCE_HOME", str(home))
    index, child = for_two.release.image, for_two.platforms["linux/amd64"]
    manifest = await registry.manifest(index.repository, child)
    instead = status(200, manifest.data, Content_Type=manifest.media_type)
    with faulty(host, {f"/manifests/{index.digest}": instead}) as address:
        record = await find_record(
            f"{address}/team/platforms", version=for_two.release.version, trust=signer.trust,
            registry=registry,
        )  # fmt: skip
        assert record is not None
        with pytest.raises(EvidenceUnavailable, match="gave something else"):
            await verify_record(record, trust=signer.trust, registry=registry)
    # Asked for as if it were the release:
    image = Image(index.repository, child)
    passed_off = Release(**{**vars(for_two.release), "image": image})
    config = config_of(index.repository, home, ENVIRONMENT)
    decision = await examine(
        passed_off, "production", config=config, ledger=None, registry=registry
    )
    failing = {line.what: line for line in decision.failing}
    assert "it differs: digest is" in failing["release record"].found
    assert "signature" not in failing
