from __future__ import annotations

import json
from pathlib import Path

import pytest

from buildonce.errors import ExitCode
from buildonce.release.attached import ATTESTATIONS
from buildonce.release.copy import copy_release
from buildonce.release.errors import EvidenceMissing, RecordRefused, ReleaseConflict
from buildonce.release.provenance import provenance
from buildonce.release.registry import Registry
from buildonce.release.signing import Signer
from buildonce.release.source import plain_address
from buildonce.release.store import NoSuchRelease
from tests.loopback import registry as serving
from tests.release.conftest import COMMIT, Project, build, push_image, statements
from tests.release.tampering import forge_record, lay

pytestmark = pytest.mark.anyio


async def test_a_release_is_found_by_all_its_names(untouched: Project) -> None:
    record = untouched.record
    assert len(record.evidence) == len(statements()) + 1
    for name in (record.release.version, COMMIT, COMMIT[:7], record.release.image.digest, "latest"):
        assert await untouched.store.get(name) == record
    assert await untouched.store.list() == [record]
    with pytest.raises(NoSuchRelease, match=r"no release '2000.01.01\+g0000000'"):
        await untouched.store.get("2000.01.01+g0000000")


async def test_the_same_release_again_changes_nothing(project: Project) -> None:
    record, new = await project.store.cut(project.image, statements(), build(run="another"))
    assert not new
    assert record == project.record
    assert len((await project.store.verify(record)).attestations) == len(record.evidence)


async def test_a_version_cannot_become_something_else(project: Project, registry: Registry) -> None:
    other = await push_image(registry, project.image.repository, "other")
    for image, changes in (
        (other, {}),
        (project.image, {"configuration": "sha256:" + "00" * 32}),
    ):
        with pytest.raises(ReleaseConflict, match="cannot become something else") as raised:
            await project.store.cut(image, statements(), build(**changes))
        assert raised.value.exit_code == ExitCode.POLICY_DENIED
    assert await project.store.get("latest") == project.record


async def test_a_release_is_the_same_in_another_registry(
    untouched: Project, registry: Registry, tmp_path: Path
) -> None:
    with serving(tmp_path) as other:
        there = f"{other}/production/app"
        trust = untouched.signer.trust
        for _ in range(2):
            copied = await copy_release(untouched.record, there, trust=trust, registry=registry)
            assert copied.digest == untouched.record.digest
            assert copied.release.image.digest == untouched.image.digest
            assert copied.release.image.repository == there
        tags = await registry.tags(there)
        assert {f"rev-{COMMIT}", "rel-2026.11.21_g1a2b3c4"} <= set(tags)


async def test_what_is_not_trusted_there_gets_no_name_there(
    untouched: Project, registry: Registry, repository: str, stranger: Signer
) -> None:
    with pytest.raises(RecordRefused, match="another key"):
        await copy_release(untouched.record, repository, trust=stranger.trust, registry=registry)
    assert not [tag for tag in await registry.tags(repository) if tag.startswith("re")]


@pytest.mark.parametrize(
    "wrong",
    [
        {"created": "9999-12-31T23:59:59-14:00"},
        {"created": None},
        {"schema": 2},
        {"schema": "\x1b[2J"},
        {"evidence": {}},
        {"platforms": []},
        {"digest": "sha256:short"},
        {"version": ""},
    ],
    ids=str,
)
async def test_no_record_breaks_the_reader(
    project: Project, registry: Registry, wrong: dict[str, object]
) -> None:
    """Nobody has signed it, and it is read before that is found out."""
    await forge_record(project, registry, {**project.record.to_json(), **wrong})
    with pytest.raises(RecordRefused) as refused:
        await project.store.find(project.record.release.version)
    assert refused.value.message.isprintable()


async def test_a_missing_piece_stops_the_copy(project: Project, registry: Registry) -> None:
    await lay(registry, project.image, ATTESTATIONS, [])
    target = f"{project.image.repository}-copy"
    with pytest.raises(EvidenceMissing):
        await copy_release(project.record, target, trust=project.signer.trust, registry=registry)
    assert not [tag for tag in await registry.tags(target) if tag.startswith("re")]


def test_provenance_says_where_an_image_comes_from() -> None:
    predicate = json.loads(json.dumps(provenance(build()).predicate))
    source, base = predicate["buildDefinition"]["resolvedDependencies"]
    assert source["uri"] == "git+https://git.test/team/app@refs/heads/main"
    assert source["digest"] == {"gitCommit": COMMIT}
    assert base["digest"] == {"sha256": "ef" * 32}
    assert predicate["runDetails"]["builder"]["id"]


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        ("https://user:secret@git.test/team/app.git?token=x", "https://git.test/team/app"),
        ("git@git.test:team/app.git", "https://git.test/team/app"),
        ("ssh://git@git.test:2222/team/app", "https://git.test/team/app"),
        ("/home/ada/app", ""),
        ("../app", ""),
    ],
)
def test_a_source_address_has_no_credentials(address: str, plain: str) -> None:
    assert plain_address(address) == plain
