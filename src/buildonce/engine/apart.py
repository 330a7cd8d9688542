"""Trees as they were before their operations were joined (`fileops`), for comparing them.

lower, upper = apart(before), apart(after)
"""

from __future__ import annotations

from collections.abc import Sequence

from buildonce.engine.buildkit.proto import ops_pb2 as pb
from buildonce.engine.fileops import SCRATCH, copying
from buildonce.engine.llb import Output, Vertex, Written, changed, walk


def apart(root: Output) -> Output:
    """The same files by operations that have not been joined, and copies that are copies.

    The daemon compares two trees by the layers that they share and by the times of their files:
    what is joined shares none, and what is written again is as new.
    """
    new: dict[str, Vertex] = {}

    def mapped(outputs: Sequence[Output]) -> list[Output]:
        return [Output(new[one.vertex.digest], one.index) for one in outputs]

    for one in walk([root], _parents):
        inputs = mapped(_parents(one))
        written = one.written
        op = pb.Op.FromString(one.op)
        if written is not None and (written.before is not None or written.inlined):
            begun = written.before is not None or written.under is not None
            _take_apart(op, written, begun)
        elif inputs == list(one.inputs):
            new[one.digest] = one
            continue
        new[one.digest] = changed(one, op, inputs)
    return mapped([root])[0]


def _take_apart(op: pb.Op, written: Written, begun: bool) -> None:
    """Leave the actions of its own, on the tree before (`begun`: there is one), each inlined tree
    copied in one of them. The inputs are as `_parents` has them."""
    inlined = {one.first: (number, one) for number, one in enumerate(written.inlined, begun)}
    inputs = begun + len(written.inlined)
    actions: list[pb.FileAction] = []
    at, last = written.joined, 0 if begun else SCRATCH
    while at < written.actions:
        action = pb.FileAction()
        if at in inlined:
            action.secondaryInput, tree = inlined[at]
            action.copy.CopyFrom(copying("/", tree.destination, contents=True))
            at = tree.end
        else:
            action.CopyFrom(op.file.actions[at])
            action.secondaryInput = SCRATCH
            at += 1
        action.input, action.output = last, -1
        last = inputs + len(actions)
        actions.append(action)
    del op.file.actions[:]
    op.file.actions.extend(actions)
    op.file.actions[-1].output = 0


def _parents(one: Vertex) -> Sequence[Output]:
    written = one.written
    if written is None or (written.before is None and not written.inlined):
        return one.inputs
    first = written.before or written.under
    return [*([first] if first is not None else []), *(tree.source for tree in written.inlined)]
