"""Image references as registry clients read them: `alpine` is `docker.io/library/alpine:latest`.

Grammar: https://pkg.go.dev/github.com/distribution/reference
"""

from __future__ import annotations

import re

from buildonce.engine.errors import QueryFailed

_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?"
    r"(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*(?:[+._-][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}))?",
    re.ASCII,
)
_HOST = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")
LONGEST = 255  # characters of a name


def normalize(address: str) -> str:
    """`address` with its host and its tag or digest.

    Raises:
        QueryFailed: it is not an image reference.
    """
    first, slash, rest = address.partition("/")
    if not slash or not ({".", ":"} & {*first} or first == "localhost" or first != first.lower()):
        first, rest = "docker.io", address if slash else f"library/{address}"
    found = _REFERENCE.fullmatch(rest)
    if found is None or not _HOST.fullmatch(first) or len(found["path"]) > LONGEST:
        why = "invalid reference format"
        name = re.split(r"[:@]", rest)[0]
        if address and name != name.lower():
            why += f": repository name ({name}) must be lowercase"
        raise QueryFailed(f"failed to parse image address {address!r}: {why}")
    tag, digest = found["tag"], found["digest"]
    if tag is None and digest is None:
        tag = "latest"
    return (
        f"{first}/{found['path']}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    )


def registry_of(address: str) -> str:
    """The host (and port) that an image reference leads to; an address without a slash is one."""
    return normalize(address).split("/")[0] if "/" in address else address
