"""Git repositories that a directory holds."""

from __future__ import annotations

from pathlib import Path

import dagger
import pytest

from tests.engine.engines import failure
from tests.engine.test_git import git

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two commits on main, the second tagged v1.10.0; v1.9.0 and the branch side on the first."""
    work = tmp_path_factory.mktemp("work")
    git(work, "init", "-q")
    (work / ".gitignore").write_text("ignored\n")
    (work / "f.txt").write_text("one\n")
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", "one")
    git(work, "tag", "v1.9.0")
    git(work, "tag", "v2.0.0-rc.1")
    git(work, "branch", "side")
    (work / "f.txt").write_text("two\n")
    git(work, "commit", "-q", "-a", "-m", "two")
    git(work, "tag", "-a", "v1.10.0", "-m", "second")
    git(work, "tag", "vendor")
    git(work, "tag", "-d", "v2.0.0-rc.1")
    return work


@pytest.fixture
def repository(client: dagger.Client, work: Path) -> dagger.GitRepository:
    return client.host().directory(str(work)).as_git()


async def test_references(repository: dagger.GitRepository, work: Path) -> None:
    first, second = git(work, "rev-parse", "HEAD~", "HEAD").split()
    for found, commit, name in (
        (repository.head(), second, "refs/heads/main"),
        (repository.branch("side"), first, "refs/heads/side"),
        (repository.tag("v1.10.0"), second, "refs/tags/v1.10.0"),
        (repository.latest_version(), second, "refs/tags/v1.10.0"),
        (repository.ref("side"), first, "refs/heads/side"),
        (repository.commit(first), first, first),
    ):
        assert (await found.commit(), await found.ref()) == (commit, name)
    assert sorted(set(await repository.tags())) == ["v1.10.0", "v1.9.0", "vendor"]
    assert await repository.branches() == ["main", "side"]
    assert await repository.branch("side").common_ancestor(repository.head()).commit() == first
    assert "does not contain ref" in str(await failure(repository.branch("none").commit()))


async def test_trees(repository: dagger.GitRepository, tmp_path: Path) -> None:
    side = repository.branch("side").tree()
    assert await side.entries() == [".git/", ".gitignore", "f.txt"]
    assert await side.file("f.txt").contents() == "one\n"
    assert await repository.head().tree(discard_git_dir=True).entries() == [".gitignore", "f.txt"]
    for depth, subjects in ((1, ["two"]), (0, ["two", "one"])):
        target = tmp_path / str(depth)
        await repository.head().tree(depth=depth).export(str(target))
        assert git(target, "log", "--format=%s").split() == subjects
        assert git(target, "status", "--porcelain") == ""


async def test_what_is_not_committed(
    client: dagger.Client, work: Path, repository: dagger.GitRepository
) -> None:
    assert await repository.uncommitted().is_empty()
    dirty = (
        client.host()
        .directory(str(work))
        .with_new_file("f.txt", "changed\n")
        .with_new_file("new/g.txt", "g\n")
        .with_new_file("ignored", "ignored")
    )
    changes = dirty.as_git().uncommitted()
    assert await changes.added_paths() == ["new/", "new/g.txt"]
    assert await changes.modified_paths() == ["f.txt"]
    assert await changes.before().file("f.txt").contents() == "two\n"


async def test_made_in_a_container(client: dagger.Client, work: Path) -> None:
    bare = client.host().directory(str(work / ".git"))
    assert await bare.as_git().branch("side").tree().file("f.txt").contents() == "one\n"


async def test_no_repository(client: dagger.Client, work: Path) -> None:
    assert "git" in str(await failure(client.directory().as_git().head().commit()))
    whole = client.host().directory(str(work))
    worktree = whole.without_directory(".git").with_new_file(".git", "gitdir: /elsewhere\n")
    assert await failure(worktree.as_git().head().commit())


@pytest.mark.embedded_only
async def test_a_repository_that_leads_to_the_host(
    client: dagger.Client, work: Path, tmp_path: Path
) -> None:
    """Its objects, its configuration and its programs are not what git here uses."""
    whole = client.host().directory(str(work))
    there = tmp_path / "touched"
    touch = f'"touch {there}; false"'
    config = f"[core]\n\tfsmonitor = {touch}\n[uploadpack]\n\tpackObjectsHook = {touch}\n"
    hostile = whole.with_new_file(".git/config", config).with_new_file(
        ".git/hooks/post-checkout", f"#!/bin/sh\ntouch {there}\n", permissions=0o755
    )
    assert await hostile.as_git().head().tree().file("f.txt").contents() == "two\n"
    assert await hostile.as_git().uncommitted().modified_paths() == []
    assert not there.exists()
    objects = str(work / ".git/objects")
    for changed in (
        whole.with_new_file(".git/objects/info/alternates", objects),
        whole.with_new_file(".git/commondir", str(work / ".git")),
        whole.without_directory(".git/objects").with_symlink(objects, ".git/objects"),
    ):
        assert ".git/" in str(await failure(changed.as_git().head().commit()))
