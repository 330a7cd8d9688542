"""The commands of releases: `buildonce release list | show | verify`.

They ask the registry alone: no engine, no ledger, no memory of the machine that built. Results go
to stdout; `--json` prints them as JSON. Whatever is not to be believed ends with exit code 4.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import anyio
import typer

from buildonce.config import Config
from buildonce.release import policy_commands
from buildonce.release.errors import RecordRefused
from buildonce.release.evidence import Trust, Verified
from buildonce.release.models import Record
from buildonce.release.store import Store

T = TypeVar("T")

app = typer.Typer()
releases = typer.Typer(help="Releases in the registry.", no_args_is_help=True)
app.add_typer(releases, name="release")
app.add_typer(policy_commands.app)
policy_commands.register(releases)

NAME = typer.Argument(
    help="Version, commit (7 digits or more), digest of the image, or latest.", show_default=False
)
CONFIG = typer.Option(Path("ci/pipeline.toml"), "--config", "-c", help="The configuration file.")
JSON = typer.Option(False, "--json", help="Print the result as JSON.")
REPOSITORY = typer.Option(
    None, "--repository", help="Look there in place of the project's repository: host:port/name."
)
KEY = typer.Option(
    [], "--key", help="Trust this public key (PEM) in place of the pipeline's own; repeatable."
)
LIMIT = typer.Option(20, "--limit", "-n", min=1, help="How many, newest first.")


@releases.command("list", epilog="Example: buildonce release list --json")
def list_releases(
    limit: int = LIMIT,
    config: Path = CONFIG,
    repository: str | None = REPOSITORY,
    key: list[Path] = KEY,
    as_json: bool = JSON,
) -> None:
    """List the releases in the registry, newest first."""

    async def read(store: Store) -> list[Record | RecordRefused]:
        return await store.list(limit=limit)

    found, store = _with_store(read, config, repository, key)
    if as_json:
        _print_json([_refused(r) if isinstance(r, RecordRefused) else _record(r) for r in found])
        return
    if not found:
        typer.echo(f"{store.repository} has no releases yet")
    for item in found:
        if isinstance(item, RecordRefused):
            typer.echo(f"✗ {item.message}")
            continue
        release = item.release
        typer.echo(
            f"{release.version:<34} {release.image.short}  {release.revision[:12]}  "
            f"{release.created:%Y-%m-%d %H:%M}  {len(item.evidence)} pieces of evidence"
        )


@releases.command(epilog="Example: buildonce release show latest")
def show(
    name: str = NAME,
    config: Path = CONFIG,
    repository: str | None = REPOSITORY,
    key: list[Path] = KEY,
    as_json: bool = JSON,
) -> None:
    """Show a release: what it is, and the evidence that its record lists."""

    async def read(store: Store) -> Record:
        return await store.get(name)

    record, _ = _with_store(read, config, repository, key)
    if as_json:
        _print_json(_record(record))
        return
    _print_release(record)
    typer.echo("evidence")
    for item in record.evidence:
        typer.echo(f"  {item.name:<22} {item.type}  {item.digest[7:19]}")


@releases.command(epilog="Example: buildonce release verify 2026.11.21+g1a2b3c4 --key release.pub")
def verify(
    name: str = NAME,
    config: Path = CONFIG,
    repository: str | None = REPOSITORY,
    key: list[Path] = KEY,
    as_json: bool = JSON,
) -> None:
    """Verify that all of a release is there, unchanged, and signed by whom you trust.

    Whether it is good enough for an environment is another question: buildonce verify.
    """

    async def read(store: Store) -> tuple[Record, Verified]:
        record = await store.get(name)
        return record, await store.verify(record)

    (record, verified), _ = _with_store(read, config, repository, key)
    if as_json:
        _print_json({**_record(record), "verified": _verified(verified)})
        return
    _print_release(record)
    typer.echo(f"✓ record      signed by {record.signed_by[:19]}")
    for signature in verified.signatures:
        typer.echo(f"✓ signature   signed by {signature.signed_by[:19]}")
    for platform in record.platforms:
        typer.echo(f"✓ {platform:<11} signed")
    for item in verified.attestations:
        typer.echo(f"✓ attestation {item.name or '(no name)':<22} {item.type}")
    for refused in verified.refused:
        typer.echo(f"! not believed, and not needed: {refused.message}")


def _with_store(
    work: Callable[[Store], Awaitable[T]], config: Path, repository: str | None, keys: list[Path]
) -> tuple[T, Store]:
    async def run() -> tuple[T, Store]:
        loaded = Config.load(config)
        trust = Trust.from_files(keys) if keys else None
        async with Store.open(loaded, repository=repository, trust=trust) as store:
            return await work(store), store

    return anyio.run(run)


def _print_release(record: Record) -> None:
    release = record.release
    lines = {
        "version": release.version,
        "commit": release.revision,
        "source": record.source or "(no remote)",
        "image": release.image.reference,
        "created": f"{release.created:%Y-%m-%d %H:%M:%S} UTC",
        "record": record.digest,
        **record.platforms,
    }
    for name, value in lines.items():
        typer.echo(f"{name:<13} {value}")


def _record(record: Record) -> dict[str, Any]:
    return {**record.to_json(), "record": record.digest, "signed_by": record.signed_by}


def _refused(error: RecordRefused) -> dict[str, Any]:
    return {"refused": error.message}


def _verified(verified: Verified) -> dict[str, Any]:
    return {
        "signatures": [
            {"signed_by": item.signed_by, "annotations": dict(item.annotations)}
            for item in verified.signatures
        ],
        "attestations": [
            {
                "type": item.type,
                "name": item.name,
                "digest": item.digest,
                "signed_by": item.signed_by,
                "created": item.created.isoformat() if item.created else None,
            }
            for item in verified.attestations
        ],
        "refused": [item.message for item in verified.refused],
    }


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
