"""What every response has in common: its headers, its encoding, and the values taken from a URL.

Names come from repositories that others write, so they are hostile: templates escape them, the
policy below lets no script run even if one slipped through, and ids are looked at before use.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from buildonce.ledger import is_id

PAGE_SIZE = 25
MAX_PAGE_SIZE = 100
MAX_PAGE = 10_000
MAX_DAYS = 366

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class SecureHeaders:
    """ASGI middleware that puts HEADERS on every response, errors included."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self.app(scope, receive, secured)


def html_response(
    text: str, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A page; characters that UTF-8 cannot hold become `?` rather than an error."""
    return Response(text.encode("utf-8", "replace"), status, headers, "text/html; charset=utf-8")


def json_response(
    value: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Views, times (ISO 8601) and durations (seconds) as JSON."""
    text = json.dumps(value, default=_plain, allow_nan=False)  # ASCII: holds any character
    return Response(text + "\n", status, headers, "application/json")


def valid_id(request: Request, name: str) -> str:
    """The path parameter `name`; 404 when it cannot be an id of the ledger."""
    value = str(request.path_params[name])
    if not is_id(value):
        raise HTTPException(404)
    return value


def page_of(request: Request) -> tuple[int, int]:
    """`?page=` (from 1) and `?limit=`, within their bounds; 400 otherwise."""
    page = _number(request, "page", 1, MAX_PAGE)
    return page, _number(request, "limit", PAGE_SIZE, MAX_PAGE_SIZE)


def days_of(request: Request) -> int:
    """`?days=`, the window of metrics; 400 when out of bounds."""
    return _number(request, "days", 30, MAX_DAYS)


def environment_of(request: Request) -> str | None:
    """`?environment=`, None when not given; 400 when it cannot be one."""
    value = request.query_params.get("environment")
    if value is None or is_id(value):
        return value
    raise HTTPException(400, "environment is not the name of an environment")


def _number(request: Request, name: str, default: int, most: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most:
        return int(text)
    raise HTTPException(400, f"{name} must be a number from 1 to {most}")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} has no JSON form")
