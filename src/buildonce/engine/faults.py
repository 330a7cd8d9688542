"""BuildKit's failures as the failures of a query."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from buildonce.engine.buildkit import SolveError
from buildonce.engine.errors import ExecFailed, QueryFailed
from buildonce.engine.llb import Output
from buildonce.engine.lowering import OUT_MOUNT, SPECIFICATION
from buildonce.engine.text import text
from buildonce.errors import BuildonceError

if TYPE_CHECKING:
    from buildonce.engine.engine import Engine

_PROCESS = re.compile(r'process "/\.buildonce/shim" did not complete successfully: ')

# What the shim leaves; the last one only if the shim itself has failed.
_FILES = ("o/stdout", "o/stderr", "o/exit", "o/error")

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
        return QueryFailed(_with_image(error, clean(error.message)))
    args = [str(item) for item in specification["args"]]
    if "out" not in specification:
        return QueryFailed(
            f"process {' '.join(args)!r} did not complete successfully: "
            f"exit code: {error.exit_status}"
        )
    files = await engine.build.read_failed(error, dest=OUT_MOUNT, names=_FILES)
    stdout, stderr, exit_code, cause = (text(files.get(name, b"")) for name in _FILES)
    if cause:
        return ExecFailed(args, -1, "", "", message=cause)
    if not exit_code and error.vertex:
        # Not even the shim was started; the runtime has said why.
        stderr = engine.steps.last_words(error.vertex)
    code = int(exit_code or error.exit_status)
    said = f"exit code: {code}{await engine.services.last_words(output)}"
    return ExecFailed(args, code, stdout.strip(), stderr.strip(), message=said)


def _with_image(error: SolveError, message: str) -> str:
    """The message with the image that it is about: an interrupted transfer names none."""
    source = error.op.source.identifier if error.op is not None else ""
    image = source.partition("docker-image://")[2]
    name = image.partition("@")[0]
    return f"failed to pull {image}: {message}" if name and name not in message else message


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
    cleaned = _MOUNTED.sub("", _PROCESS.sub("", message))
    for prefix in ("rpc error: code = Unknown desc = ", "failed to solve: "):
        cleaned = cleaned.replace(prefix, "")
    return cleaned.strip()
