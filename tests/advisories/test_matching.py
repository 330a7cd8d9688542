from __future__ import annotations

import shutil
import subprocess
import zipfile
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from buildonce.advisories import BadDatabase, Database, NoAdvisories, vulnerabilities
from buildonce.advisories.debian_version import debian_key
from buildonce.advisories.sample import sample_database
from buildonce.advisories.scores import score_of

DEBIAN = "?arch=amd64&distro=debian-12.5"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDONCE_CACHE", str(tmp_path_factory.mktemp("cache")))
        return sample_database()


def sbom(*purls: str) -> dict[str, object]:
    components = [{"type": "library", "name": "x", "purl": purl} for purl in purls]
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": components}


PLANTED = {
    "pkg:pypi/jinja2@2.10": "CVE-2019-10906",
    "pkg:pypi/PyYAML@5.3": "CVE-2020-1747",
    "pkg:pypi/requests@2.19.0": "CVE-2018-18074",
    "pkg:pypi/idna@3.6": "CVE-2024-3651",
    "pkg:pypi/octoprint@1.8.2": "CVE-2022-3607",
    f"pkg:deb/debian/libcurl4@7.88.1-10{DEBIAN}&upstream=curl": "CVE-2023-38545",
}
HARMLESS = [
    "pkg:pypi/jinja2@3.1.6",
    "pkg:pypi/pyyaml@6.0.2",
    "pkg:pypi/pyyaml-env-tag@0.1",
    "pkg:pypi/requests-oauthlib@1.3.0",
    "pkg:pypi/idna@3.7",
    f"pkg:deb/debian/libcurl4@7.88.1-10%2Bdeb12u4{DEBIAN}&upstream=curl",
    "pkg:deb/debian/libcurl4@7.74.0-1?distro=debian-11&upstream=curl",
]


def test_planted_packages_are_found_and_look_alikes_are_not(database: Database) -> None:
    found = vulnerabilities(sbom(*PLANTED, *HARMLESS), database)
    missed = {
        purl: name
        for purl, name in PLANTED.items()
        if not any(v.package.purl == purl and name in v.records for v in found)
    }
    false_alarms = [v for v in found if v.package.purl in HARMLESS]
    print(f"planted {len(PLANTED)}, missed {missed}, false alarms {false_alarms}")
    assert not missed
    assert not false_alarms


def test_fix_score_and_aliases_are_told(database: Database) -> None:
    (found,) = vulnerabilities(sbom("pkg:pypi/idna@3.6"), database)
    assert (found.id, found.fixed, found.score, found.severity) == (
        "CVE-2024-3651",
        ("3.7",),
        7.5,
        "high",
    )
    assert found.aliases == ("PYSEC-2024-60",)


def test_an_ecosystem_without_advisories_is_refused(database: Database) -> None:
    with pytest.raises(NoAdvisories, match="npm"):
        vulnerabilities(sbom("pkg:npm/left-pad@1.0.0"), database)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (None, "is missing"),
        (b"", "corrupt"),
        (b"PK\x03\x04 no zip", "corrupt"),
        ({}, "has no advisory"),
        ({"a.json": "{"}, "corrupt"),
        ({"a.json": '{"id": "A-1", "modified": "2020-01-01T00:00:00Z"}'}, "days old"),
        ({"a.json": '{"id": "A-1", "modified": "2999-01-01T00:00:00Z"}'}, "future"),
    ],
)
def test_a_database_that_proves_nothing_is_refused(
    tmp_path: Path, content: bytes | dict[str, str] | None, cause: str
) -> None:
    archive = tmp_path / "osv-scanner" / "PyPI" / "all.zip"
    if content is not None:
        archive.parent.mkdir(parents=True)
    if isinstance(content, bytes):
        archive.write_bytes(content)
    elif content is not None:
        with zipfile.ZipFile(archive, "w") as opened:
            for name, text in content.items():
                opened.writestr(name, text)
    where = tmp_path if content is not None else tmp_path / "absent"
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(BadDatabase, match=cause) as caught:
        Database.open(where, max_age=timedelta(days=7), now=now)
    assert "buildonce advisories update" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("vector", "score"),
    [
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", 9.8),
        ("AV:N/AC:L/Au:N/C:P/I:P/A:P", 7.5),
        ("CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N", 9.3),
        ("CVSS:3.1/nonsense", None),
        ("", None),
    ],
)
def test_scores(vector: str, score: float | None) -> None:
    assert score_of(vector) == score


ORDER = ["1.0~rc1", "1.0", "1.0-1~deb12u1", "1.0-1", "1.0-1+deb12u1", "1.0a-1", "1.10-1", "1:0.1"]


def test_debian_versions_are_in_dpkgs_order() -> None:
    assert sorted(reversed(ORDER), key=debian_key) == ORDER


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="there is no dpkg to compare with")
def test_debian_versions_as_dpkg_itself_compares() -> None:
    for older, newer in pairwise(ORDER):
        subprocess.run(["dpkg", "--compare-versions", older, "lt", newer], check=True)
