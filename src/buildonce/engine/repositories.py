"""Git repositories on the client's machine: those that a directory holds, and copies with history.

A repository that came out of a container is hostile. Only its objects, references, index and
shallow marks are used: its configuration, hooks and links to other repositories are not.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from buildonce.engine.errors import QueryFailed
from buildonce.engine.states import DirectoryState
from buildonce.engine.worktrees import git, sent, written

if TYPE_CHECKING:
    from buildonce.engine.engine import Engine

# Servers give out commits that no reference names only where they are told to.
_CONFIG = "[core]\n\trepositoryformatversion = {version}\n\tbare = true\n{rest}"
_KEPT = ("HEAD", "packed-refs", "shallow", "index")
_LEADS_ELSEWHERE = ("commondir", "objects/info/alternates", "objects/info/http-alternates")
EPOCH = 1  # seconds; what Dagger sets files of a checkout to


async def of_directory(engine: Engine, directory: DirectoryState) -> Path:
    """The repository that a directory holds (in `.git`, or bare), as a folder of this machine.

    Raises:
        QueryFailed: it holds none, or one that leads elsewhere.
    """
    return await engine.remember(
        ("repository", directory), lambda: _of_directory(engine, directory)
    )


async def _of_directory(engine: Engine, directory: DirectoryState) -> Path:
    names = {entry.name: entry for entry in await engine.entries(directory.output, directory.path)}
    root = engine.scratch_folder()
    if ".git" in names:
        if not names[".git"].is_dir:
            raise QueryFailed(
                "the directory is a worktree or a submodule: its .git is a file, which names a "
                "repository elsewhere. Use the directory of the repository itself"
            )
        wanted = [".git"]
    elif {"HEAD", "objects", "refs"} <= names.keys():
        wanted = [*_KEPT, "config", "objects", "refs"]
    else:
        raise QueryFailed("fatal: not a git repository: the directory has no .git")
    found = await written(engine, directory, root / "found", include=wanted)
    source = found / ".git" if ".git" in names else found
    return await anyio.to_thread.run_sync(lambda: _made_safe(source, root / "repository.git"))


def _made_safe(source: Path, target: Path) -> Path:
    for name in _LEADS_ELSEWHERE:
        if (source / name).exists():
            raise QueryFailed(f"the repository leads to another one (.git/{name}): clone it whole")
    target.mkdir()
    for name in ("objects", "refs"):
        (source / name).rename(target / name)
    for name in _KEPT:
        if (source / name).is_file():
            (source / name).rename(target / name)
    links = [one for one in target.rglob("*") if one.is_symlink()]
    if links:
        raise QueryFailed(
            f"the repository has a symbolic link: .git/{links[0].relative_to(target)}"
        )
    config = source / "config"
    text = config.read_text(errors="replace") if config.is_file() else ""
    wide = "objectformat = sha256" in text.casefold()
    rest = "[extensions]\n\tobjectformat = sha256\n" if wide else ""
    rest += "[uploadpack]\n\tallowAnySHA1InWant = true\n"
    (target / "config").write_text(_CONFIG.format(version=1 if wide else 0, rest=rest))
    return target


async def checked_out(
    engine: Engine,
    address: str,
    commit: str,
    name: str,
    *,
    depth: int,
    tags: bool,
    keep_git: bool,
    origin: str = "",
    reaching: Mapping[str, str] | None = None,
) -> DirectoryState:
    """The files of a commit.

    Args:
        name: the reference it was found by, which is checked out too.
        depth: commits of history; 0 or less: all.
        tags: fetch all of them; else those of the commits that are fetched.
        origin: what the kept repository remembers as where it came from.
        reaching: the variables of commands that go to `address`.
    """
    folder = engine.scratch_folder() / "tree"
    folder.mkdir()
    await git(folder, "init", "--quiet", "--initial-branch=main", "--template=")
    fetch = ["fetch", "--quiet", "--update-head-ok"]
    fetch += ["--tags"] if tags else []
    temporary = "refs/buildonce/fetched"
    wanted = [address, f"{commit}:{temporary}"]
    try:
        part = [f"--depth={depth}"] if depth > 0 else []
        await git(folder, *fetch, *part, *wanted, reaching=reaching)
    except QueryFailed as error:
        if "does not support shallow" not in str(error):
            raise
        # A server that only hands out files: it has no single commits either, but references.
        await git(folder, *fetch, address, f"{name}:{temporary}", reaching=reaching)
    if name == commit:
        await git(folder, "checkout", "--quiet", commit)
    else:
        await git(folder, "update-ref", name, commit)
        await git(folder, "checkout", "--quiet", name.removeprefix("refs/heads/"))
        await git(folder, "reset", "--quiet", "--hard", commit)
    if (folder / ".gitmodules").exists():
        update = ["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"]
        await git(folder, *update, reaching=reaching)
    if not keep_git:
        await anyio.to_thread.run_sync(lambda: shutil.rmtree(folder / ".git"))
    else:
        if origin:
            await git(folder, "remote", "add", "origin", origin)
        await git(folder, "update-ref", "-d", temporary)
        await git(folder, "reflog", "expire", "--all", "--expire=now")
        await git(folder, "read-tree", "HEAD")  # times of files do not make two checkouts differ
        (folder / ".git/FETCH_HEAD").unlink(missing_ok=True)
    await anyio.to_thread.run_sync(lambda: _set_times(folder))
    return await sent(engine, folder)


def _set_times(folder: Path) -> None:
    for above, _, names in os.walk(folder):
        for name in (".", *names):
            os.utime(Path(above, name), (EPOCH, EPOCH), follow_symlinks=False)


async def common_ancestor(
    engine: Engine, fetches: Sequence[tuple[str, str, Mapping[str, str]]]
) -> str:
    """The newest commit that all have behind them.

    Args:
        fetches: address, commit, and the variables to reach it with.
    """
    folder = engine.scratch_folder()
    await git(folder, "init", "--quiet", "--bare", "--template=")
    for number, (address, commit, reaching) in enumerate(fetches):
        refspec = f"{commit}:refs/heads/{number}"
        fetch = ["fetch", "--quiet", "--no-tags"]
        await git(folder, *fetch, address, refspec, reaching=reaching)
    commits = [commit for _, commit, _ in fetches]
    return (await git(folder, "merge-base", *commits)).decode().strip()


async def without_changes(engine: Engine, directory: DirectoryState) -> DirectoryState | None:
    """A directory with a repository as the commit that is checked out has it: nothing changed,
    nothing new but what git ignores. None where there is no worktree."""
    repository = await of_directory(engine, directory)
    if not any(e.name == ".git" for e in await engine.entries(directory.output, directory.path)):
        return None
    folder = await written(engine, directory, engine.scratch_folder() / "tree")

    def exchange() -> None:
        shutil.rmtree(folder / ".git")
        shutil.copytree(repository, folder / ".git")
        config = folder / ".git/config"
        config.write_text(config.read_text().replace("bare = true", "bare = false"))

    await anyio.to_thread.run_sync(exchange)
    await git(folder, "reset", "--quiet", "--hard", "HEAD")
    await git(folder, "clean", "--quiet", "--force", "-d")
    await anyio.to_thread.run_sync(lambda: shutil.rmtree(folder / ".git"))
    return await sent(engine, folder)
