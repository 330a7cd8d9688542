"""What is in the way of a copied tree gives way, as it does on Dagger.

    if await engine.giving_way.cleared(error, output):
        ...  # `giving_way.applied(output)` is now made without that failure

BuildKit copies a directory neither over a file nor over a link to a directory, and a file not over
a directory: it fails. Only then is looked at what is where, and the operation is replaced by one
that removes files and follows links first, so a copy that nothing is in the way of costs nothing.
A Dockerfile's `COPY` is not touched: it fails everywhere.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from buildonce.engine import llb
from buildonce.engine.buildkit import SolveError, Stat, pb, platform_text
from buildonce.engine.errors import QueryFailed
from buildonce.engine.fileops import FileActions, Owner, copying
from buildonce.engine.llb import Output, Vertex
from buildonce.engine.paths import literal, parent

if TYPE_CHECKING:
    from buildonce.engine.engine import Engine

IN_THE_WAY = re.compile(r"cannot copy to non-directory|cannot replace to directory .* with file")
_MAX_LINKS = 40  # that a path may lead over, as Linux has it
_SELECTED = "/selected"


class GivingWay:
    """The operations of a session that something was in the way of, and what replaces them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._instead: dict[str, Vertex] = {}

    def applied(self, output: Output) -> Output:
        """`output` as it is made with what is known now."""
        if not self._instead:
            return output
        new: dict[str, Vertex] = {}
        for one in llb.walk([output]):
            made = one
            inputs = [Output(new[i.vertex.digest], i.index) for i in one.inputs]
            if inputs != list(one.inputs):
                made = llb.changed(one, pb.Op.FromString(one.op), inputs)
                self._engine.services.bind_like(made, one)
            while made.digest in self._instead:
                made = self._instead[made.digest]
            new[one.digest] = made
        return Output(new[output.vertex.digest], output.index)

    async def cleared(self, error: SolveError, output: Output) -> bool:
        """Whether `error`, of solving `output`, was of a copy that now is made otherwise."""
        if not IN_THE_WAY.search(error.message):
            return False
        copies = [one for one in llb.walk([output]) if one.gives_way]
        # Not there, it is one of another graph with the same content, which the daemon made one.
        failed = [one for one in copies if one.digest == error.vertex] or copies
        for one in failed:
            work = partial(_cleared, self._engine, one)
            instead = await self._engine.remember(("give way", one.digest), work)
            if instead is not None:
                self._instead[one.digest] = instead
                return True
        return False


async def _cleared(engine: Engine, one: Vertex) -> Vertex | None:
    """`one` with the first of its copies that something is in the way of made otherwise."""
    op = pb.Op.FromString(one.op)
    for number, action in enumerate(op.file.actions):
        copy = action.copy
        if not (action.HasField("copy") and copy.dirCopyContents):
            continue
        base = _result(one, op, action.input)
        source = _result(one, op, action.secondaryInput)
        if base is None or source is None:
            continue
        # Single files that are written replace neither folders, nor files where folders are meant.
        replaces = action.secondaryInput < len(one.inputs)
        try:
            instead = await _copied(engine, op, copy, base, source, replaces=replaces)
        except QueryFailed:
            continue  # what fails here has failed before, and is told as that
        if instead is not None:
            return _continued(one, op, number, instead)
    return None


def _result(one: Vertex, op: pb.Op, number: int) -> Output | None:
    """The input or the result of an action that has that number; None: an empty tree."""
    if number < 0:
        return None
    if number < len(one.inputs):
        return one.inputs[number]
    part = pb.Op()
    part.CopyFrom(op)
    del part.file.actions[number - len(one.inputs) + 1 :]
    part.file.actions[-1].output = 0
    return Output(llb.changed(one, part, one.inputs))


def _continued(one: Vertex, op: pb.Op, number: int, made: Output) -> Vertex | None:
    """`one` from where the action of that number has `made` something."""
    rest = list(op.file.actions)[number + 1 :]
    if not rest:
        return made.vertex
    inputs = len(one.inputs)
    done = inputs + number  # the result that `made` stands for

    def renumbered(at: int) -> int:
        if at < inputs:
            return at
        return inputs if at == done else at - number

    if any(inputs <= at < done for action in rest for at in (action.input, action.secondaryInput)):
        return None  # nothing here is made so: each works on the one before
    new = pb.Op()
    new.CopyFrom(op)
    del new.file.actions[:]
    for action in rest:
        action.input = renumbered(action.input)
        action.secondaryInput = renumbered(action.secondaryInput)
        new.file.actions.append(action)
    return llb.changed(one, new, [*one.inputs, made])


@dataclass(slots=True)
class _Part:
    """A tree to be copied: where from, where to, and what of it goes elsewhere."""

    source: str
    destination: str
    elsewhere: list[str] = field(default_factory=list)


