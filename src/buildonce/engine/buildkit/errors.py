"""What can go wrong between us and buildkitd, each with a class of its own.

The daemon's own text is always kept: it names the step, the image or the file.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError

from buildonce.engine.buildkit.proto import gateway_pb2, ops_pb2
from buildonce.errors import BuildonceError

if TYPE_CHECKING:
    from grpc.aio import AioRpcError

    from buildonce.engine.buildkit.job import Job


class BuildkitError(BuildonceError):
    """Base of all of them."""


class DaemonRefused(BuildkitError):
    """Nothing answers at the daemon's address."""


class DaemonGone(BuildkitError):
    """The daemon went away while something was under way."""


class Canceled(BuildkitError):
    """The daemon gave up on a step because somebody cancelled it there."""


class SolveError(BuildkitError):
    """A step failed, or a question to the daemon did.

    Attributes:
        vertex: digest of the operation that failed, when it was an operation.
        exit_status: of the command, when it was a command that ended.
        op: the operation itself, when it is part of the definition that was solved.
        mount_refs: for a command: a reference for each mount, in the operation's order, with what
            the command had written until it failed; "" where there is none. `Build.read_failed`
            reads them, as long as the build is open.
        input_refs: references of the operation's inputs.
        code: the gRPC status, such as "NOT_FOUND".
    """

    def __init__(
        self,
        message: str,
        *,
        vertex: str | None = None,
        exit_status: int | None = None,
        op: ops_pb2.Op | None = None,
        mount_refs: Sequence[str] = (),
        input_refs: Sequence[str] = (),
        code: str = "UNKNOWN",
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.vertex = vertex
        self.exit_status = exit_status
        self.op = op
        self.mount_refs = list(mount_refs)
        self.input_refs = list(input_refs)
        self.code = code
        self.job: Job | None = None  # where the references are


class ImageNotFound(SolveError):
    """A registry answers that it does not have the image."""


class Unauthorized(SolveError):
    """A registry wants other credentials."""


class PathNotFound(SolveError):
    """A reference has no such path."""


class DirectoryChanged(SolveError):
    """A file of a local directory changed between being listed and being sent."""


# "docker.io/library/x:1: not found", also at the end of a longer text.
_NO_IMAGE = re.compile(r"(?:^|[\s/])[\w.:-]+(?:/[\w.-]+)+(?::[\w.-]+)?(?:@\w+:\w+)?: not found$")

# How our own refusals are recognised when they come back inside the daemon's text.
CHANGED = "changed while it was being sent"


def translate(
    error: AioRpcError, address: str, definition: ops_pb2.Definition | None = None
) -> BuildkitError:
    """The exception that a failed call stands for."""
    code = error.code()
    text = error.details() or code.name
    status = _status(error)
    if code is grpc.StatusCode.UNAVAILABLE and (status is None or not status.details):
        return unavailable(text, address)
    if code is grpc.StatusCode.CANCELLED and (status is None or not status.details):
        return Canceled(f"buildkitd cancelled the call: {text}")
    return _solve_error(text, code.name, status, definition)


def unavailable(text: str, address: str) -> BuildkitError:
    """The transport failed: before there was a connection, or after."""
    refused = ("failed to connect", "Failed to connect", "No such file", "Connection refused")
    if any(sign in text for sign in refused):
        return DaemonRefused(
            f"nothing answers at {address}: {text}",
            remedy="start buildkitd there, or unset BUILDKIT_HOST to use a daemon of our own",
        )
    return DaemonGone(
        f"buildkitd at {address} went away: {text}",
        remedy="look at the end of its log for the reason, then run the command again",
    )


def from_status(
    status: gateway_pb2.Status, definition: ops_pb2.Definition | None = None
) -> SolveError:
    """The same for a status that came inside a message."""
    name = next((c.name for c in grpc.StatusCode if c.value[0] == status.code), "UNKNOWN")
    return _solve_error(status.message, name, status, definition)


def _status(error: AioRpcError) -> gateway_pb2.Status | None:
    trailers: Any = error.trailing_metadata()  # pairs, whatever the published types say
    for key, value in trailers or ():
        if key == "grpc-status-details-bin":
            data = value if isinstance(value, bytes) else base64.b64decode(value + "==")
            try:
                return gateway_pb2.Status.FromString(data)
            except DecodeError:
                return None
    return None


def _solve_error(
    text: str,
    code: str,
    status: gateway_pb2.Status | None,
    definition: ops_pb2.Definition | None,
) -> SolveError:
    if status is not None and status.message:
        text = status.message
    vertex: str | None = None
    exit_status: int | None = None
    mounts: list[str] = []
    inputs: list[str] = []
    # Each detail is JSON under the name of a Go type; those we do not know say nothing to us.
    for detail in status.details if status is not None else ():
        kind = detail.type_url.rpartition("/")[2]
        try:
            value: Any = json.loads(detail.value)
        except ValueError:
            continue
        if not isinstance(value, dict):
            continue
        if kind == "errdefs.Vertex+json" and vertex is None:
            vertex = value.get("digest")
        elif kind == "errdefs.Solve+json":
            mounts = mounts or [item or "" for item in value.get("mountIDs") or ()]
            inputs = inputs or [item or "" for item in value.get("inputIDs") or ()]
        elif kind == "gatewayapi.ExitMessage+json":
            exit_status = value.get("Code", 0)
    return _kind(text)(
        text,
        vertex=vertex,
        exit_status=exit_status,
        op=_find(definition, vertex),
        mount_refs=mounts,
        input_refs=inputs,
        code=code,
    )


def _kind(text: str) -> type[SolveError]:
    low = text.lower()
    if CHANGED in low:
        return DirectoryChanged
    if "401 unauthorized" in low or "403 forbidden" in low or "authorization failed" in low:
        return Unauthorized
    if "pull access denied" in low or _NO_IMAGE.search(text):
        return ImageNotFound
    if "no such file or directory" in low or "not a directory" in low:
        return PathNotFound
    return SolveError


def _find(definition: ops_pb2.Definition | None, vertex: str | None) -> ops_pb2.Op | None:
    if definition is None or vertex is None:
        return None
    for data in getattr(definition, "def"):
        if "sha256:" + sha256(data).hexdigest() == vertex:
            return ops_pb2.Op.FromString(data)
    return None
