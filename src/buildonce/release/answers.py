"""What a registry answered: whole, broken off, or an error; every failure has a name of its own.

`Absent` is given only for a 404 that the registry explains with a code of its own, so that a
proxy's page or a wrong address is never taken for "there is none".
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx

from buildonce.loopback import is_loopback
from buildonce.release.errors import (
    Absent,
    BrokenOff,
    RegistryError,
    RegistryRefused,
    RegistryUnreachable,
)
from buildonce.visible import on_one_line

SMALL = 1 << 20  # bytes of an error or a token: what is longer is not read
_ABSENT = {"MANIFEST_UNKNOWN", "NAME_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_BLOB_UNKNOWN", "NOT_FOUND"}


@dataclass(frozen=True)
class Answer:
    """A whole answer of the 2xx kind."""

    status: int
    headers: httpx.Headers
    body: bytes
    url: httpx.URL


async def bounded(answer: httpx.Response, limit: int, host: str, what: str) -> AsyncIterator[bytes]:
    """The bytes of an answer as they come, and not more than were awaited.

    Raises:
        BrokenOff: it ended before its end.
        RegistryError: there are more bytes than `limit`.
    """
    size = 0
    try:
        async for chunk in answer.aiter_bytes():
            size += len(chunk)
            if size > limit:
                raise RegistryError(
                    f"the registry {host} answers with more than the {limit} bytes awaited ({what})"
                )
            yield chunk
    except httpx.HTTPError as error:
        raise BrokenOff(f"the registry {host} broke off its answer ({what})") from error


async def refusal(answer: httpx.Response, host: str, what: str) -> RegistryError:
    """What an answer that is not of the 2xx kind means."""
    data = b""
    try:
        async for chunk in answer.aiter_bytes():
            data += chunk
            if len(data) > SMALL:
                break
    except httpx.HTTPError as error:
        return unreachable(host, what, error)
    status = answer.status_code
    errors = object_of(data).get("errors")
    first = errors[0] if isinstance(errors, list) and errors else {}
    code = str(first.get("code", "")) if isinstance(first, dict) else ""
    told = str(first.get("message", "")) if isinstance(first, dict) else ""
    if status == 404 and code in _ABSENT:
        return Absent(f"the registry {host} has none such: {what}")
    if status in (401, 403):
        return RegistryRefused(
            f"the registry {host} does not allow it ({what}): HTTP {status}",
            status=status,
            remedy=f"docker login {host}, as a user who may do this",
        )
    why = on_one_line(f"{code} {told}".strip()[:200]) or "without a registry's error: is it one?"
    return RegistryRefused(
        f"the registry {host} answers HTTP {status} ({what}): {why}", status=status
    )


def unreachable(host: str, what: str, error: Exception) -> RegistryUnreachable:
    """No whole answer came: why, in words."""
    match error:
        case httpx.TimeoutException():
            why = "does not answer in time"
        case httpx.ConnectError():
            why = f"cannot be reached: {error}"
        case httpx.RemoteProtocolError() | httpx.ReadError():
            why = "broke off its answer"
        case _:
            why = f"does not answer: {str(error) or type(error).__name__}"
    remedy = "buildonce registry up" if is_loopback(host) else None
    return RegistryUnreachable(f"the registry {host} {why} ({what})", remedy=remedy)


def object_of(data: bytes) -> dict[str, Any]:
    """The JSON object that these bytes are; an empty one when they are none."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
