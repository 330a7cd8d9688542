"""Writing a tree of files that somebody else describes, without ever leaving the folder.

Nothing is opened by a path of more than one name: every directory is opened from the one above it
without following symbolic links, so neither what is sent nor what lies in the folder already can
lead outside. Files appear under their names when they are whole.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from buildonce.engine.buildkit import filemode
from buildonce.engine.buildkit.proto import session_pb2

TEMPORARY = b".buildonce-part-%d-%d"


class UnsafePath(Exception):
    """A path that is absolute, or has empty names, `.` or `..` in it."""


@dataclass(slots=True)
class _File:
    parent: bytes
    name: bytes
    mode: int
    mtime_ns: int
    number: int | None = None
    temporary: bytes = b""


class FolderWriter:
    """Takes entries in fsutil's order, then the content of files in any order."""

    def __init__(self, folder: Path) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        self._root = os.open(folder, flags)
        self._directories: dict[bytes, int] = {b"": self._root}
        self._files: dict[int, _File] = {}
        self._folders: list[tuple[bytes, int, int]] = []
        self._links: list[tuple[bytes, bytes]] = []
        self._count = 0

    def entry(self, entry: session_pb2.Stat) -> int | None:
        """Take the next entry; the number to ask for its content by, if it has content.

        Raises:
            UnsafePath, OSError: it cannot be written.
        """
        number = self._count
        self._count += 1
        parent, name = self._split(entry.path)
        permissions = stat.S_IMODE(filemode.from_go(entry.mode))
        if entry.mode & filemode.DIRECTORY:
            self._make_directory(parent, name)
            self._folders.append((entry.path, permissions, entry.modTime))
        elif entry.mode & filemode.SYMLINK:
            self._clear(parent, name)
            os.symlink(entry.linkname, name, dir_fd=self._open(parent))
            with suppress(OSError):
                times = (entry.modTime, entry.modTime)
                os.utime(name, ns=times, dir_fd=self._open(parent), follow_symlinks=False)
        elif entry.mode & filemode.TYPE:
            pass  # devices, pipes and sockets are of no use to whoever exports
        elif entry.linkname:
            self._links.append((entry.linkname, entry.path))
        else:
            self._files[number] = _File(parent, name, permissions, entry.modTime)
            return number
        return None

    def data(self, number: int, data: bytes) -> bool:
        """Take a part of a file; an empty one ends it. Whether it ended."""
        file = self._files.get(number)
        if file is None:
            raise UnsafePath(f"content for entry {number}, which was not asked for")
        if file.number is None:
            directory = self._open(file.parent)
            file.temporary = TEMPORARY % (os.getpid(), number)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with suppress(FileNotFoundError):
                os.unlink(file.temporary, dir_fd=directory)
            file.number = os.open(file.temporary, flags, 0o600, dir_fd=directory)
        if data:
            view = memoryview(data)
            while view:
                view = view[os.write(file.number, view) :]
            return False
        os.fchmod(file.number, file.mode)
        os.utime(file.number, ns=(file.mtime_ns, file.mtime_ns))
        os.close(file.number)
        file.number = None
        directory = self._open(file.parent)
        self._clear(file.parent, file.name, files=False)
        os.replace(file.temporary, file.name, src_dir_fd=directory, dst_dir_fd=directory)
        del self._files[number]
        return True

    def finish(self) -> None:
        """Make the hard links, and set what writing into directories would have changed."""
        for target, path in self._links:
            self._link(target, path)
        for path, mode, mtime_ns in reversed(self._folders):
            number = self._open(path)
            os.fchmod(number, mode)
            os.utime(number, ns=(mtime_ns, mtime_ns))

    def close(self) -> None:
        """Let go of everything; files that are not whole are removed."""
        for file in self._files.values():
            if file.number is not None:
                os.close(file.number)
                with suppress(OSError):
                    os.unlink(file.temporary, dir_fd=self._open(file.parent))
        for number in self._directories.values():
            os.close(number)
        self._directories.clear()

    # -- names ----------------------------------------------------------------------------------

    def _split(self, path: bytes) -> tuple[bytes, bytes]:
        names = path.split(b"/")
        if any(name in (b"", b".", b"..") or b"\0" in name for name in names):
            raise UnsafePath(f"the path {os.fsdecode(path)!r} would lead out of the folder")
        return b"/".join(names[:-1]), names[-1]

    def _open(self, path: bytes) -> int:
        """The directory at `path`, opened name by name."""
        number = self._directories.get(path)
        if number is not None:
            return number
        parent, name = self._split(path)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        number = os.open(name, flags, dir_fd=self._open(parent))
        if len(self._directories) > 200:
            self._forget()
        self._directories[path] = number
        return number

    def _forget(self) -> None:
        for path in list(self._directories):
            if path:
                os.close(self._directories.pop(path))

    def _make_directory(self, parent: bytes, name: bytes) -> None:
        directory = self._open(parent)
        try:
            os.mkdir(name, 0o700, dir_fd=directory)
            return
        except FileExistsError:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(name, dir_fd=directory)
            os.mkdir(name, 0o700, dir_fd=directory)
        elif found.st_mode & 0o700 != 0o700:
            os.chmod(name, 0o700, dir_fd=directory)

    def _clear(self, parent: bytes, name: bytes, *, files: bool = True) -> None:
        """Remove what is in the way of a new entry."""
        directory = self._open(parent)
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(found.st_mode):
            self._forget()
            shutil.rmtree(os.fsdecode(name), dir_fd=self._open(parent))
        elif files:
            os.unlink(name, dir_fd=directory)

    def _link(self, target: bytes, path: bytes) -> None:
        source_parent, source_name = self._split(target)
        parent, name = self._split(path)
        self._clear(parent, name)
        # Both are opened before use, since opening one may close the other's cached descriptor.
        source = os.dup(self._open(source_parent))
        try:
            os.link(
                source_name,
                name,
                src_dir_fd=source,
                dst_dir_fd=self._open(parent),
                follow_symlinks=False,
            )
        finally:
            os.close(source)
