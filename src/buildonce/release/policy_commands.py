"""The commands of policies: `verify`, `explain`, `rescan`, and `release withdraw | reinstate`.

`verify` and `explain` only ask: the registry, the ledger and the configuration, no engine. They end
with 0 when the release may enter, and with 4 when it may not: also when nobody can know it, because
the registry did not answer. The message says which.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import typer

from buildonce.config import Config
from buildonce.errors import ExitCode
from buildonce.ledger import Ledger, new_run_id
from buildonce.release.errors import EvidenceUnavailable, RegistryError
from buildonce.release.models import Image, Release
from buildonce.release.policy import Decision, Line
from buildonce.release.policy_check import ANSWER, PolicyUndecided, examine, trust_of
from buildonce.release.store import NoSuchRelease, Store

app = typer.Typer()

NAME = typer.Argument(
    help="Version, commit (7 digits or more), digest of the image, or latest.", show_default=False
)
NAMES = typer.Argument(
    None, help="Versions, commits, digests, or latest; none: what is deployed.", show_default=False
)
FOR = typer.Option(..., "--for", help="The environment that it wants to enter.")
CONFIG = typer.Option(Path("ci/pipeline.toml"), "--config", "-c", help="The configuration file.")
JSON = typer.Option(False, "--json", help="Print the result as JSON.")
REASON = typer.Option(..., "--reason", help="Why, one sentence; everybody will read it.")

_MARKS = {"passed": "✓", "failed": "✗", "missing": "✗", "error": "!"}
_COLOURS = {"passed": "green", "failed": "red", "missing": "red", "error": "yellow"}


@app.command(
    epilog="Examples: buildonce verify latest --for production;  "
    "buildonce verify 1a2b3c4 --for staging --json"
)
def verify(
    name: str = NAME, environment: str = FOR, config: Path = CONFIG, as_json: bool = JSON
) -> int:
    """Say whether a release may enter an environment: exit code 0, or 4 (no, or not known)."""
    decision = _decided(config, name, environment)
    if as_json:
        _print_json(decision.to_json())
    elif decision.allowed:
        typer.echo(f"✓ {_headline(decision)}: {len(decision.lines)} demands met")
    else:
        typer.echo(f"✗ {_headline(decision)}")
        for line in decision.failing:
            typer.echo(f"  {_MARKS[line.state]} {line}")
        version = decision.release.version
        typer.echo(f"  try: buildonce explain {version} --for {decision.environment}")
    return _code(decision)


@app.command(
    epilog="Examples: buildonce explain latest --for production;  "
    "buildonce explain 2026.11.21+g1a2b3c4 --for staging --json"
)
def explain(
    name: str = NAME, environment: str = FOR, config: Path = CONFIG, as_json: bool = JSON
) -> int:
    """Say line by line what a policy demands, what there is, and what to do about the rest."""
    decision = _decided(config, name, environment)
    if as_json:
        _print_json(decision.to_json())
    else:
        _print_lines(decision)
    return _code(decision)


@app.command(
    epilog="Examples: buildonce rescan;  buildonce rescan latest 1a2b3c4;  "
    "buildonce rescan --for production --json"
)
def rescan(
    names: list[str] = NAMES,
    deployed: bool = typer.Option(False, "--deployed", help="All that is deployed; the default."),
    environment: list[str] = typer.Option(
        [], "--for", help="Only by the policy of this environment; repeatable."
    ),
    config: Path = CONFIG,
    as_json: bool = JSON,
) -> int:
    """Match releases' attested SBOMs with the advisories of today; withdraw what is broken now.

    Ends with 0 when all are good, with 4 when one is withdrawn or cannot be judged.
    """
    from buildonce.advisories import open_database
    from buildonce.release.policy_rescan import Rescan
    from buildonce.release.policy_rescan import rescan as look

    async def work(here: _Here) -> list[Rescan]:
        database = await anyio.to_thread.run_sync(
            partial(open_database, here.config.advisories, near=here.config.path)
        )
        if not as_json:
            typer.echo(f"against {database}")
        chosen = [await here.release(name) for name in names]
        if deployed or not names:
            chosen += await here.deployed()
        unique = {release.image.digest: release for release in chosen}
        desk = await here.desk()
        return [
            await look(
                release,
                database=database,
                desk=desk,
                by=f"{getpass.getuser()} (rescan)",
                environments=environment or None,
            )
            for release in unique.values()
        ]

    results = _with_here(config, work, writes=True)
    if as_json:
        _print_json([result.to_json() for result in results])
    else:
        _print_rescans(results)
    return ExitCode.PASSED if all(result.good for result in results) else ExitCode.POLICY_DENIED


def withdraw(
    name: str = NAME,
    reason: str = REASON,
    environment: list[str] = typer.Option(
        [], "--for", help="Only out of this environment; repeatable. None: out of all."
    ),
    config: Path = CONFIG,
    as_json: bool = JSON,
) -> None:
    """Withdraw a release: no environment lets it in any more. It is signed, and seen everywhere."""
    from buildonce.release import policy_withdrawal

    async def work(here: _Here) -> None:
        for place in environment:
            here.config.environment(place)
        release = await here.release(name)
        said = await policy_withdrawal.withdraw(
            release,
            reason=reason,
            by=getpass.getuser(),
            desk=await here.desk(),
            environments=environment or None,
        )
        where = " and ".join(environment) or "every environment"
        _tell(said.status.model_dump(mode="json") | {"status": said.digest}, as_json,
              f"{release.version} ({release.image.short}) is withdrawn from {where}: {reason}\n"
              f"  back: buildonce release reinstate {release.version} --reason …")  # fmt: skip

    _with_here(config, work, writes=True)


def reinstate(
    name: str = NAME, reason: str = REASON, config: Path = CONFIG, as_json: bool = JSON
) -> None:
    """Lift the withdrawals of a release that are in force now; they stay readable."""
    from buildonce.release import policy_withdrawal

    async def work(here: _Here) -> None:
        release = await here.release(name)
        said = await policy_withdrawal.reinstate(
            release, reason=reason, by=getpass.getuser(), desk=await here.desk()
        )
        _tell(said.status.model_dump(mode="json") | {"status": said.digest}, as_json,
              f"{release.version} ({release.image.short}) is reinstated: {reason}")  # fmt: skip

    _with_here(config, work, writes=True)


def register(releases: typer.Typer) -> None:
    """Add what belongs to `buildonce release` to that group."""
    example = "Example: buildonce release withdraw 1a2b3c4 --reason 'it loses orders'"
    releases.command(epilog=example)(withdraw)
    example = "Example: buildonce release reinstate 1a2b3c4 --reason 'it was the database'"
    releases.command(epilog=example)(reinstate)


@dataclass
class _Here:
    """What the commands work with."""

    config: Config
    store: Store
    ledger: Ledger | None
    run: str

    async def release(self, name: str) -> Release:
        """A release as the registry has it, else as the ledger has it.

        Where this machine has recorded the version with another image, it is that one which it
        would deploy, so it is that one which is judged: the registry's record then differs.

        Raises:
            NoSuchRelease: neither has it.
            RecordRefused: the registry has it, and it is not to be believed.
            PolicyUndecided: the registry did not give a whole answer.
        """
        try:
            found = (await self.store.get(name)).release
            known = await self._known(found.version)
            if known is not None and known.image.digest != found.image.digest:
                here = Image(found.image.repository, known.image.digest)
                return replace(known, image=here)
            return found
        except (EvidenceUnavailable, RegistryError) as error:
            raise PolicyUndecided(
                f"nothing is known of the release {name}: {error.message}",
                remedy=error.remedy or ANSWER,
            ) from error
        except NoSuchRelease:
            # Without a record it is still known what is asked about: the lines say what is missing.
            if in_ledger := await self._known(name):
                return in_ledger
            raise

    async def deployed(self) -> list[Release]:
        """What runs in each environment, as the ledger has it."""
        found = []
        for environment in self.config.environments.values():
            for place in environment.places or (environment,):
                current = await self.ledger.current(place.name) if self.ledger else None
                release = await self._known(current.digest) if current else None
                if release is not None:
                    found.append(release)
        return found

    async def desk(self) -> Any:
        from buildonce.release.policy_withdrawal import Desk

        assert self.ledger is not None, "opened for writing"
        return Desk(self.config, self.ledger, self.store.registry, self.run, _say)

    async def _known(self, name: str) -> Release | None:
        if self.ledger is None:
            return None
        if name == "latest":
            newest = await self.ledger.releases(limit=1)
            known = newest[0] if newest else None
        else:
            known = await self.ledger.release(name)
        return Release.from_json({**known}) if known else None


def _decided(config: Path, name: str, environment: str) -> Decision:
    async def work(here: _Here) -> Decision:
        release = await here.release(name)
        return await examine(
            release,
            environment,
            config=here.config,
            ledger=here.ledger,
            registry=here.store.registry,
        )

    decision: Decision = _with_here(config, work, environment=environment)
    return decision


def _with_here(
    config: Path,
    work: Callable[[_Here], Awaitable[Any]],
    *,
    environment: str | None = None,
    writes: bool = False,
) -> Any:
    async def run() -> Any:
        loaded = Config.load(config)
        place = loaded.environment(environment) if environment else None
        policy = loaded.policy(environment)[1] if environment else None
        trust = trust_of(policy, loaded) if policy else None
        repository = place.registry if place else None
        async with (
            _ledger(loaded, writes) as ledger,
            Store.open(loaded, repository=repository, trust=trust, say=_say) as store,
        ):
            return await work(_Here(loaded, store, ledger, new_run_id()))

    return anyio.run(run)


@asynccontextmanager
async def _ledger(config: Config, writes: bool) -> AsyncIterator[Ledger | None]:
    """The ledger; who only asks does not make one."""
    if not writes and not config.ledger_path.exists():
        yield None
        return
    async with Ledger.open(config.ledger_path, read_only=not writes) as ledger:
        yield ledger


def _headline(decision: Decision) -> str:
    release = decision.release
    word = "may enter" if decision.allowed else "may not enter"
    return (
        f"{release.version} ({release.image.short}) {word} {decision.environment}, "
        f"by the policy {decision.policy!r}"
    )


def _print_lines(decision: Decision) -> None:
    from rich.console import Console

    console = Console()
    if console.is_terminal:
        console.print(_rich(decision))
    else:
        for line in decision.lines:
            typer.echo(f"{_MARKS[line.state]} {line.what}: {_state(line)}{line.found}")
            if not line.passed:
                typer.echo(f"    wanted: {line.wanted}")
                typer.echo(f"    to do:  {line.remedy}")
    for note in decision.notes:
        typer.echo(f"note: {note}")
    typer.echo(("✓ " if decision.allowed else "✗ ") + _headline(decision))


def _rich(decision: Decision) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "demand", "found", "wanted", "to do"):
        table.add_column(column, overflow="fold")
    for line in decision.lines:
        colour = _COLOURS[line.state]
        table.add_row(
            Text(_MARKS[line.state], style=colour),
            Text(line.what),
            # What others wrote is text and no markup.
            Text(f"{_state(line)}{line.found}", style="" if line.passed else colour),
            Text(line.wanted, style="dim"),
            Text("" if line.passed else line.remedy or ""),
        )
    return table


def _state(line: Line) -> str:
    return "" if line.passed else f"{line.state}: "


def _print_rescans(results: list[Any]) -> None:
    if not results:
        typer.echo("nothing is deployed yet; name a release: buildonce rescan latest")
    marks = {"good": "✓", "unknown": "!"}
    for result in results:
        release = result.release
        typer.echo(f"{release.version} ({release.image.short})")
        if not result.verdicts:
            typer.echo("  no environment's policy speaks of vulnerabilities")
        for verdict in result.verdicts:
            mark = marks.get(verdict.state, "✗")
            typer.echo(f"  {mark} {verdict.environment}: {verdict.state}: {verdict.why}")


def _tell(data: dict[str, Any], as_json: bool, text: str) -> None:
    if as_json:
        _print_json(data)
    else:
        typer.echo(text)


def _code(decision: Decision) -> int:
    return ExitCode.PASSED if decision.allowed else ExitCode.POLICY_DENIED


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
