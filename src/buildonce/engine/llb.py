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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from buildonce.engine.buildkit.platforms import platform_message
from buildonce.engine.buildkit.proto import ops_pb2 as pb


@dataclass(frozen=True, slots=True)
class Expected:
    """That a directory, or else a file, is at a path, which `shown` is the user's name for.

    The graph cannot say it: where a directory is meant, a file is copied without complaint.

    Attributes:
        directory: None: nothing may be there, and `shown` is what is tried.
    """

    output: Output | None
    path: str
    shown: str
    directory: bool | None


@dataclass(frozen=True, slots=True)
class Inlined:
    """A tree that is written again where it would have been copied.

    Attributes:
        first, end: the actions that write it, by number.
        source: the tree.
        destination: where its content goes.
    """

    first: int
    end: int
    source: Output
    destination: str


@dataclass(frozen=True, slots=True)
class Written:
    """A tree that an operation writes, from nothing, file by file, and lays over another such.

    Attributes:
        folders, files: their paths.
        actions: how many the writing takes.
        under: what it is laid over.
        before: the tree whose operation this one has joined, with `joined` actions of its own.
        inlined: the trees among its own actions, in their order.
    """

    folders: frozenset[str]
    files: frozenset[str]
    actions: int
    under: Output | None
    before: Output | None = None
    joined: int = 0
    inlined: tuple[Inlined, ...] = ()


@dataclass(frozen=True, slots=True)
class Vertex:
    """One serialised operation; equal bytes are the same vertex.

    Attributes:
        expects: what must be true of its inputs besides.
        written: of a tree that has only been written to: no link leads anywhere in it.
        gives_way: of file operations: what is in the way of a copy is replaced (`giving_way`).
    """

    op: bytes
    digest: str
    inputs: tuple[Output, ...] = field(compare=False, repr=False)
    name: str = field(default="", compare=False)
    ignore_cache: bool = False
    expects: tuple[Expected, ...] = field(default=(), compare=False, repr=False)
    written: Written | None = field(default=None, compare=False, repr=False)
    gives_way: bool = field(default=False, compare=False, repr=False)

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
    written: Written | None = None,
    gives_way: bool = False,
) -> Vertex:
    """Serialise `op` with `inputs` filled in (in this order) and name it by its digest."""
    for item in inputs:
        op.inputs.add(digest=item.vertex.digest, index=item.index)
    data = _serialize(op)
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    return Vertex(
        data, digest, tuple(inputs), name, ignore_cache, tuple(expects), written, gives_way
    )


def changed(one: Vertex, op: pb.Op, inputs: Sequence[Output]) -> Vertex:
    """`one` with another operation, whose inputs are these."""
    del op.inputs[:]
    return vertex(
        op,
        inputs,
        name=one.name,
        ignore_cache=one.ignore_cache,
        expects=one.expects,
        gives_way=one.gives_way,
    )


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


def walk(
    roots: Iterable[Output],
    parents: Callable[[Vertex], Sequence[Output]] = lambda vertex: vertex.inputs,
) -> Iterator[Vertex]:
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
        above = parents(current)
        stack.extend((i.vertex, False) for i in above if i.vertex.digest not in seen)


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


def new_op(platform: str) -> pb.Op:
    """An operation for a platform.

    Every operation names one: the daemon would fill it in, and the operation's digest, by which
    it reports progress and failures, would no longer be the one we know.
    """
    op = pb.Op()
    op.platform.CopyFrom(platform_message(platform))
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
