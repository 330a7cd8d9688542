"""BuildKit's low-level build graph (LLB), as immutable Python values.

A `Vertex` is one operation with its inputs; an `Output` is one of its results, and what every
other operation takes as input. Building a vertex serialises it, so its digest, which is also how
BuildKit names it, is known at once and equal graphs are equal values::

    base = image("docker-image://localhost:5000/base@sha256:…")
    made = copy(source, "/src", base, "/app")
    definition = marshal(made)

`None` stands for the empty file system (scratch) wherever an `Output` is optional.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from buildonce.engine.buildkit.proto import ops_pb2 as pb


@dataclass(frozen=True, slots=True)
class Expected:
    """That a directory, or else a file, is at a path, which `shown` is the user's name for.

    The graph cannot say it: where a directory is meant, a file is copied without complaint.
    """

    output: Output | None
    path: str
    shown: str
    directory: bool


@dataclass(frozen=True, slots=True)
class Vertex:
    """One serialised operation; equal bytes are the same vertex.

    Attributes:
        expects: what must be true of its inputs besides.
    """

    op: bytes
    digest: str
    inputs: tuple[Output, ...] = field(compare=False, repr=False)
    name: str = field(default="", compare=False)
    ignore_cache: bool = False
    expects: tuple[Expected, ...] = field(default=(), compare=False, repr=False)

    def __hash__(self) -> int:
        return hash(self.digest)


@dataclass(frozen=True, slots=True)
class Output:
    """The result number `index` of a vertex: a file system."""

    vertex: Vertex
    index: int = 0


def vertex(
    op: pb.Op,
    inputs: Sequence[Output] = (),
    *,
    name: str = "",
    ignore_cache: bool = False,
    expects: Sequence[Expected] = (),
) -> Vertex:
    """Serialise `op` with `inputs` filled in (in this order) and name it by its digest."""
    for item in inputs:
        op.inputs.add(digest=item.vertex.digest, index=item.index)
    data = _serialize(op)
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    return Vertex(data, digest, tuple(inputs), name, ignore_cache, tuple(expects))


def _serialize(op: pb.Op) -> bytes:
    """The bytes that the daemon, written in Go, would make of `op`.

    It names operations in progress and errors by the digest of what it serialises anew, with the
    fields of a oneof after all others. Where theirs and ours differ, it knows no vertex of ours.
    """
    kind = op.WhichOneof("op")
    if kind is None:
        return op.SerializeToString(deterministic=True)
    first = pb.Op()
    first.CopyFrom(op)
    first.ClearField(kind)
    last = pb.Op()
    getattr(last, kind).CopyFrom(getattr(op, kind))
    return first.SerializeToString(deterministic=True) + last.SerializeToString(deterministic=True)


def walk(roots: Iterable[Output]) -> Iterator[Vertex]:
    """Every vertex that `roots` depend on, inputs before their users, each once.

    Iterative: a pipeline of a thousand steps is a graph a thousand deep.
    """
    seen: set[str] = set()
    stack: list[tuple[Vertex, bool]] = [(root.vertex, False) for root in roots][::-1]
    while stack:
        current, expanded = stack.pop()
        if expanded:
            yield current
            continue
        if current.digest in seen:
            continue
        seen.add(current.digest)
        stack.append((current, True))
        stack.extend((i.vertex, False) for i in current.inputs if i.vertex.digest not in seen)


def marshal(root: Output | None) -> pb.Definition:
    """The wire form of the graph below `root`; scratch is an empty definition."""
    definition = pb.Definition()
    if root is None:
        return definition
    for item in walk([root]):
        getattr(definition, "def").append(item.op)
        metadata = definition.metadata[item.digest]  # a graph without any is refused
        if item.name:
            metadata.description["llb.customname"] = item.name
        metadata.ignore_cache = item.ignore_cache
    terminal = pb.Op()
    terminal.inputs.add(digest=root.vertex.digest, index=root.index)
    getattr(definition, "def").append(terminal.SerializeToString(deterministic=True))
    return definition


def unmarshal(definition: pb.Definition) -> Output | None:
    """The graph that a frontend answered with, so that it can be built upon.

    Raises:
        ValueError: an operation names an input that the definition does not hold.
    """
    known: dict[str, Vertex] = {}
    terminal: pb.Op | None = None
    pending: list[tuple[str, bytes, pb.Op]] = []
    for data in getattr(definition, "def"):
        op = pb.Op.FromString(data)
        if op.WhichOneof("op") is None:
            terminal = op
            continue
        pending.append(("sha256:" + hashlib.sha256(data).hexdigest(), bytes(data), op))
    while pending:
        rest = []
        for digest, data, op in pending:
            if any(i.digest not in known for i in op.inputs):
                rest.append((digest, data, op))
                continue
            inputs = tuple(Output(known[i.digest], i.index) for i in op.inputs)
            metadata = definition.metadata.get(digest)
            name = metadata.description.get("llb.customname", "") if metadata else ""
            known[digest] = Vertex(data, digest, inputs, name)
        if len(rest) == len(pending):
            raise ValueError("the definition refers to an operation that it does not hold")
        pending = rest
    if terminal is None or not terminal.inputs:
        return None
    return Output(known[terminal.inputs[0].digest], terminal.inputs[0].index)


def platform_of(text: str) -> pb.Platform:
    """`linux/arm64/v8` as the wire's message."""
    os, architecture, variant = (*text.split("/"), "", "")[:3]
    return pb.Platform(OS=os, Architecture=architecture, Variant=variant)


