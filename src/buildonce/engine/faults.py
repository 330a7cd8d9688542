"""BuildKit's failures as the failures of a query."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from buildonce.engine import llb, lowering
from buildonce.engine.buildkit import SolveError, pb
from buildonce.engine.errors import ExecFailed, QueryFailed
from buildonce.engine.llb import Output
from buildonce.engine.lowering import OUT_MOUNT, SPECIFICATION
from buildonce.engine.text import text
from buildonce.errors import BuildonceError

if TYPE_CHECKING:
    from buildonce.engine.engine import Engine

_PROCESS = re.compile(r'process "/\.buildonce/shim" did not complete successfully: ')

MAX_IN_ERROR = 100 << 10  # bytes of output; as Dagger limits it

# What the shim leaves; the last one only if the shim itself has failed.
_FILES = ("o/stdout", "o/stderr", "o/exit", "o/error")

_NOBODY = re.compile(r"unable to find (?:user|group) .*")
_IMAGE = "docker-image://"
_BROKEN_OFF = ("unexpected EOF", "short read", "connection re", "i/o timeout")

# What the daemon was about when it came upon a path or a pattern that was wrong.
_CHECKSUM = re.compile(
    r"failed to compute cache key: (?:failed to calculate checksum of ref \S+: )?"
)

_MISMATCH = re.compile(r"digest mismatch (sha256:\w+): (sha256:\w+)")
_NOT_GIVEN = re.compile(rf"secret {lowering.NOT_GIVEN}:(\S+): not found")

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
    args = [str(item) for item in specification["args"]] if specification else []
    if error.exit_status is None and args and (nobody := _NOBODY.search(error.message)):
        return ExecFailed(args, -1, "", "", message=f"get user: {nobody[0]}")
    if not args or error.exit_status is None:
        return QueryFailed(with_image(clean(error.message), output))
    try:
        files = await engine.build.read_failed(error, dest=OUT_MOUNT, names=_FILES)
    except SolveError as unread:  # where no command can be started, none can read either
        if not (error.vertex and engine.steps.last_words(error.vertex)):
            raise unread from error
        files = {}
    stdout, stderr, exit_code, cause = (text(last_of(files.get(name, b""))) for name in _FILES)
    if cause:
        return ExecFailed(args, -1, "", "", message=cause)
    if not exit_code and error.vertex:
        # Not even the shim was started; the runtime has said why.
        stderr = engine.steps.last_words(error.vertex)
    code = int(exit_code or error.exit_status)
    said = f"exit code: {code}{await engine.services.last_words(output)}"
    return ExecFailed(args, code, stdout.strip(), stderr.strip(), message=said)


def last_of(data: bytes) -> bytes:
    """`data`, or where it is more than an error's message holds, its end."""
    if len(data) <= MAX_IN_ERROR:
        return data
    omitted = b"[omitting %d bytes]..." % (len(data) - MAX_IN_ERROR)
    return omitted + data[len(data) - MAX_IN_ERROR + len(omitted) :]


def with_image(message: str, output: Output | None) -> str:
    """The message with the image that it is about: a transfer that breaks off names none."""
    if output is None or not any(sign in message for sign in _BROKEN_OFF):
        return message
    operations = (pb.Op.FromString(vertex.op) for vertex in llb.walk([output]))
    sources = (operation.source.identifier for operation in operations)
    images = [name.removeprefix(_IMAGE) for name in sources if name.startswith(_IMAGE)]
    if not images or any(image.partition("@")[0] in message for image in images):
        return message
    return f"failed to pull {' or '.join(images)}: {message}"


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
    cleaned = _CHECKSUM.sub("", cleaned)
    cleaned = _MISMATCH.sub(r"http checksum mismatch: expected \2, got \1", cleaned)
    cleaned = _NOT_GIVEN.sub(r'secret "\1" is required, but the build was not given it', cleaned)
    for prefix in ("rpc error: code = Unknown desc = ", "failed to solve: "):
        cleaned = cleaned.replace(prefix, "")
    return cleaned.strip()
