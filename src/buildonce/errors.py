"""Errors that carry their remedy, and the exit codes that tell outcomes apart.

raise BuildonceError(
    "the registry 127.0.0.1:5080 refused the push: HTTP 507",
    remedy="free some disk space, then run `make pipeline` again",
)
"""

from __future__ import annotations

import errno
from enum import IntEnum


class ExitCode(IntEnum):
    """What a `buildonce` process or a pipeline ends with."""

    PASSED = 0
    CHECK_FAILED = 1
    USAGE = 2
    ROLLED_BACK = 3
    POLICY_DENIED = 4
    INCONCLUSIVE = 5
    TOOL_FAILED = 70  # EX_SOFTWARE of sysexits.h: ours, not the user's code, is at fault
    INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class BuildonceError(Exception):
    """A failure a user can act upon.

    Args:
        message: what failed and why, one sentence, naming the thing.
        remedy: the next command to type or change to make; None when there is none.
    """

    exit_code: ExitCode = ExitCode.TOOL_FAILED

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  try: {self.remedy}" if self.remedy else self.message


_ROOM = (
    "make room (df -h), then run the command again; buildonce writes below BUILDONCE_CACHE, "
    "BUILDONCE_HOME and the folder for temporary files"
)
_RIGHT = "give this user the right to it, or use another folder"
_AWAY = "move away what is there, or use another folder"
_REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EACCES: _RIGHT,
    errno.EPERM: _RIGHT,
    errno.EROFS: _RIGHT,
    errno.EEXIST: _AWAY,
    errno.EISDIR: _AWAY,
    errno.ENOTDIR: _AWAY,
    errno.EMFILE: "raise the number of files that may be open: ulimit -n 65536",
}


def leaves(error: BaseException) -> list[BaseException]:
    """What really happened, in order: task groups wrap failures in groups of groups."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


def refusal(error: BaseException) -> BuildonceError | None:
    """What this machine refused (a full disk, a folder that may not be written), to act upon.

    Returns:
        None for any other error.
    """
    if not isinstance(error, OSError) or error.errno not in _REMEDIES:
        return None
    what = error.filename or "a file that this command writes"
    return BuildonceError(f"{what}: {error.strerror}", remedy=_REMEDIES[error.errno])
