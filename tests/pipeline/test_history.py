"""Where the history lies: of a checkout, a worktree, a shallow, a partial and a borrowing clone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from buildonce.errors import BuildonceError
from buildonce.pipeline.history import read_history

pytestmark = pytest.mark.anyio


def git(folder: Path, *arguments: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    identity = ["-c", "user.name=T", "-c", "user.email=t@example.test"]
    done = subprocess.run(
        ["git", *identity, *arguments],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    for number in (1, 2):
        (folder / "file").write_text(str(number), "utf-8")
        git(folder, "add", "file")
        git(folder, "commit", "--quiet", "--message", str(number))
    return folder


async def test_a_checkout(checkout: Path) -> None:
    history = await read_history(checkout)
    assert history.folder == checkout / ".git"
    assert history.head == git(checkout, "rev-parse", "HEAD")
    assert (history.alternates, history.incomplete, history.object_format) == ((), "", "sha1")


async def test_a_worktree_shares_the_history_and_has_a_head_of_its_own(checkout: Path) -> None:
    worktree = checkout.parent / "worktree"
    git(checkout, "worktree", "add", "--quiet", "--detach", str(worktree), "HEAD~1")
    history = await read_history(worktree)
    assert history.folder == checkout / ".git"
    assert history.head == git(checkout, "rev-parse", "HEAD~1")


async def test_a_shallow_clone_is_incomplete(checkout: Path) -> None:
    git(checkout.parent, "clone", "--quiet", "--depth=1", f"file://{checkout}", "shallow")
    assert "shallow" in (await read_history(checkout.parent / "shallow")).incomplete


async def test_a_partial_clone_is_incomplete(checkout: Path) -> None:
    git(checkout, "config", "uploadpack.allowFilter", "true")
    source = f"file://{checkout}"
    git(checkout.parent, "clone", "--quiet", "--filter=blob:none", source, "partial")
    assert "partial" in (await read_history(checkout.parent / "partial")).incomplete


async def test_borrowed_objects_belong_to_it(checkout: Path) -> None:
    git(checkout.parent, "clone", "--quiet", "--shared", str(checkout), "middle")
    git(checkout.parent, "clone", "--quiet", "--shared", "middle", "outer")
    history = await read_history(checkout.parent / "outer")
    assert set(history.alternates) == {
        checkout / ".git" / "objects",
        checkout.parent / "middle" / ".git" / "objects",
    }


async def test_a_repository_of_long_hashes(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--object-format=sha256")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "1")
    history = await read_history(tmp_path)
    assert history.object_format == "sha256"
    assert len(history.head) == 64


async def test_no_checkout(tmp_path: Path) -> None:
    with pytest.raises(BuildonceError) as caught:
        await read_history(tmp_path)
    assert caught.value.remedy
