"""The application: routes, and what a reader sees when something is wrong.

app = create_app(Settings(ledger=Path("ledger.sqlite")))
"""

from __future__ import annotations

from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from buildonce.dashboard import api, pages
from buildonce.dashboard.settings import Settings
from buildonce.dashboard.web import SecureHeaders, json_response
from buildonce.ledger import LedgerError, LedgerLocked


def create_app(settings: Settings) -> ASGIApp:
    """The dashboard over the ledger that the settings name."""
    app = Starlette(
        routes=[*api.ROUTES, *pages.ROUTES],
        exception_handlers={
            HTTPException: _refused,
            LedgerError: _unreadable,
            Exception: _broken,
        },
    )
    app.state.settings = settings
    return SecureHeaders(app)  # outermost, so that even the page of a bug carries them


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = error.detail
    if said == HTTPStatus(error.status_code).phrase:  # what Starlette fills in when told nothing
        said = pages.STATUS.get(error.status_code, "The request was refused.")
    return _error(request, error.status_code, said, None, dict(error.headers or {}))


async def _unreadable(request: Request, error: Exception) -> Response:
    assert isinstance(error, LedgerError)
    headers = {"Retry-After": "2"} if isinstance(error, LedgerLocked) else {}
    message = f"{error.message[0].upper()}{error.message[1:]}."
    return _error(request, 503, message, error.remedy, headers)


async def _broken(request: Request, error: Exception) -> Response:
    # Starlette raises it again after this answer, and uvicorn writes the traceback to its log.
    return _error(request, 500, "The dashboard failed; its log has the cause.", None, {})


def _error(
    request: Request, status: int, message: str, remedy: str | None, headers: dict[str, str]
) -> Response:
    if request.url.path.startswith("/api/"):
        return json_response({"error": message, "remedy": remedy}, status, headers)
    return pages.render(
        request, "error.html", status, headers, code=status, message=message, remedy=remedy
    )