def new_op(platform: str) -> pb.Op:
    """An operation for a platform.

    Every operation names one: the daemon would fill it in, and the operation's digest, by which
    it reports progress and failures, would no longer be the one we know.
    """
    op = pb.Op()
    op.platform.CopyFrom(platform_of(platform))
    return op


def source(
    identifier: str,
    attributes: Mapping[str, str] | None = None,
    *,
    platform: str,
    name: str = "",
) -> Output:
    """A source: `docker-image://…@sha256:…`, `local://…`, `git://…`, `https://…`."""
    op = new_op(platform)
    op.source.identifier = identifier
    for key, value in sorted((attributes or {}).items()):
        op.source.attrs[key] = value
    return Output(vertex(op, name=name))


@dataclass(frozen=True, slots=True)
class Owner:
    """Who owns copied files: numbers, or names looked up in `passwd` (a root file system)."""

    user: str | int
    group: str | int | None = None
    passwd: Output | None = None


SCRATCH = -1


@dataclass(frozen=True, slots=True)
class _Result:
    """What the file action of that number leaves."""

    number: int

    def place(self, inputs: int) -> int:
        """Its number where the operation has so many inputs, which are numbered first."""
        return inputs + self.number


class FileActions:
    """A chain of file operations that becomes one vertex, each working on the one before."""

    def __init__(self, base: Output | None, expected: Expected | None = None) -> None:
        self._op = pb.Op()
        self._inputs: list[Output] = []
        self._expects = [expected] if expected is not None else []
        # What each action works on and what it takes from: an input, scratch or another's result.
        self._chain: list[tuple[int | _Result, int | _Result]] = []
        self._last: int | _Result = self._input(base)

    def _input(self, value: Output | None) -> int:
        if value is None:
            return SCRATCH
        if value in self._inputs:
            return self._inputs.index(value)
        self._inputs.append(value)
        return len(self._inputs) - 1

    def _action(self, secondary: int | _Result = SCRATCH) -> pb.FileAction:
        self._chain.append((self._last, secondary))
        self._last = _Result(len(self._chain) - 1)
        return self._op.file.actions.add(output=-1)

    def _owner(self, target: pb.ChownOpt, owner: Owner | None) -> None:
        if owner is None:
            return
        group = owner.user if owner.group is None else owner.group
        for option, value in ((target.user, owner.user), (target.group, group)):
            if isinstance(value, int):
                option.byID = value
            else:
                option.byName.name = value
                option.byName.input = self._input(owner.passwd)

    def mkdir(self, path: str, *, mode: int = 0o755, owner: Owner | None = None) -> FileActions:
        """Make a directory and its parents; one that exists already is left as it is."""
        action = self._action()
        action.mkdir.path = path
        action.mkdir.mode = mode
        action.mkdir.makeParents = True
        action.mkdir.timestamp = -1
        self._owner(action.mkdir.owner, owner)
        return self

    def mkfile(
        self, path: str, data: bytes, *, mode: int = 0o644, owner: Owner | None = None
    ) -> FileActions:
        """Write a file, in the place of a file or a link; folders above it are made."""
        folder, _, name = path.rpartition("/")
        # Written over a link, a file would be where that leads to. A copied one replaces it.
        before, self._last = self._last, SCRATCH
        action = self._action()
        action.mkfile.path = f"/{name}"
        action.mkfile.mode = mode
        action.mkfile.data = data
        action.mkfile.timestamp = -1
        self._owner(action.mkfile.owner, owner)
        if before == SCRATCH and not folder:
            return self
        written, self._last = self._last, before
        return self._copy(written, "/", folder or "/", contents=True)

    def symlink(self, target: str, path: str) -> FileActions:
        """Make a symbolic link at `path` that points to `target`."""
        action = self._action()
        action.symlink.oldpath = target
        action.symlink.newpath = path
        action.symlink.timestamp = -1
        return self

    def remove(self, path: str, *, wildcard: bool = False) -> FileActions:
        """Remove a path, wholly; one that is not there is no error."""
        action = self._action()
        action.rm.path = path
        action.rm.allowNotFound = True
        action.rm.allowWildcard = wildcard
        return self

    def copy(
        self,
        source: Output | None,
        path: str,
        destination: str,
        *,
        contents: bool = False,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        owner: Owner | None = None,
        mode: int | None = None,
        timestamp: int = -1,
        expected: Expected | None = None,
    ) -> FileActions:
        """Copy `path` of `source`, or what it is a link to, to `destination`.

        Args:
            expected: what must be there.
            contents: copy what is in the directory rather than the directory itself.
            mode: permission bits for everything copied; None keeps them.
            timestamp: nanoseconds since 1970 for everything copied; -1 keeps them.
        """
        if mode is not None and not contents:
            # Folders that the copy has to make would be given the mode too.
            self.mkdir(destination.rpartition("/")[0] or "/")
        if expected is not None:
            self._expects.append(expected)
        self._copy(self._input(source), path, destination, contents=contents)
        action = self._op.file.actions[-1]
        action.copy.mode = -1 if mode is None else mode
        action.copy.timestamp = timestamp
        action.copy.include_patterns.extend(include)
        action.copy.exclude_patterns.extend(exclude)
        self._owner(action.copy.owner, owner)
        return self

    def _copy(
        self, source: int | _Result, path: str, destination: str, *, contents: bool
    ) -> FileActions:
        action = self._action(source)
        action.copy.src = path
        action.copy.dest = destination
        action.copy.mode = -1
        action.copy.timestamp = -1
        action.copy.dirCopyContents = contents
        action.copy.followSymlink = True
        action.copy.createDestPath = True
        return self

    def done(self, *, platform: str, name: str = "") -> Output:
        """The file system after all of it."""
        # Inputs come first in the numbering, then each action's own result.
        first = len(self._inputs)
        for action, (target, source) in zip(self._op.file.actions, self._chain, strict=True):
            action.input = target.place(first) if isinstance(target, _Result) else target
            action.secondaryInput = source.place(first) if isinstance(source, _Result) else source
        self._op.file.actions[-1].output = 0
        self._op.platform.CopyFrom(platform_of(platform))
        return Output(vertex(self._op, self._inputs, name=name, expects=self._expects))


def diff(lower: Output | None, upper: Output | None, *, platform: str) -> Output:
    """What `upper` has that `lower` has not."""
    op = new_op(platform)
    inputs: list[Output] = []
    for target, value in ((op.diff.lower, lower), (op.diff.upper, upper)):
        target.input = -1
        if value is not None:
            target.input = len(inputs)
            inputs.append(value)
    return Output(vertex(op, inputs, name="diff"))
