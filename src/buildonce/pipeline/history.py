"""The repository's history as a directory that containers can read: objects and refs, nothing else.

    history = await read_history(Path.cwd())
    directory = history.directory()         # a bare repository
    history.incomplete                      # "", or why commits are missing

Git's own configuration stays out: it may hold credentials, and may name programs to run. Index and
logs stay out: they change with every look at the checkout, and would have each check run anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import anyio
import dagger
from dagger import dag

from buildonce.errors import BuildonceError
from buildonce.release.source import run_git

_PARTS = ("objects", "refs", "packed-refs", "shallow")
# A garbage collection writes these anew although no commit has changed.
_DERIVED = ("objects/info/commit-graph*", "objects/pack/*.rev", "objects/pack/multi-pack-index*")


@dataclass(frozen=True)
class History:
    """Where the history lies on this machine.

    Args:
        folder: the repository's common Git folder, also when this is a worktree of it.
        head: the full hash of the commit that is checked out.
        object_format: "sha1" or "sha256".
        alternates: folders of objects that the repository borrows from others.
        incomplete: why commits or files of the history are missing; "" when all are there.
    """

    folder: Path
    head: str
    object_format: str = "sha1"
    alternates: tuple[Path, ...] = ()
    incomplete: str = ""

    def directory(self) -> dagger.Directory:
        """A bare repository with `HEAD` at the commit that is checked out."""
        host = dag.host()
        repository = host.directory(
            str(self.folder), include=list(_PARTS), exclude=[*_DERIVED, "objects/info/alternates"]
        )
        for number, borrowed in enumerate(self.alternates):
            objects = host.directory(str(borrowed), exclude=["info"])
            repository = repository.with_directory(f"borrowed/{number}", objects)
        if self.alternates:
            lines = "".join(f"../borrowed/{number}\n" for number in range(len(self.alternates)))
            repository = repository.with_new_file("objects/info/alternates", lines)
        return (
            repository.with_new_file("HEAD", f"{self.head}\n")
            # Git takes a folder for a repository only if both are there, and `refs` may be packed.
            .with_new_directory("refs/heads")
            .with_new_file("config", self._configuration())
        )

    def _configuration(self) -> str:
        if self.object_format == "sha1":
            return "[core]\n\trepositoryformatversion = 0\n\tbare = true\n"
        extension = f"[extensions]\n\tobjectformat = {self.object_format}\n"
        return f"[core]\n\trepositoryformatversion = 1\n\tbare = true\n{extension}"


async def read_history(root: Path) -> History:
    """Find the history of the checkout at `root`.

    Raises:
        BuildonceError: it is no Git checkout, or keeps its references in a form that is not read.
    """
    asked = ("--git-common-dir", "--show-object-format", "--is-shallow-repository", "HEAD")
    common, object_format, shallow, head = (await run_git(root, "rev-parse", *asked)).splitlines()
    folder = (root / common).resolve()
    if (folder / "reftable").is_dir():
        raise BuildonceError(
            f"the repository {folder} keeps its references as a reftable, which is not read yet",
            remedy="git refs migrate --ref-format=files",
        )
    incomplete = ""
    if shallow == "true":
        incomplete = "a shallow clone: what came before its first commits was not looked at"
    elif any(folder.glob("objects/pack/*.promisor")):
        incomplete = "a partial clone: files that were not fetched were not looked at"
    alternates = await anyio.to_thread.run_sync(_alternates, folder / "objects")
    return History(folder, head, object_format, alternates, incomplete)


def _alternates(objects: Path) -> tuple[Path, ...]:
    """Folders of borrowed objects, also what those borrow themselves."""
    found: dict[Path, None] = {}
    waiting = [objects]
    while waiting:
        below = waiting.pop()
        try:
            lines = (below / "info" / "alternates").read_text("utf-8").splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            path = (below / line).resolve()
            if line and not line.startswith("#") and path.is_dir() and path not in found:
                found[path] = None
                waiting.append(path)
    return tuple(found)
