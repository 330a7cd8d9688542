"""The pages, one function each: read the ledger, render a template."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from buildonce.dashboard import formatting
from buildonce.dashboard.environments import compare, environments
from buildonce.dashboard.reading import reading, settings_of
from buildonce.dashboard.web import days_of, environment_of, html_response, page_of, valid_id
from buildonce.ledger import Ledger

_HERE = Path(__file__).parent
# The few static files are held in memory: no name in a URL ever becomes a path.
_STATIC = {
    name: ((_HERE / "static" / name).read_bytes(), kind)
    for name, kind in (("style.css", "text/css; charset=utf-8"), ("icon.svg", "image/svg+xml"))
}
_templates = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    auto_reload=False,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters.update(
    absolute=formatting.absolute,
    ago=formatting.ago,
    brief=formatting.brief,
    duration=formatting.duration,
    machine=formatting.machine,
    percent=formatting.percent,
    plain=formatting.plain,
    rate=formatting.rate,
    short=formatting.short,
)
# The name of a file that may be cached for ever changes with its content.
_templates.globals["style"] = sha256(_STATIC["style.css"][0]).hexdigest()[:12]

STATUS = {
    400: "The address asks for something impossible.",
    404: "There is nothing at this address.",
    405: "This address can only be read.",
}


def render(
    request: Request,
    template: str,
    status: int = 200,
    headers: dict[str, str] | None = None,
    **values: object,
) -> Response:
    """A page of the template with what all of them need."""
    text = _templates.get_template(template).render(
        settings=settings_of(request),
        now=datetime.now(UTC),
        path=request.url.path,
        **values,
    )
    return html_response(text, status, headers)


async def home(request: Request) -> Response:
    settings = settings_of(request)
    async with reading(request) as ledger:
        known = await environments(ledger, here=settings.environment, digest=settings.digest)
        return render(
            request,
            "environments.html",
            environments=known,
            comparison=await compare(ledger, known),
            runs=await ledger.runs(8),
            metrics=await ledger.metrics(),
        )


async def runs(request: Request) -> Response:
    page, limit = page_of(request)
    async with reading(request) as ledger:
        found = await ledger.runs(limit + 1, offset=(page - 1) * limit)
    return render(request, "runs.html", runs=found[:limit], **_paged(page, limit, len(found)))


async def run(request: Request) -> Response:
    async with reading(request) as ledger:
        found = await ledger.run(valid_id(request, "run"))
        if found is None:
            raise HTTPException(404, "The ledger has no such run.")
        rollouts = [await ledger.rollout(id_) for id_ in found.rollouts]
    return render(request, "run.html", run=found, rollouts=[each for each in rollouts if each])


async def rollouts(request: Request) -> Response:
    page, limit = page_of(request)
    environment = environment_of(request)
    async with reading(request) as ledger:
        found = await ledger.rollouts(environment, limit + 1, offset=(page - 1) * limit)
        names = await ledger.environments()
    return render(
        request,
        "rollouts.html",
        rollouts=found[:limit],
        environment=environment,
        names=names,
        **_paged(page, limit, len(found)),
    )


async def rollout(request: Request) -> Response:
    async with reading(request) as ledger:
        found = await ledger.rollout(valid_id(request, "rollout"))
    if found is None:
        raise HTTPException(404, "The ledger has no such rollout.")
    return render(request, "rollout.html", rollout=found)


async def releases(request: Request) -> Response:
    page, limit = page_of(request)
    async with reading(request) as ledger:
        found = await ledger.releases(limit + 1, offset=(page - 1) * limit)
        running = await _running(ledger)
    return render(
        request,
        "releases.html",
        releases=found[:limit],
        running=running,
        **_paged(page, limit, len(found)),
    )


async def release(request: Request) -> Response:
    async with reading(request) as ledger:
        found = await ledger.release(valid_id(request, "version"))
        if found is None:
            raise HTTPException(404, "The ledger has no such release.")
        its = [r for r in await ledger.rollouts(limit=500) if r.version == found["version"]]
        running = await _running(ledger)
    return render(request, "release.html", release=found, rollouts=its[:50], running=running)


async def metrics(request: Request) -> Response:
    days, environment = days_of(request), environment_of(request) or "production"
    async with reading(request) as ledger:
        measured = await ledger.metrics(environment, timedelta(days=days))
        before = await ledger.metrics(environment, timedelta(days=days), until=measured.since)
        names = await ledger.environments()
    return render(request, "metrics.html", metrics=measured, before=before, days=days, names=names)


async def static(request: Request) -> Response:
    content, kind = _STATIC.get(request.path_params["name"], (None, ""))
    if content is None:
        raise HTTPException(404)
    return Response(
        content, media_type=kind, headers={"Cache-Control": "public, max-age=31536000, immutable"}
    )


async def robots(request: Request) -> Response:
    return Response("User-agent: *\nDisallow: /\n", media_type="text/plain")


async def icon(request: Request) -> Response:
    return RedirectResponse("/static/icon.svg", 301)


async def _running(ledger: Ledger) -> dict[str, list[str]]:
    """Names of the environments in which each version runs now."""
    running: dict[str, list[str]] = {}
    for name in await ledger.environments():
        current = await ledger.current(name)
        if current is not None:
            running.setdefault(current.version, []).append(name)
    return running


def _paged(page: int, limit: int, found: int) -> dict[str, Any]:
    return {"page": page, "limit": limit, "more": found > limit}


ROUTES = [
    Route("/", home),
    Route("/runs", runs),
    Route("/runs/{run}", run),
    Route("/rollouts", rollouts),
    Route("/rollouts/{rollout}", rollout),
    Route("/releases", releases),
    Route("/releases/{version}", release),
    Route("/metrics-page", metrics),
    Route("/static/{name}", static),
    Route("/favicon.ico", icon),
    Route("/robots.txt", robots),
]
