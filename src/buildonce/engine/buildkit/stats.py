"""What the daemon tells of a path in a result."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from os import fsdecode

from buildonce.engine.buildkit.filemode import from_go
from buildonce.engine.buildkit.proto import session_pb2


@dataclass(frozen=True, slots=True)
class Stat:
    """What is at a path.

    Attributes:
        path: as the daemon gives it: the name in a directory's listing.
        mode: as in `os.stat_result.st_mode`, the file's type included.
        size: in bytes.
        mtime_ns: nanoseconds since 1970.
        target: where a symbolic link points.
    """

    path: str
    mode: int
    size: int
    mtime_ns: int
    uid: int
    gid: int
    target: str

    @classmethod
    def of(cls, entry: session_pb2.Stat) -> Stat:
        """What the daemon answers."""
        return cls(
            path=fsdecode(entry.path),
            mode=from_go(entry.mode),
            size=entry.size,
            mtime_ns=entry.modTime,
            uid=entry.uid,
            gid=entry.gid,
            target=fsdecode(entry.linkname),
        )

    @property
    def name(self) -> str:
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def permissions(self) -> int:
        return stat.S_IMODE(self.mode)

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self.mode)
