"""Errors that carry their remedy, and the exit codes that tell outcomes apart.

raise BuildonceError(
    "the registry 127.0.0.1:5080 refused the push: HTTP 507",
    remedy="free some disk space, then run `make pipeline` again",
)
"""

from __future__ import annotations

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
