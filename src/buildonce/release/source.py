"""Which commit a checkout is at, and what its release is called."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from subprocess import PIPE

import anyio

from buildonce.errors import BuildonceError


@dataclass(frozen=True)
class Revision:
    """A state of the source.

    Args:
        commit: the full commit hash.
        version: "YYYY.MM.DD+g<7 hex>" by the commit's date (UTC); a checkout with changes that are
            not committed gets ".dirty.<8 hex of its content>" at the end.
        committed: the commit's date (UTC).
        dirty: there are changes that are not committed.
    """

    commit: str
    version: str
    committed: datetime
    dirty: bool


@dataclass(frozen=True)
class Origin:
    """Where a checkout's source is kept.

    Args:
        address: of the repository, without credentials: "https://host/team/app"; "" for none.
        branch: the branch that is checked out, or that the CI says it builds; "" for none.
    """

    address: str = ""
    branch: str = ""


async def read_origin(root: Path) -> Origin:
    """Where the source of the checkout at `root` is kept: its remote "origin", else its first."""
    remotes = (await run_git(root, "remote")).split()
    address = ""
    if remotes:
        remote = "origin" if "origin" in remotes else remotes[0]
        address = plain_address(await run_git(root, "remote", "get-url", remote))
    branch = await run_git(root, "branch", "--show-current")
    if not branch:  # a CI checks out a commit, and says in its own way what branch that is of
        names = ("GITHUB_HEAD_REF", "GITHUB_REF_NAME", "CI_COMMIT_BRANCH", "BITBUCKET_BRANCH")
        branch = next((value for name in names if (value := os.environ.get(name))), "")
    return Origin(address, branch)


def plain_address(address: str) -> str:
    """A repository's address without user, password, query and ".git".

    By SSH or by HTTPS, it is the same repository: both give "https://host/path".

    >>> plain_address("git@example.com:team/app.git")
    'https://example.com/team/app'
    """
    scp = re.fullmatch(r"(?:[^@/:]+@)?([A-Za-z0-9.-]{2,}):(?!//)/?(.+)", address)
    if scp and "://" not in address:
        address = f"ssh://{scp[1]}/{scp[2]}"
    found = re.fullmatch(r"([a-z+]+)://(?:[^@/]*@)?([^/?#]*)([^?#]*).*", address)
    if not found:
        # A path of this machine says nothing to anybody else.
        return ""
    scheme, host, path = found.groups()
    path = path.rstrip("/").removesuffix(".git")
    if scheme in ("ssh", "git+ssh"):
        scheme, host = "https", host.partition(":")[0]
    return f"{scheme}://{host}{path}" if host else ""


async def read_revision(root: Path) -> Revision:
    """The revision of the checkout that `root` is in.

    Raises:
        BuildonceError: it is no Git checkout, or has no commit yet.
    """
    if shutil.which("git") is None:
        raise BuildonceError("git is not installed", remedy="apt-get install git")
    head = await run_git(root, "log", "-1", "--format=%H %ct")
    commit, seconds = head.split()
    committed = datetime.fromtimestamp(int(seconds), UTC)
    version = f"{committed:%Y.%m.%d}+g{commit[:7]}"
    dirty = bool(await run_git(root, "status", "--porcelain"))
    if dirty:
        version += f".dirty.{(await _tree(root))[:8]}"
    return Revision(commit, version, committed, dirty)


async def _tree(root: Path) -> str:
    """The tree hash that committing all of this would give; the repository is not written to."""
    toplevel = Path(await run_git(root, "rev-parse", "--show-toplevel"))
    index = toplevel / await run_git(toplevel, "rev-parse", "--git-path", "index")
    objects = toplevel / await run_git(toplevel, "rev-parse", "--git-path", "objects")
    with tempfile.TemporaryDirectory(prefix="buildonce-index-") as scratch:
        own_index = Path(scratch, "index")
        if index.exists():  # what is in it need not be hashed again
            await anyio.to_thread.run_sync(shutil.copy2, index, own_index)
        variables = {
            "GIT_INDEX_FILE": str(own_index),
            "GIT_OBJECT_DIRECTORY": scratch,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(objects),
        }
        await run_git(toplevel, "add", "--all", variables=variables)
        return await run_git(toplevel, "write-tree", variables=variables)


async def run_git(root: Path, *args: str, variables: Mapping[str, str] | None = None) -> str:
    """Run git in `root` and return what it printed, stripped.

    Raises:
        BuildonceError: it failed, or `root` is no checkout with a commit.
    """
    # A Git hook has GIT_DIR and the like set: they may speak of another repository.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    done = await anyio.run_process(
        ["git", *args],
        cwd=root,
        env={**environment, **(variables or {}), "LC_ALL": "C"},
        check=False,
        stdout=PIPE,
        stderr=PIPE,
    )
    if done.returncode == 0:
        return done.stdout.decode().strip()
    cause = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
    if "does not have any commits" in cause[0] or "unknown revision" in cause[0]:
        raise BuildonceError(
            f"the checkout {root} has no commit yet, so there is nothing to release",
            remedy="git add --all && git commit",
        )
    if "not a git repository" in cause[0]:
        raise BuildonceError(
            f"{root} is not in a Git checkout, so its release cannot be named",
            remedy="git init && git add --all && git commit",
        )
    raise BuildonceError(f"`git {' '.join(args)}` failed in {root}: {cause[0]}")
