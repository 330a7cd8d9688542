"""What a query can fail with, as the client will see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class QueryFailed(Exception):
    """A query that cannot be answered; its message is for the user, verbatim."""

    extensions: Mapping[str, Any] | None = None


class NotServed(QueryFailed):
    """A part of Dagger's API that the embedded engine does not serve."""

    def __init__(self, coordinate: str) -> None:
        super().__init__(
            f"{coordinate} is not served by buildonce's embedded engine; "
            "run the same program on Dagger (`dagger run …`) to use it. "
            "docs/engine.md lists what is left out"
        )
        self.extensions = {"_type": "NOT_SERVED", "field": coordinate}


class NoCommand(QueryFailed):
    """There is nothing to run: neither arguments nor default arguments."""

    def __init__(self) -> None:
        super().__init__("no command has been set")


class ExecFailed(QueryFailed):
    """A command that ended with an exit code that was not expected.

    The extensions are what the client makes its `ExecError` from.
    """

    def __init__(
        self,
        command: Sequence[str],
        exit_code: int,
        stdout: str,
        stderr: str,
        *,
        message: str = "",
    ) -> None:
        super().__init__(message or f"exit code: {exit_code}")
        self.extensions = {
            "_type": "EXEC_ERROR",
            "cmd": list(command),
            "exitCode": exit_code,
            "stdout": stdout,
            "stderr": stderr,
        }
