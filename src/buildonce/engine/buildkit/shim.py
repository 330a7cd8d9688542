"""What our side needs to know of the shim, the small program that runs commands in containers.

Its source is `engine/shim/`; it is mounted read-only at `PATH`, and finds what to do in the
variable `SPECIFICATION`::

    spec = ExecSpec(args=["pytest"], out="/.buildonce/out")
    meta.args.append(PATH)
    meta.env.append(f"{SPECIFICATION}={spec.to_json()}")
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

PATH = "/.buildonce/shim"
SPECIFICATION = "_BUILDONCE_EXEC"
# The variable with settings of the host's, JSON: {"env": {…}}, defaults for the command's own.
HOST = "_BUILDONCE_HOST"

# What the daemon sets in every exec to trace it. It would override what the user has set.
TRACING = (
    "OTEL_TRACES_EXPORTER",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_TRACE_PARENT",
    "OTEL_TRACE_STATE",
    "TRACEPARENT",
    "TRACESTATE",
)


@dataclass(frozen=True, slots=True)
class Relay:
    """Connections to `listen` (host:port on the container's loopback) go to a unix socket."""

    listen: str
    socket: str


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """What to run, and what to do with its streams.

    Attributes:
        stdin: path of a file to read; None is an empty input.
        redirect_stdout, redirect_stderr: paths that get the stream, which is then not captured.
        out: folder, writable by the command's user, for the files `stdout`, `stderr`, `combined`
            and `exit`; None keeps nothing.
        expect: "success": the exit code is the command's; "any": always 0; "failure": 0 when the
            command failed, 1 when it did not.
        secret_env, secret_files: variables and files whose values never show in the output.
        tracing: the command's own of the variables by which the daemon traces its steps.
        caches: the cache volumes of the exec, which the shim has no use for; the daemon leaves
            them out of the exec's cache key, and here they are in it.
        relays: see `Relay`.
    """

    args: Sequence[str]
    stdin: str | None = None
    redirect_stdout: str | None = None
    redirect_stderr: str | None = None
    out: str | None = None
    expect: Literal["success", "failure", "any"] = "success"
    secret_env: Sequence[str] = ()
    secret_files: Sequence[str] = ()
    tracing: Mapping[str, str] = field(default_factory=dict)
    caches: Sequence[str] = ()
    relays: Sequence[Relay] = ()

    def to_json(self) -> str:
        """The variable's value: the same for equal specifications, as cache keys want it."""
        given = {key: value for key, value in asdict(self).items() if value}
        return json.dumps(given, separators=(",", ":"), sort_keys=True)


def parse_read(output: bytes, names: Sequence[str]) -> dict[str, bytes]:
    """The files in what `shim read NAME…` prints: for each its size in a line, then its bytes;
    -1 stands for a file that is not there."""
    files: dict[str, bytes] = {}
    position = 0
    for name in names:
        end = output.index(b"\n", position)
        size = int(output[position:end])
        position = end + 1
        if size >= 0:
            files[name] = output[position : position + size]
            position += size
    return files
