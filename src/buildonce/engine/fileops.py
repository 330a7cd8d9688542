"""Operations on files: chains of writing, copying and removing that become one vertex.

    made = FileActions(base).mkfile("/a.txt", b"a").copy(source, "/src", "/dst").done(platform=…)

A vertex is a snapshot and a dozen writes to the daemon's database, so what can be one vertex is
one: files and folders written one after the other join the operation before, as long as it is
small (a change in it does it all again).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from buildonce.engine.buildkit.platforms import platform_message
from buildonce.engine.buildkit.proto import ops_pb2 as pb
from buildonce.engine.llb import (
    Expected,
    Inlined,
    Output,
    Written,
    vertex,
)

JOINED = 300  # actions that one operation may have
JOINED_SIZE = 256 << 10  # bytes of it


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
        # While all is plain writing, it is done in a tree of its own; what it is laid over last.
        self._plain = True
        self._under: Output | None = None
        self._before: Output | None = None
        self._joined = 0
        self._inlined: list[Inlined] = []
        self._folders: set[str] = {"", "/"}
        self._names: set[str] = set()
        self._last: int | _Result = SCRATCH
        if base is None:
            return
        if written := joinable(base):
            self._join(base, written)
        elif base.vertex.written:
            self._under = base
        else:
            self._plain = False
            self._last = self._input(base)

    def _join(self, base: Output, written: Written) -> None:
        """Begin with all that `base` is made by."""
        count = written.actions
        made = pb.Op.FromString(base.vertex.op).file.actions[:count]
        self._op.file.actions.extend(made)
        self._op.file.actions[-1].output = -1
        self._chain = [(_Result(n - 1) if n else SCRATCH, SCRATCH) for n in range(count)]
        self._last = _Result(count - 1)
        self._expects = [*base.vertex.expects, *self._expects]
        self._folders |= written.folders
        self._names |= written.files
        self._under = written.under
        self._before, self._joined = base, count

    def _settle(self) -> None:
        """End the plain writing: from here on, anything may be done."""
        if not self._plain:
            return
        self._plain = False
        if self._before is None:
            self._lay_over()
            return
        # What was joined is a layer of its own again, which other trees have too.
        actions = self._op.file.actions
        del actions[: self._joined]
        self._last = self._input(self._before)
        self._chain = []
        for _ in actions:
            self._chain.append((self._last, SCRATCH))
            self._last = _Result(len(self._chain) - 1)

    def _lay_over(self) -> None:
        if self._under is not None:
            written, self._last = self._last, self._input(self._under)
            if self._chain:
                self._copy(written, "/", "/", contents=True)

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
        folder = path
        while path not in self._folders:
            self._folders.add(path)
            path = path.rpartition("/")[0]
        action = self._action()
        action.mkdir.path = folder
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
        if self._plain:
            if folder not in self._folders:
                self.mkdir(folder)
            if path in self._names and path not in self._folders:
                self._remove(path)  # or it would keep its mode
            self._names.add(path)
            self._write(path, data, mode, owner)
            return self
        # Written over a link, a file would be where that leads to. A copied one replaces it.
        before, self._last = self._last, SCRATCH
        self._write(f"/{name}", data, mode, owner)
        if before == SCRATCH and not folder:
            return self
        written, self._last = self._last, before
        return self._copy(written, "/", folder or "/", contents=True)

    def _write(self, path: str, data: bytes, mode: int, owner: Owner | None) -> None:
        action = self._action()
        action.mkfile.path = path
        action.mkfile.mode = mode
        action.mkfile.data = data
        action.mkfile.timestamp = -1
        self._owner(action.mkfile.owner, owner)

    def symlink(self, target: str, path: str, expected: Expected | None = None) -> FileActions:
        """Make a symbolic link at `path` that points to `target`."""
        self._settle()
        if expected is not None:
            self._expects.append(expected)
        action = self._action()
        action.symlink.oldpath = target
        action.symlink.newpath = path
        action.symlink.timestamp = -1
        return self

    def remove(self, path: str, *, wildcard: bool = False) -> FileActions:
        """Remove a path, wholly; one that is not there is no error."""
        self._settle()
        self._remove(path, wildcard=wildcard)
        return self

    def _remove(self, path: str, *, wildcard: bool = False) -> None:
        action = self._action()
        action.rm.path = path
        action.rm.allowNotFound = True
        action.rm.allowWildcard = wildcard

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
        selected = include or exclude or owner is not None or mode is not None or timestamp != -1
        if contents and path == "/" and not selected and self._inline(source, destination):
            return self
        # Files give way to folders, and folders to files, as on Dagger. Only where nothing else is
        # known to be there: BuildKit would also replace a link to a folder, such as /lib.
        known = self._plain and self._under is None
        self._settle()
        if mode is not None and not contents:
            # Folders that the copy has to make would be given the mode too.
            self.mkdir(destination.rpartition("/")[0] or "/")
        if expected is not None:
            self._expects.append(expected)
        self._copy(self._input(source), path, destination, contents=contents)
        action = self._op.file.actions[-1]
        action.copy.mode = -1 if mode is None else mode
        action.copy.timestamp = timestamp
        action.copy.alwaysReplaceExistingDestPaths = contents and known
        action.copy.include_patterns.extend(include)
        action.copy.exclude_patterns.extend(exclude)
        self._owner(action.copy.owner, owner)
        return self

    def _inline(self, source: Output | None, destination: str) -> bool:
        """Write what `source` holds instead of copying it, where that is little."""
        found = joinable(source) if self._plain and source is not None else None
        if source is None or found is None or found.under is not None:
            return False
        size = self._op.ByteSize() + len(source.vertex.op)
        if len(self._chain) + found.actions > JOINED or size > JOINED_SIZE:
            return False
        actions = pb.Op.FromString(source.vertex.op).file.actions
        if any(action.HasField("rm") for action in actions):
            return False
        base = destination.rstrip("/")
        if self._collides(base, actions):
            return False
        self._expects += source.vertex.expects
        first = len(self._chain)
        if base:
            self.mkdir(base)
        for action in actions:
            if action.HasField("mkdir"):
                self.mkdir(base + action.mkdir.path, mode=action.mkdir.mode)
                self._op.file.actions[-1].mkdir.owner.MergeFrom(action.mkdir.owner)
            else:
                file = action.mkfile
                self.mkfile(base + file.path, file.data, mode=file.mode)
                self._op.file.actions[-1].mkfile.owner.MergeFrom(file.owner)
        self._inlined.append(Inlined(first, len(self._chain), source, destination))
        return True

    def _collides(self, base: str, actions: Iterable[pb.FileAction]) -> bool:
        """Whether a file would have to give way to a folder, or a folder to a file."""
        for action in actions:
            folder = action.HasField("mkdir")
            path = base + (action.mkdir.path if folder else action.mkfile.path)
            if not folder and path in self._folders:
                return True
            above = path if folder else path.rpartition("/")[0]
            while above:
                if above in self._names and above not in self._folders:
                    return True
                above = above.rpartition("/")[0]
        return False

    def _copy(
        self, source: int | _Result, path: str, destination: str, *, contents: bool
    ) -> FileActions:
        self._action(source).copy.CopyFrom(copying(path, destination, contents=contents))
        return self

    def done(self, *, platform: str, gives_way: bool = True) -> Output:
        """The file system after all of it.

        Args:
            gives_way: what is in the way of a copied tree is no error (`giving_way`).
        """
        written = None
        if self._plain:
            names = frozenset(self._folders), frozenset(self._names)
            joined = self._before, self._joined
            inlined = tuple(self._inlined)
            written = Written(*names, len(self._chain), self._under, *joined, inlined)
            self._lay_over()
        # Inputs come first in the numbering, then each action's own result.
        first = len(self._inputs)
        for action, (target, source) in zip(self._op.file.actions, self._chain, strict=True):
            action.input = target.place(first) if isinstance(target, _Result) else target
            action.secondaryInput = source.place(first) if isinstance(source, _Result) else source
        self._op.file.actions[-1].output = 0
        self._op.platform.CopyFrom(platform_message(platform))
        made = vertex(
            self._op,
            self._inputs,
            expects=self._expects,
            written=written,
            gives_way=gives_way,
        )
        return Output(made)


def copying(path: str, destination: str, *, contents: bool) -> pb.FileActionCopy:
    """A copy that keeps modes and times."""
    return pb.FileActionCopy(
        src=path,
        dest=destination,
        mode=-1,
        timestamp=-1,
        dirCopyContents=contents,
        followSymlink=True,
        createDestPath=True,
    )


def joinable(base: Output) -> Written | None:
    """What is known of `base`, where more may be written by the same operation."""
    written = base.vertex.written
    small = len(base.vertex.op) <= JOINED_SIZE
    return written if written and small and written.actions < JOINED else None