async def _copied(
    engine: Engine,
    op: pb.Op,
    copy: pb.FileActionCopy,
    base: Output,
    source: Output,
    *,
    replaces: bool,
) -> Output | None:
    """`source` copied over `base` with nothing in the way; None where nothing is."""
    if any(owner.HasField("byName") for owner in (copy.owner.user, copy.owner.group)):
        return None
    path = copy.src
    if copy.include_patterns or copy.exclude_patterns:
        # What is selected is looked at, and copied, as a tree of its own.
        source, path = _selected(op, copy, source), _SELECTED
        copy = copying(path, copy.dest, contents=True)
    plan = _Plan(engine, base, source, replaces=replaces)
    await plan.make(path, copy.dest)
    if not plan.removed and len(plan.parts) == 1:
        return None
    actions = FileActions(base)
    for gone in plan.removed:
        actions.remove(gone)
    for part in plan.parts:
        actions.copy(
            source,
            part.source,
            part.destination,
            contents=True,
            exclude=[literal(name) for name in part.elsewhere],
            owner=_owner(copy.owner),
            mode=None if copy.mode < 0 else copy.mode,
            timestamp=copy.timestamp,
        )
    return actions.done(platform=platform_text(op.platform))


def _selected(op: pb.Op, copy: pb.FileActionCopy, source: Output) -> Output:
    new = pb.Op(platform=op.platform)
    action = new.file.actions.add(input=-1, secondaryInput=0, output=0)
    action.copy.CopyFrom(copy)
    action.copy.dest = _SELECTED
    return Output(llb.vertex(new, [source]))


def _owner(option: pb.ChownOpt) -> Owner | None:
    if not option.HasField("user"):
        return None
    return Owner(option.user.byID, option.group.byID)


class _Plan:
    """What has to go of one tree for another to be laid over it, and what to copy where.

    Attributes:
        removed: paths of the base.
        parts: what to copy.
    """

    def __init__(self, engine: Engine, base: Output, source: Output, *, replaces: bool) -> None:
        """Begin with nothing.

        Args:
            replaces: files replace folders, and folders files and links that lead nowhere.
        """
        self._engine = engine
        self._base = base
        self._source = source
        self._replaces = replaces
        self._listings: dict[str, dict[str, Stat]] = {}
        self.removed: list[str] = []
        self.parts: list[_Part] = []

    async def make(self, source: str, destination: str) -> None:
        """Plan for what is in the folder `source` to be in the folder `destination`."""
        first = _Part(source, destination)
        self.parts.append(first)
        folder = await self._folder(parent(destination))
        if folder is None:
            return  # nothing is there, or no folder for it
        at = _below(folder, destination.rpartition("/")[2])
        real = await self._folder(at)
        if real is None:
            if self._replaces and await self._gives_way(at):
                self.removed.append(at)
            return
        first.destination = real
        for part in self.parts:  # while links in the way lead to more
            await self._compare(part)

    async def _compare(self, part: _Part) -> None:
        folders = [""]  # that both have
        for inside in folders:
            present = await self._listing(_below(part.destination, inside))
            for entry in await self._engine.entries(self._source, _below(part.source, inside)):
                other = present.get(entry.name)
                place = f"{inside}/{entry.name}".lstrip("/")
                if other is None:
                    continue
                if entry.is_dir and other.is_dir:
                    folders.append(place)
                elif entry.is_dir or other.is_dir:
                    await self._settle(part, place, folder=entry.is_dir)

    async def _settle(self, part: _Part, place: str, *, folder: bool) -> None:
        """A folder is to be where none is, or the reverse."""
        at = _below(part.destination, place)
        real = await self._folder(at) if folder else None
        if real is not None:
            part.elsewhere.append(place)
            self.parts.append(_Part(_below(part.source, place), real))
        elif self._replaces and await self._gives_way(at):
            self.removed.append(at)

    async def _folder(self, path: str) -> str | None:
        """The folder that is there, or that a link there leads to; None: there is none."""
        real, there = await self._real(path)
        return real if there is not None and there.is_dir else None

    async def _gives_way(self, path: str) -> bool:
        """Whether something is there, other than a link to a file: those stay."""
        listing = await self._listing(parent(path))
        found = listing.get(path.rpartition("/")[2])
        if found is None or not stat.S_ISLNK(found.mode):
            return found is not None
        _, there = await self._real(path)
        return there is None

    async def _listing(self, folder: str) -> dict[str, Stat]:
        if folder not in self._listings:
            found = await self._engine.entries(self._base, folder)
            self._listings[folder] = {one.name: one for one in found}
        return self._listings[folder]

    async def _real(self, path: str) -> tuple[str, Stat | None]:
        """Where a path of the base leads to over all links, and what is there, if anything."""
        root = Stat("/", stat.S_IFDIR | 0o755, 0, 0, 0, 0, "")
        real: list[tuple[str, Stat]] = []
        names = path.split("/")[::-1]
        links = 0
        while names:
            name = names.pop()
            if name in ("", "."):
                continue
            if name == "..":
                del real[-1:]
                continue
            above = "/" + "/".join(done for done, _ in real)
            if real and not real[-1][1].is_dir:
                return path, None
            found = (await self._listing(above)).get(name)
            if found is None:
                return path, None
            if not stat.S_ISLNK(found.mode):
                real.append((name, found))
                continue
            links += 1
            if links > _MAX_LINKS:
                raise QueryFailed(f"{path}: too many links")
            if found.target.startswith("/"):
                real.clear()
            names.extend(found.target.split("/")[::-1])
        return "/" + "/".join(name for name, _ in real), real[-1][1] if real else root


def _below(folder: str, path: str) -> str:
    return f"{folder.rstrip('/')}/{path}".rstrip("/") or "/"
