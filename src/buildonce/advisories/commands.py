"""`buildonce advisories update` and `status`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import typer

from buildonce.advisories.configured import open_database, place
from buildonce.advisories.database import BadDatabase, Database, Ecosystem
from buildonce.config import Config
from buildonce.errors import BuildonceError, ExitCode

app = typer.Typer(no_args_is_help=True)
advisories = typer.Typer(
    no_args_is_help=True,
    help="The database of known vulnerabilities: bring it up to date, look at it.",
)
app.add_typer(advisories, name="advisories")

_CONFIG = typer.Option("ci/pipeline.toml", "--config", "-c", help="The pipeline's configuration.")
_JSON = typer.Option(False, "--json", help="Print the result as JSON.")


@advisories.command()
def update(
    origin: str = typer.Option(
        "", "--from", help="Address or folder to get it from, in place of the configured one."
    ),
    ecosystem: list[str] = typer.Option(
        [], "--ecosystem", help="Only this one; may be given several times."
    ),
    config: Path = _CONFIG,
    as_json: bool = _JSON,
) -> int:
    """Get the newest advisories.

    Each ecosystem is fetched whole and checked before it replaces what is there; whatever goes
    wrong, the old one stays. Ends with 70 when one could not be brought up to date.

    Example: buildonce advisories update --from https://osv-vulnerabilities.storage.googleapis.com
    """
    from buildonce.advisories.update import update as fetch

    loaded = Config.load(config)
    settings = loaded.advisories
    where = place(settings, near=config)
    if where is None:
        raise BuildonceError(
            f"{config} names no advisory database, so there is none to bring up to date",
            remedy='add `database = "https://…"` (or a folder) under [advisories]',
        )
    source = origin or where.address
    if source is None:
        raise BuildonceError(
            f"[advisories] database = {where.source!r} is a folder: it does not say where its "
            "advisories come from",
            remedy="buildonce advisories update --from ADDRESS",
        )
    if source.startswith("file://"):
        source = str(Path(source.removeprefix("file://")))
    say = partial(typer.echo, err=True)
    names = ecosystem or list(settings.ecosystems)
    results = anyio.run(partial(fetch, where.folder, names, origin=source, say=say))
    if as_json:
        data = [
            {
                "ecosystem": result.name,
                "before": result.before,
                "now": _as_json(result.now) if result.now else None,
                "problem": result.problem,
            }
            for result in results
        ]
        typer.echo(json.dumps(data, indent=1))
    for result in results:
        if result.problem:
            kept = f"; the {result.before} from before stay" if result.before else ""
            typer.echo(f"✗ {result.name}: {result.problem}{kept}", err=True)
            typer.echo(f"  try: {result.remedy}", err=True)
        elif not as_json:
            typer.echo(f"✓ {_line(result.now)}{_change(result.before, result.now)}")
    failed = any(result.problem for result in results)
    return ExitCode.TOOL_FAILED if failed else ExitCode.PASSED


@advisories.command()
def status(config: Path = _CONFIG, as_json: bool = _JSON) -> int:
    """Say which database is used, how old it is, and whether a scan would accept it.

    Ends with 0 when it would, with 1 when not.

    Example: buildonce advisories status
    """
    loaded = Config.load(config)
    settings = loaded.advisories
    try:
        database = open_database(settings, near=config)
    except BadDatabase as error:
        if as_json:
            typer.echo(json.dumps({"usable": False, "problem": error.message}, indent=1))
        else:
            typer.echo(f"✗ {error.message}")
            typer.echo(f"  try: {error.remedy}")
        return ExitCode.CHECK_FAILED
    typer.echo(json.dumps(_status(database), indent=1) if as_json else _told(database))
    return ExitCode.PASSED


def _status(database: Database) -> dict[str, Any]:
    return {
        "usable": True,
        "source": database.source,
        "sample": database.sample,
        "digest": database.digest,
        "newest": database.newest.isoformat(),
        "folder": str(database.folder),
        "ecosystems": [_as_json(entry) for entry in database.ecosystems.values()],
    }


def _told(database: Database) -> str:
    lines = [f"✓ {_line(entry)}" for entry in database.ecosystems.values()]
    if database.sample:
        lines += [
            "! only the SAMPLE that comes along: finding nothing in it proves nothing",
            '  try: add `database = "https://…"` under [advisories], then '
            "`buildonce advisories update`",
        ]
    return "\n".join([*lines, f"  {database.folder}"])


def _as_json(entry: Ecosystem) -> dict[str, Any]:
    return {
        "name": entry.name,
        "count": entry.count,
        "newest": entry.newest.isoformat(),
        "digest": entry.digest,
    }


def _line(entry: Ecosystem | None) -> str:
    assert entry is not None
    return f"{entry.name}: {entry.count} advisories, the newest of {entry.newest:%Y-%m-%d}"


def _change(before: int | None, now: Ecosystem | None) -> str:
    if before is None or now is None or now.count == before:
        return ""
    return f" ({now.count - before:+d})"
