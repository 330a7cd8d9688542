"""The commands of delivery: deploy, rollback, resume, approve, reject, status, history, ...

They need no engine. Progress goes to stderr, results to stdout; `--json` prints the result as JSON.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import anyio
import typer

from buildonce.config import Config, EnvironmentConfig
from buildonce.delivery import approval
from buildonce.delivery.containers import ContainerRuntime
from buildonce.delivery.local import environment_folder
from buildonce.delivery.lock import environment_lock, holder
from buildonce.delivery.rollback import known_release, previous_good
from buildonce.delivery.rollout import deploy as deploy_release
from buildonce.delivery.rollout import recover
from buildonce.delivery.signals import ended_by_signals
from buildonce.delivery.status import (
    EnvironmentStatus,
    environment_status,
    is_interrupted,
    table,
)
from buildonce.delivery.target import Target
from buildonce.delivery.targets import open_target
from buildonce.errors import BuildonceError, ExitCode
from buildonce.ledger import Ledger, Rollout, new_run_id
from buildonce.release import Release

T = TypeVar("T")

app = typer.Typer()
environments = typer.Typer(help="Environments as a whole.", no_args_is_help=True)
app.add_typer(environments, name="environments")

ENVIRONMENT = typer.Argument(help="Name of the environment in pipeline.toml.", show_default=False)
CONFIG = typer.Option(Path("ci/pipeline.toml"), "--config", "-c", help="The configuration file.")
JSON = typer.Option(False, "--json", help="Print the result as JSON.")
WAIT = typer.Option(False, "--wait", help="Wait for another deployment there to end.")
RELEASE = typer.Option(
    None, "--release", "-r", help="Version or digest; the newest release when not given."
)


@app.command(epilog="Example: buildonce deploy development --release 2026.11.21+g1a2b3c4")
def deploy(
    environment: str = ENVIRONMENT,
    release: str | None = RELEASE,
    wait: bool = WAIT,
    config: Path = CONFIG,
    as_json: bool = JSON,
) -> None:
    """Deploy a release of the ledger to an environment; a failure puts back what ran before."""

    async def work(here: _Here) -> None:
        place = here.config.environment(environment)
        chosen = await known_release(release, ledger=here.ledger)
        await here.roll_out(chosen, place, reason="deploy", wait=wait, as_json=as_json)

    _main(config, work)


@app.command(epilog="Example: buildonce rollback production")
def rollback(
    environment: str = ENVIRONMENT,
    wait: bool = WAIT,
    config: Path = CONFIG,
    as_json: bool = JSON,
) -> None:
    """Put an environment back to its last good release other than the current one."""

    async def work(here: _Here) -> None:
        place = here.config.environment(environment)
        chosen = await previous_good(place.name, ledger=here.ledger)
        await here.roll_out(chosen, place, reason="rollback", wait=wait, as_json=as_json)

    _main(config, work)


@app.command(epilog="Example: buildonce resume staging")
def resume(
    environment: str = ENVIRONMENT,
    wait: bool = WAIT,
    config: Path = CONFIG,
    as_json: bool = JSON,
) -> None:
    """End a rollout whose process was killed, and bring a dead environment (a reboot) back."""

    async def work(here: _Here) -> None:
        place = here.config.environment(environment)
        target = await here.target(place)
        await here.recover(place, target, wait=wait)
        await here.print_status([await here.status(place, target)], as_json)

    _main(config, work)


@app.command(epilog="Example: buildonce approve production --release 2026.11.21+g1a2b3c4")
def approve(
    environment: str = ENVIRONMENT,
    release: str | None = RELEASE,
    reason: str | None = typer.Option(None, help="Why; kept with the approval."),
    config: Path = CONFIG,
    as_json: bool = JSON,
) -> None:
    """Approve a release for an environment that wants an approval."""
    _decide(environment, release, reason, config, as_json, given=True)


@app.command(epilog="Example: buildonce reject production --reason 'the price list is wrong'")
def reject(
    environment: str = ENVIRONMENT,
    release: str | None = RELEASE,
    reason: str | None = typer.Option(None, help="Why; shown to whoever waits."),
    config: Path = CONFIG,
    as_json: bool = JSON,
) -> None:
    """Refuse a release for an environment; a deployment that waits for the approval ends."""
    _decide(environment, release, reason, config, as_json, given=False)


@app.command(epilog="Example: buildonce status --json")
def status(
    config: Path = CONFIG,
    as_json: bool = JSON,
    read_only: bool = typer.Option(
        False, "--read-only", help="Only look: leave an interrupted rollout as it is."
    ),
) -> None:
    """Show what runs in each environment; a rollout whose process was killed is ended first."""

    async def work(here: _Here) -> None:
        lines: list[EnvironmentStatus] = []
        for place in here.config.environments.values():
            target = await here.target(place)
            free = holder(here.folder(place)) is None
            look = free and not read_only
            if look and await is_interrupted(place, target=target, ledger=here.ledger):
                await here.recover(place, target, wait=False)
            lines.append(await here.status(place, target))
        await here.print_status(lines, as_json)

    _main(config, work)


@app.command(epilog="Example: buildonce history production --limit 5")
def history(
    environment: str = ENVIRONMENT,
    limit: int = typer.Option(20, "--limit", "-n", min=1, help="How many, the newest first."),
    config: Path = CONFIG,
    as_json: bool = JSON,
) -> None:
    """Show the rollouts of an environment, the newest first."""

    async def work(here: _Here) -> None:
        place = here.config.environment(environment)
        rollouts = await here.ledger.rollouts(place.name, limit=limit)
        if as_json:
            _print_json([_rollout_json(rollout) for rollout in rollouts])
            return
        rows = [("STARTED", "VERSION", "DIGEST", "REASON", "RESULT", "CAUSE")]
        for one in rollouts:
            started = f"{one.started.astimezone():%Y-%m-%d %H:%M:%S}"
            cause = (one.cause or "").partition("\n")[0]
            digest = one.digest.removeprefix("sha256:")[:12]
            rows.append((started, one.version, digest, one.reason, one.state, cause))
        _print_table(rows)

    _main(config, work)


@environments.command(epilog="Example: buildonce environments down development")
def down(environment: str = ENVIRONMENT, wait: bool = WAIT, config: Path = CONFIG) -> None:
    """Remove an environment: containers, network, proxy, state. The ledger keeps its past."""

    async def work(here: _Here) -> None:
        place = here.config.environment(environment)
        target = await here.target(place)
        folder = here.folder(place)
        async with environment_lock(folder, run=new_run_id(), wait=wait, say=_say):
            await target.down()
        _say(f"{place.name}: removed")

    _main(config, work)


def _decide(
    environment: str,
    release: str | None,
    reason: str | None,
    config: Path,
    as_json: bool,
    *,
    given: bool,
) -> None:
    async def work(here: _Here) -> None:
        place = here.config.environment(environment)
        chosen = await known_release(release, ledger=here.ledger)
        event = await approval.decide(
            chosen,
            place.name,
            given=given,
            actor=getpass.getuser(),
            ledger=here.ledger,
            run=new_run_id(),
            reason=reason,
        )
        if as_json:
            _print_json({"kind": event.kind, "at": event.at.isoformat(), **event.data})
        else:
            word = "approved" if given else "refused"
            typer.echo(f"{word} {chosen.version} ({chosen.image.short}) for {place.name}")

    _main(config, work)


@dataclass
class _Here:
    """What every command works with."""

    config: Config
    ledger: Ledger
    _runtime: ContainerRuntime | None = None

    def folder(self, place: EnvironmentConfig) -> Path:
        return environment_folder(self.config.project.name, place.name)

    async def target(self, place: EnvironmentConfig) -> Target:
        if self._runtime is None:
            # The one place where delivery knows the set-up: what it found out about this machine.
            from buildonce.toolchain.containers import runtime

            found = await runtime()
            self._runtime = ContainerRuntime(found.command, found.env)
        return await open_target(
            place,
            project=self.config.project.name,
            ledger=self.config.ledger_path,
            runtime=self._runtime,
        )

    async def recover(self, place: EnvironmentConfig, target: Target, *, wait: bool) -> None:
        async with environment_lock(self.folder(place), run=new_run_id(), wait=wait, say=_say):
            await recover(target, place, ledger=self.ledger, progress=_say)

    async def status(self, place: EnvironmentConfig, target: Target) -> EnvironmentStatus:
        project = self.config.project.name
        return await environment_status(place, project=project, target=target, ledger=self.ledger)

    async def roll_out(
        self, chosen: Release, place: EnvironmentConfig, *, reason: Any, wait: bool, as_json: bool
    ) -> None:
        run = new_run_id()
        async with self._run(run, chosen, reason):
            rollout = await deploy_release(
                chosen,
                place,
                project=self.config.project.name,
                ledger=self.ledger,
                run=run,
                target=await self.target(place),
                progress=_say,
                reason=reason,
                wait=wait,
            )
        if as_json:
            _print_json({**_rollout_json(rollout), "url": place.url})
        else:
            typer.echo(f"{place.name} runs {rollout.version} ({chosen.image.short}) at {place.url}")

    async def print_status(self, lines: list[EnvironmentStatus], as_json: bool) -> None:
        if as_json:
            _print_json([line.to_json() for line in lines])
        else:
            _print_table(table(lines, _age))

    @asynccontextmanager
    async def _run(self, run: str, chosen: Release, pipeline: str) -> AsyncIterator[None]:
        """A run of one command, in the ledger like the runs of pipelines."""
        began = anyio.current_time()
        await self.ledger.append(
            "run.started",
            run=run,
            data={
                "pipeline": f"buildonce {pipeline}",
                "revision": chosen.revision,
                "version": chosen.version,
                "actor": getpass.getuser(),
            },
        )
        result = "interrupted"
        try:
            yield
            result = "passed"
        except BuildonceError as error:
            rolled_back = error.exit_code == ExitCode.ROLLED_BACK
            result = "rolled-back" if rolled_back else "tool-failed"
            raise
        except Exception:
            result = "tool-failed"
            raise
        finally:
            seconds = anyio.current_time() - began
            data = {"result": result, "seconds": seconds}
            await self.ledger.append("run.finished", run=run, data=data)


def _main(config: Path, work: Callable[[_Here], Awaitable[None]]) -> None:
    async def main() -> None:
        loaded = Config.load(config)
        async with Ledger.open(loaded.ledger_path) as ledger, ended_by_signals(_say):
            await work(_Here(loaded, ledger))

    anyio.run(main)


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _rollout_json(rollout: Rollout) -> dict[str, Any]:
    return asdict(rollout)


def _print_json(value: object) -> None:
    def plain(other: object) -> str:
        return other.isoformat() if isinstance(other, datetime) else str(other)

    typer.echo(json.dumps(value, indent=2, default=plain))


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def _age(since: datetime) -> str:
    seconds = int((datetime.now(UTC) - since).total_seconds())
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{max(seconds, 0)} s ago"
