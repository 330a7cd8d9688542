"""File modes as Go's `os.FileMode` has them on the wire, and as `st_mode` has them here."""

from __future__ import annotations

import stat

DIRECTORY = 1 << 31
SYMLINK = 1 << 27
DEVICE = 1 << 26
NAMED_PIPE = 1 << 25
SOCKET = 1 << 24
SETUID = 1 << 23
SETGID = 1 << 22
CHAR_DEVICE = 1 << 21
STICKY = 1 << 20
# All that is not a regular file.
TYPE = DIRECTORY | SYMLINK | DEVICE | NAMED_PIPE | SOCKET | CHAR_DEVICE | (1 << 19)

_BITS = ((stat.S_ISUID, SETUID), (stat.S_ISGID, SETGID), (stat.S_ISVTX, STICKY))
_TYPES = (
    (stat.S_IFDIR, DIRECTORY),
    (stat.S_IFLNK, SYMLINK),
    (stat.S_IFCHR, DEVICE | CHAR_DEVICE),
    (stat.S_IFBLK, DEVICE),
    (stat.S_IFIFO, NAMED_PIPE),
    (stat.S_IFSOCK, SOCKET),
)


def to_go(mode: int) -> int:
    """The wire's mode of an `st_mode`."""
    result = mode & 0o777
    for ours, go in _BITS:
        if mode & ours:
            result |= go
    kind = stat.S_IFMT(mode)
    for ours, go in _TYPES:
        if kind == ours:
            result |= go
    return result


def from_go(mode: int) -> int:
    """The `st_mode` of a wire's mode."""
    result = mode & 0o777
    for ours, go in _BITS:
        if mode & go:
            result |= ours
    for ours, go in _TYPES:
        if mode & go == go:
            return result | ours
    return result | stat.S_IFREG
