"""The commands `status`, `history` and `diff`: what runs where, what ran, what sets two apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from buildonce.config import EnvironmentConfig
from buildonce.delivery.here import (
    CONFIG,
    ENVIRONMENT,
    JSON,
    Here,
    age,
    main,
    print_json,
    print_table,
    rollout_json,
)
from buildonce.delivery.status import (
    EnvironmentStatus,
    environment_status,
    table,
    unreachable,
)
from buildonce.errors import BuildonceError
from buildonce.ledger import Rollout

app = typer.Typer()


@app.command(epilog="Examples: buildonce status;  buildonce status production --json")
def status(
    environment: str | None = typer.Argument(
        None, help="Only this environment; all of pipeline.toml when not given."
    ),
    config: Path = CONFIG,
    as_json: bool = JSON,
) -> None:
    """Show what runs in each environment, and what is under way there; changes nothing."""

    async def work(here: Here) -> None:
        shown = list(here.places().values())
        if environment is not None:
            shown = list(here.config.environment(environment).places)
        await print_status(here, shown, as_json)

    main(config, work)


@app.command(epilog="Example: buildonce history production --limit 5")
def history(
    environment: str = ENVIRONMENT,
    limit: int = typer.Option(20, "--limit", "-n", min=1, help="How many, the newest first."),
    config: Path = CONFIG,
    as_json: bool = JSON,
) -> None:
    """Show the rollouts of an environment, the newest first."""

    async def work(here: Here) -> None:
        places = here.config.environment(environment).places
        rollouts = [
            one for place in places for one in await here.ledger.rollouts(place.name, limit=limit)
        ]
        rollouts = sorted(rollouts, key=lambda one: one.started, reverse=True)[:limit]
        if as_json:
            print_json([rollout_json(rollout) for rollout in rollouts])
            return
        if not rollouts:
            typer.echo(f"nothing was ever deployed to {environment}")
            return
        rows = [
            ("STARTED", "WHERE", "VERSION", "DIGEST", "REASON", "WAVE", "STEPS", "RESULT", "CAUSE")
        ]
        for one in rollouts:
            started = f"{one.started.astimezone():%Y-%m-%d %H:%M:%S}"
            cause = (one.cause or "").partition("\n")[0]
            digest = one.digest.removeprefix("sha256:")[:12]
            wave = str(one.wave) if one.wave is not None else "-"
            shares = _shares(one)
            rows.append(
                (
                    started,
                    one.environment,
                    one.version,
                    digest,
                    one.reason,
                    wave,
                    shares,
                    one.state,
                    cause,
                )
            )
        print_table(rows)

    main(config, work)


@app.command(epilog="Example: buildonce diff staging production")
def diff(
    one: str = typer.Argument(help="An environment.", show_default=False),
    other: str = typer.Argument(help="Another one.", show_default=False),
    config: Path = CONFIG,
    as_json: bool = JSON,
) -> None:
    """Show what sets two environments apart: release, image, configuration, releases between."""

    async def work(here: Here) -> None:
        places = [here.place(name) for name in (one, other)]
        sides = [await _side(here, place) for place in places]
        keys = list(dict.fromkeys(key for side in sides for key in side))
        lines = [(key, sides[0].get(key), sides[1].get(key)) for key in keys]
        between = await _between(here, *(place.name for place in places))
        if as_json:
            found = [
                {"what": key, one: left, other: right, "same": left == right}
                for key, left, right in lines
            ]
            print_json({"differences": found, "releases": between})
            return
        rows = [("", one, other)]
        rows += [
            (f"{'=' if left == right else '≠'} {key}", str(left or "-"), str(right or "-"))
            for key, left, right in lines
        ]
        print_table(rows)
        if between:
            typer.echo(f"{one} is ahead by {len(between)}: {', '.join(between)}")

    main(config, work)


async def print_status(here: Here, places: Sequence[EnvironmentConfig], as_json: bool) -> None:
    """What runs in these places."""
    lines: list[EnvironmentStatus] = []
    for place in places:
        project = here.config.project.name
        try:
            target = await here.target(place)
            line = await environment_status(
                place, project=project, target=target, ledger=here.ledger
            )
        except BuildonceError as error:  # no container runtime, no way into an account, no stack
            if len(places) == 1:
                raise
            line = await unreachable(place, error, ledger=here.ledger)
        lines.append(line)
    if as_json:
        print_json([line.to_json() for line in lines])
    else:
        print_table(table(lines, age))


async def _side(here: Here, place: EnvironmentConfig) -> dict[str, Any]:
    current = await here.ledger.current(place.name)
    release = await here.ledger.release(current.digest) if current is not None else None
    side: dict[str, Any] = {
        "version": current.version if current else None,
        "revision": current.revision if current else None,
        "image": current.digest if current else None,
        "pipeline's configuration": release["configuration"] if release else None,
        "target": place.target,
    }
    for key, value in sorted(place.configuration.items()):
        side[f"configuration.{key}"] = value
    return side


async def _between(here: Here, one: str, other: str) -> list[str]:
    """Versions that came after what the other runs, up to what the one runs; oldest first."""
    left, right = await here.ledger.current(one), await here.ledger.current(other)
    if left is None or right is None or left.digest == right.digest:
        return []
    versions = [release["version"] for release in await here.ledger.releases(limit=None)]
    if left.version not in versions or right.version not in versions:
        return []
    newer, older = versions.index(left.version), versions.index(right.version)
    return list(reversed(versions[newer:older]))


def _shares(rollout: Rollout) -> str:
    """ "10 → 50 → 100 %": the traffic that it was given."""
    seen = [
        step.data["percent"]
        for step in rollout.steps
        if step.name == "shift" and step.data.get("state") == "done"
    ]
    return f"{' → '.join(str(share) for share in seen)} %" if seen else "-"
