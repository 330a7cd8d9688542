from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildonce.errors import BuildonceError
from buildonce.release import Image, Release, Revision, read_revision

DIGEST = "sha256:" + "ab" * 32
_hex = st.text("0123456789abcdef", min_size=64, max_size=64)


def release(**changes: object) -> Release:
    fields: dict[str, object] = {
        "version": "2026.11.21+g1a2b3c4",
        "revision": "1a2b3c4" + "0" * 33,
        "image": Image("registry.test:5000/team/app", DIGEST),
        "created": datetime(2026, 11, 21, 9, tzinfo=UTC),
        "configuration": DIGEST,
    }
    return Release(**{**fields, **changes})  # type: ignore[arg-type]


@given(_hex, _hex, st.datetimes(timezones=st.just(timezone(timedelta(hours=5, minutes=30)))))
def test_a_release_survives_json(digest: str, configuration: str, created: datetime) -> None:
    original = release(
        image=Image("registry.test/app", f"sha256:{digest}"),
        configuration=f"sha256:{configuration}",
        created=created,
    )
    copy = Release.from_json(json.loads(json.dumps(original.to_json())))
    assert copy == original
    assert copy.created.tzinfo is UTC


@pytest.mark.parametrize(
    "changes",
    [
        {"version": ""},
        {"version": "1 2"},
        {"revision": "main"},
        {"configuration": "sha256:12"},
        {"created": datetime(2026, 11, 21, 9)},
    ],
)
def test_a_wrong_release_cannot_exist(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        release(**changes)


@pytest.mark.parametrize("digest", ["", "latest", "sha256:AB" + "ab" * 31, "sha256:" + "ab" * 33])
def test_an_image_has_a_whole_digest(digest: str) -> None:
    with pytest.raises(ValueError, match="digest"):
        Image("registry.test/app", digest)


@pytest.mark.parametrize(
    "repository", ["", "app", "registry.test/app:1", "registry.test/a@b", "r/"]
)
def test_an_image_is_named_by_nothing_movable(repository: str) -> None:
    with pytest.raises(ValueError, match="repository"):
        Image(repository, DIGEST)


def test_a_reference_is_read_back_without_its_tag() -> None:
    image = Image("127.0.0.1:5080/team/app", DIGEST)
    assert Image.from_reference(image.reference) == image
    assert Image.from_reference(f"127.0.0.1:5080/team/app:1.2@{DIGEST}") == image
    with pytest.raises(ValueError):
        Image.from_reference("127.0.0.1:5080/team/app:1.2")


def git(root: Path, *args: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.test"]
    command = ["git", *identity, *args]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2026-03-01T23:30:00-0500")
    git(tmp_path, "init", "--quiet")
    (tmp_path / ".gitignore").write_text("out/\n")
    (tmp_path / "a.py").write_text("a = 1\n")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message=first")
    return tmp_path


def revision(root: Path) -> Revision:
    return anyio.run(read_revision, root)


def test_a_clean_checkout_is_named_by_date_and_commit(checkout: Path) -> None:
    (checkout / "out").mkdir()
    (checkout / "out" / "ignored").write_text("x")
    found = revision(checkout)
    assert found.commit == git(checkout, "rev-parse", "HEAD").strip()
    assert found.version == f"2026.03.02+g{found.commit[:7]}"
    assert not found.dirty


def test_a_dirty_checkout_is_named_by_its_content(checkout: Path) -> None:
    (checkout / "b.py").write_text("b = 1\n")
    first = revision(checkout)
    assert first.dirty
    assert first == revision(checkout)
    (checkout / "b.py").write_text("b = 2\n")
    second = revision(checkout)
    assert second.version != first.version
    # What the content is called does not depend on how it is staged, and nothing was staged by us.
    assert git(checkout, "status", "--porcelain") == "?? b.py\n"
    git(checkout, "add", "b.py")
    assert revision(checkout) == second
    tree = git(checkout, "write-tree").strip()
    assert second.version.endswith(f".dirty.{tree[:8]}")


def test_a_folder_inside_the_checkout_is_the_same_checkout(checkout: Path) -> None:
    (checkout / "sub").mkdir()
    (checkout / "b.py").write_text("b = 1\n")
    assert revision(checkout / "sub") == revision(checkout)


def test_without_a_commit_or_a_repository_it_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(BuildonceError, match="not in a Git checkout") as raised:
        revision(tmp_path)
    assert "git init" in (raised.value.remedy or "")
    git(tmp_path, "init", "--quiet")
    with pytest.raises(BuildonceError, match="no commit yet"):
        revision(tmp_path)
