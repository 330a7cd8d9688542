"""The same facts as the pages, as JSON under /api/, and /healthz.

Every list answers `{"items": [...], "page": 1, "limit": 25}`; an error `{"error": ..., "remedy":
...}` with a fitting status.
"""

from __future__ import annotations

from datetime import timedelta

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from buildonce.dashboard.environments import compare, environments
from buildonce.dashboard.reading import reading, settings_of
from buildonce.dashboard.web import (
    days_of,
    environment_of,
    json_response,
    page_of,
    valid_id,
)
from buildonce.ledger import LedgerError


async def health(request: Request) -> Response:
    """Which release this is; 200 when pages can be rendered (ledger readable or absent)."""
    settings = settings_of(request)
    answer = {
        "status": "ok",
        "version": settings.version,
        "revision": settings.revision,
        "digest": settings.digest,
        "environment": settings.environment,
    }
    try:
        async with reading(request):
            return json_response(answer)
    except LedgerError as error:
        answer |= {"status": "unavailable", "error": error.message}
        return json_response(answer, 503)


async def list_environments(request: Request) -> Response:
    settings = settings_of(request)
    async with reading(request) as ledger:
        known = await environments(ledger, here=settings.environment, digest=settings.digest)
        return json_response({"items": known, "comparison": await compare(ledger, known)})


async def list_runs(request: Request) -> Response:
    page, limit = page_of(request)
    async with reading(request) as ledger:
        items = await ledger.runs(limit, offset=(page - 1) * limit)
    return json_response({"items": items, "page": page, "limit": limit})


async def one_run(request: Request) -> Response:
    async with reading(request) as ledger:
        run = await ledger.run(valid_id(request, "run"))
    return _found(run)


async def list_rollouts(request: Request) -> Response:
    page, limit = page_of(request)
    environment = environment_of(request)
    async with reading(request) as ledger:
        items = await ledger.rollouts(environment, limit, offset=(page - 1) * limit)
    return json_response({"items": items, "page": page, "limit": limit})


async def one_rollout(request: Request) -> Response:
    async with reading(request) as ledger:
        rollout = await ledger.rollout(valid_id(request, "rollout"))
    return _found(rollout)


async def list_releases(request: Request) -> Response:
    page, limit = page_of(request)
    async with reading(request) as ledger:
        items = await ledger.releases(limit, offset=(page - 1) * limit)
    return json_response({"items": items, "page": page, "limit": limit})


async def one_release(request: Request) -> Response:
    async with reading(request) as ledger:
        release = await ledger.release(valid_id(request, "version"))
    return _found(release)


async def metrics(request: Request) -> Response:
    days, environment = days_of(request), environment_of(request) or "production"
    async with reading(request) as ledger:
        return json_response(await ledger.metrics(environment, timedelta(days=days)))


def _found(value: object | None) -> Response:
    if value is None:
        raise HTTPException(404)
    return json_response(value)


ROUTES = [
    Route("/healthz", health),
    Route("/api/environments", list_environments),
    Route("/api/runs", list_runs),
    Route("/api/runs/{run}", one_run),
    Route("/api/rollouts", list_rollouts),
    Route("/api/rollouts/{rollout}", one_rollout),
    Route("/api/releases", list_releases),
    Route("/api/releases/{version}", one_release),
    Route("/api/metrics", metrics),
]
