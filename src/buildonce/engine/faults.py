"""BuildKit's failures as the failures of a query."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from buildonce.engine.buildkit import SolveError
from buildonce.engine.errors import ExecFailed, QueryFailed
from buildonce.engine.llb import Output
from buildonce.engine.lowering import OUT_MOUNT, SPECIFICATION
from buildonce.errors import BuildonceError

if TYPE_CHECKING:
    from buildonce.engine.engine import Engine

_PROCESS = re.compile(r'process "/\.buildonce/shim" did not complete successfully: ')

# Where the daemon mounts a file system while it edits it: nothing that a user knows.
_MOUNTED = re.compile(r"/[^\s:]*/cachemounts/buildkit\d+")


async def explain(engine: Engine, error: BuildonceError, output: Output) -> QueryFailed:
    """What to answer for `error`, which running `output` ended with."""
    if not isinstance(error, SolveError):
        return QueryFailed(str(error))
    not_started = engine.services.failure_of(output)
    if not_started is not None:
        return not_started
    specification = _specification(error)
    if specification is None or error.exit_status is None:
        return QueryFailed(clean(error.message))
    args = [str(item) for item in specification["args"]]
    if "out" not in specification:
        return QueryFailed(
            f"process {' '.join(args)!r} did not complete successfully: "
            f"exit code: {error.exit_status}"
        )
    files = await engine.build.read_failed(
        error, dest=OUT_MOUNT, names=["o/stdout", "o/stderr", "o/exit"]
    )
    code = int(files.get("o/exit", b"") or error.exit_status)
    stderr = files.get("o/stderr", b"").decode(errors="replace")
    stderr += await engine.services.last_words(output)
    return ExecFailed(args, code, files.get("o/stdout", b"").decode(errors="replace"), stderr)


def _specification(error: SolveError) -> dict[str, list[str]] | None:
    if error.op is None or error.op.WhichOneof("op") != "exec":
        return None
    for variable in error.op.exec.meta.env:
        name, _, value = variable.partition("=")
        if name == SPECIFICATION:
            found: dict[str, list[str]] = json.loads(value)
            return found
    return None


def clean(message: str) -> str:
    """BuildKit's message without its own plumbing."""
    text = _MOUNTED.sub("", _PROCESS.sub("", message))
    for prefix in ("rpc error: code = Unknown desc = ", "failed to solve: "):
        text = text.replace(prefix, "")
    return text.strip()
