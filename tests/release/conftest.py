"""What the tests of releases share: a real registry, a real key, images without content."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest

from buildonce import predicates
from buildonce.config import Config
from buildonce.release import Image, Revision
from buildonce.release.copy import copy_release
from buildonce.release.descriptors import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, canonical
from buildonce.release.envelopes import Statement
from buildonce.release.models import Record
from buildonce.release.provenance import Build
from buildonce.release.registry import Registry
from buildonce.release.signing import Signer
from buildonce.release.source import Origin
from buildonce.release.store import Store
from buildonce.release.transport import Patience
from tests.loopback import registry as serving

_names = itertools.count()
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
COMMIT = "1a2b3c4" + "0" * 33
# Failures are asked for again at once: the tests know that they will not pass.
HURRIED = Patience(attempts=2, pause=0.01, silence=2.0)


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a registry that everybody may write to."""
    with serving(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def repository(host: str) -> str:
    """A repository of the test's own."""
    return f"{host}/team/app{next(_names)}"


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with Registry(patience=HURRIED) as client:
        yield client


def config_of(repository: str, folder: Path, more: str = "") -> Config:
    """A project's configuration."""
    text = f'[project]\nname = "app"\nrepository = "{repository}"\n{more}'
    return Config.parse(text, path=folder / "pipeline.toml")


def make_signer(folder: Path) -> Signer:
    """A signer with a key of its own in `folder`."""

    async def make() -> Signer:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BUILDONCE_HOME", str(folder))
            config = config_of("registry.test/app", folder)
            return await Signer.configured(config, say=lambda _: None)

    return anyio.run(make)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the machine's own key of the project "app" is."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def signer(home: Path) -> Signer:
    """The pipeline's signer."""
    return make_signer(home)


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    """Somebody else's signer."""
    return make_signer(tmp_path_factory.mktemp("stranger"))


async def push_image(
    registry: Registry, repository: str, content: str = "", tag: str | None = None
) -> Image:
    """An image without layers; other `content`, other digest."""
    data = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": [content]}})
    config = await registry.push_blob(repository, data.encode(), OCI_CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.to_json(),
        "layers": [],
    }
    digest = await registry.push_manifest(repository, canonical(manifest), OCI_MANIFEST, tag=tag)
    return Image(repository, digest)


async def push_index(registry: Registry, repository: str, content: str = "") -> Image:
    """An index of two images; other `content`, other digest."""
    entries = []
    for architecture in ("amd64", "arm64"):
        child = await push_image(registry, repository, f"{content}{architecture}")
        found = await registry.manifest(repository, child.digest)
        platform = {"os": "linux", "architecture": architecture}
        entries.append({**found.descriptor.to_json(), "platform": platform})
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    digest = await registry.push_manifest(repository, canonical(index), OCI_INDEX)
    return Image(repository, digest)


def statements() -> list[Statement]:
    """Evidence as a commit stage leaves it, several of a type among it."""
    tests = [
        Statement(
            predicates.TEST_RESULT,
            {"result": "PASSED", "configuration": [{"name": name}]},
            name,
            NOW,
        )
        for name in ("unit_tests", "type_check")
    ]
    boms = [
        Statement(
            predicates.CYCLONEDX,
            {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"name": name}]},
            name,
            NOW,
        )
        for name in ("sbom_python", "sbom_image")
    ]
    return [*tests, *boms]


def build(version: str = "2026.11.21+g1a2b3c4", **changes: object) -> Build:
    """What is known of a build."""
    values: dict[str, object] = {
        "pipeline": "app",
        "revision": Revision(COMMIT, version, NOW, dirty=False),
        "origin": Origin("https://git.test/team/app", "main"),
        "configuration": "sha256:" + "cd" * 32,
        "run": "20261121T120000Z-abcdef",
        "started": NOW,
        "bases": {"python": "registry.test/python:3.12@sha256:" + "ef" * 32},
    }
    return Build(**{**values, **changes})  # type: ignore[arg-type]


@dataclass
class Project:
    """A project with one release.

    Attributes:
        older: an earlier release, of another image, that lies in another repository.
    """

    store: Store
    image: Image
    record: Record
    signer: Signer
    older: Record


@pytest.fixture(scope="session")
def released(host: str, signer: Signer, home: Path) -> Record:
    """A release, made once: signing takes seconds. Tests only read it."""
    return release_once(f"{host}/team/released", home, build())


@pytest.fixture(scope="session")
def older(host: str, signer: Signer, home: Path) -> Record:
    """The release before it."""
    return release_once(f"{host}/team/older", home, build("2026.11.20+gaaaaaaa"), "older")


def release_once(repository: str, home: Path, facts: Build, content: str = "") -> Record:
    """Cut a release of an image without layers."""

    async def make() -> Record:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BUILDONCE_HOME", str(home))
            async with Store.open(config_of(repository, home)) as store:
                image = await push_image(store.registry, repository, content)
                record, new = await store.cut(image, statements(), facts)
                assert new
                return record

    return anyio.run(make)


def project_of(
    record: Record, older: Record, signer: Signer, registry: Registry, folder: Path
) -> Project:
    """The project of a release."""
    image = record.release.image
    config = config_of(image.repository, folder)
    store = Store(config, registry, repository=image.repository, trust=None, say=lambda _: None)
    return Project(store, image, record, signer, older)


@pytest.fixture
async def project(
    repository: str,
    released: Record,
    older: Record,
    signer: Signer,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    registry: Registry,
) -> Project:
    """A project whose release is the test's own to tamper with."""
    monkeypatch.setenv("BUILDONCE_HOME", str(home))
    record = await copy_release(released, repository, trust=signer.trust, registry=registry)
    return project_of(record, older, signer, registry, home)


@pytest.fixture
def untouched(
    released: Record,
    older: Record,
    signer: Signer,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    registry: Registry,
) -> Project:
    """The project of the one release that all tests share."""
    monkeypatch.setenv("BUILDONCE_HOME", str(home))
    return project_of(released, older, signer, registry, home)
