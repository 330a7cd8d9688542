"""Questions about whole trees, answered next to the data.

The daemon can list one directory and read one file. Whatever needs a whole tree (globs, searches,
digests) is done by the shim in an exec of its own over the tree, so that no file crosses the
connection, and the answer is cached like any other exec's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from buildonce.engine import llb
from buildonce.engine.buildkit.gitignore import NAME, Level
from buildonce.engine.buildkit.proto import ops_pb2 as pb
from buildonce.engine.errors import QueryFailed
from buildonce.engine.llb import Output
from buildonce.engine.paths import literal
from buildonce.engine.states import DirectoryState

if TYPE_CHECKING:
    from buildonce.engine.engine import Engine

TREE = "/.buildonce/tree"
ANSWER = "/.buildonce/out"


@dataclass(frozen=True, slots=True)
class Match:
    """A part of a line that a search found, in bytes from the line's start."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Found:
    """A line that a search found."""

    path: str
    line: int
    offset: int
    text: str
    matches: tuple[Match, ...]


@dataclass(frozen=True, slots=True)
class There:
    """What is at a path.

    Attributes:
        size: in bytes.
        kind: `REGULAR`, `DIRECTORY`, `SYMLINK` or `UNKNOWN`.
    """

    name: str
    size: int
    permissions: int
    kind: str


async def ask(
    engine: Engine, tree: Output | None, question: str, settings: Mapping[str, Any]
) -> Any:
    """Let the shim answer `question` about `tree`; its answer is JSON."""
    op = llb.new_op(engine.platform)
    inputs = [engine.shim]
    meta = op.exec.meta
    meta.args.extend(["/.buildonce/shim", question, json.dumps(settings, sort_keys=True)])
    meta.cwd = "/"
    op.exec.network = pb.NONE
    op.exec.mounts.add(input=-1, dest="/", output=0)
    op.exec.mounts.add(input=0, dest="/.buildonce/shim", output=-1, readonly=True, selector="/shim")
    op.exec.mounts.add(input=-1, dest=ANSWER, output=1)
    if tree is not None:
        inputs.append(tree)
        op.exec.mounts.add(input=1, dest=TREE, output=-1, readonly=True)
    answer = Output(llb.vertex(op, inputs, name=f"{question} files"), 1)
    data = json.loads(await engine.read(answer, "/answer.json"))
    if isinstance(data, dict) and "error" in data:
        raise QueryFailed(data["error"])
    return data


async def glob(engine: Engine, directory: DirectoryState, pattern: str) -> list[str]:
    """The paths in `directory` that match; folders end with a slash."""
    if not pattern:
        raise QueryFailed("failed to create glob pattern matcher: empty pattern")
    settings = {"root": directory.path, "pattern": pattern}
    return list(await ask(engine, directory.output, "glob", settings))


async def digest(engine: Engine, output: Output | None, path: str, **settings: Any) -> str:
    """`sha256:…` over names, kinds, modes and contents of what is at `path`."""
    found = await ask(engine, output, "digest", {"root": path, **settings})
    return str(found["digest"])


async def search(
    engine: Engine, directory: DirectoryState, pattern: str, **settings: Any
) -> list[Found]:
    """The lines in `directory` that match `pattern`."""
    if directory.output is None:
        return []
    if settings.pop("skip_ignored"):
        settings["skip"] = await _not_searched(engine, directory)
    question = {"root": directory.path, "pattern": pattern, **settings}
    return [
        Found(
            item["path"],
            item["line"],
            item["offset"],
            item["text"],
            tuple(Match(m["text"], m["start"], m["end"]) for m in item["matches"] or ()),
        )
        for item in await ask(engine, directory.output, "search", question)
    ]


async def _not_searched(engine: Engine, directory: DirectoryState) -> list[str]:
    """What ripgrep leaves out: `.gitignore` counts in a repository, the others anywhere."""
    names = [NAME, ".ignore", ".rgignore"]  # the last of them has the last word
    found = await ask(engine, directory.output, "ignores", {"root": directory.path, "names": names})
    rules: dict[str, str] = {}
    for name in names if found["git"] else names[1:]:
        for path, content in found["ignores"].items():
            folder, _, file = path.rpartition("/")
            if file == name:
                place = f"{folder}/{NAME}" if folder else NAME
                rules[place] = f"{rules.get(place, '')}\n{content}"
    return [path.rstrip("/") for path in ignored_paths(found["paths"], rules)]


async def ignored(engine: Engine, directory: DirectoryState) -> Sequence[str]:
    """The paths that the directory's own `.gitignore` files rule out, as exclude patterns."""
    settings = {"root": directory.path, "names": [NAME]}
    found = await ask(engine, directory.output, "ignores", settings)
    return [literal(path.rstrip("/")) for path in ignored_paths(found["paths"], found["ignores"])]


def ignored_paths(paths: Sequence[str], ignores: Mapping[str, str]) -> list[str]:
    """Which of `paths` git would ignore, the outermost of each tree.

    Args:
        paths: sorted; folders end with a slash.
        ignores: the content of each `.gitignore`, by its path.
    """
    levels = {"": Level([], "", None).inside("", _encoded(ignores.get(NAME)))}
    gone: list[str] = []
    for path in paths:
        if gone and gone[-1].endswith("/") and path.startswith(gone[-1]):
            continue
        above = path.rstrip("/").rpartition("/")[0]
        level = levels[f"{above}/" if above else ""]
        if level.ignores(path.rstrip("/"), directory=path.endswith("/")):
            gone.append(path)
        elif path.endswith("/"):
            levels[path] = level.inside(path, _encoded(ignores.get(path + NAME)))
    return gone


def _encoded(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


async def there(
    engine: Engine, output: Output | None, path: str, shown: str, *, follow: bool
) -> There:
    """What is at `path`, which the user calls `shown`.

    Raises:
        QueryFailed: nothing is.
    """
    found = await ask(engine, output, "stat", {"root": "/", "path": path, "follow": follow})
    if not found["exists"]:
        raise QueryFailed(f"stat {shown}: no such file or directory")
    kind = found["kind"].removesuffix("_TYPE") or "UNKNOWN"
    name = PurePosixPath(path).name or "/"
    return There(name, found["size"], found["permissions"], kind)


async def exists(
    engine: Engine, output: Output | None, path: str, kind: str | None, *, follow: bool
) -> bool:
    """Whether something, of that kind where one is given, is at `path`."""
    if output is None:
        return path == "/" and kind in (None, "DIRECTORY_TYPE")
    settings = {"root": "/", "path": path, "follow": follow and kind != "SYMLINK_TYPE"}
    found = await ask(engine, output, "stat", settings)
    if not found["exists"]:
        return False
    return kind is None or found["kind"] == kind
