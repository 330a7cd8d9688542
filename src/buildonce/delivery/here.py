"""What every command of delivery works with: configuration, ledger, targets, runs, printing."""

from __future__ import annotations

import getpass
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import typer

from buildonce.config import Config, ConfigError, EnvironmentConfig
from buildonce.config.rollout import CONCURRENCY
from buildonce.delivery.containers import ContainerRuntime
from buildonce.delivery.options import Options, Reason, Verify
from buildonce.delivery.signals import ended_by_signals
from buildonce.delivery.target import Target
from buildonce.delivery.targets import open_target
from buildonce.delivery.waves import Waves, planned_waves
from buildonce.errors import BuildonceError, ExitCode
from buildonce.ledger import Ledger, Rollout, new_run_id
from buildonce.release import Release

ENVIRONMENT = typer.Argument(help="Name of the environment in pipeline.toml.", show_default=False)
T = TypeVar("T")

CONFIG = typer.Option(Path("ci/pipeline.toml"), "--config", "-c", help="The configuration file.")
JSON = typer.Option(False, "--json", help="Print the result as JSON.")
WAIT = typer.Option(False, "--wait", help="Wait for another deployment there to end.")
RELEASE = typer.Option(
    None,
    "--release",
    "-r",
    help="Version, commit or digest (7 digits or more); the latest when not given.",
)

_RESULTS = {
    ExitCode.ROLLED_BACK: "rolled-back",
    ExitCode.INCONCLUSIVE: "rolled-back",
    ExitCode.INTERRUPTED: "interrupted",
}


@dataclass
class Here:
    """What every command works with."""

    config: Config
    ledger: Ledger
    _runtime: ContainerRuntime | None = None

    def places(self) -> dict[str, EnvironmentConfig]:
        """Every place, by name: an environment with several regions is several."""
        return {
            place.name: place
            for environment in self.config.environments.values()
            for place in environment.places
        }

    def place(self, name: str) -> EnvironmentConfig:
        """The one place of that name.

        Raises:
            ConfigError: there is none, or the environment has several.
        """
        found = self.config.environment(name).places
        if len(found) > 1:
            raise ConfigError(
                f"{name} is in several regions, and one is wanted",
                remedy=f"give one of: {', '.join(place.name for place in found)}",
            )
        return found[0]

    def waves(self, name: str) -> tuple[Waves, timedelta]:
        """The places that a name stands for, wave by wave, and the time between waves.

        Raises:
            ConfigError: it is the name of neither an environment nor waves.
        """
        return planned_waves(self.config, name)

    async def target(self, place: EnvironmentConfig, *, run: str = "") -> Target:
        """The environment's target, with the container runtime that the set-up found.

        Args:
            place: the environment.
            run: id of the run that deploys, which an account's records then name.
        """
        if place.target == "local" and self._runtime is None:
            # The one place where delivery knows the set-up: what it found out about this machine.
            from buildonce.toolchain.containers import runtime

            found = await runtime()
            self._runtime = ContainerRuntime(found.command, found.env)
        return await open_target(
            place,
            project=self.config.project.name,
            ledger=self.config.ledger_path,
            runtime=self._runtime,
            run=run,
            config=self.config,
        )

    def verify(self, run: str, reason: Reason = "deploy") -> Verify:
        """Asks an environment's policy whether a release may enter; raises where it may not."""
        # Here: what only looks at environments needs neither keys nor a registry.
        from buildonce.release.policy_check import verifier

        return verifier(self.config, ledger=self.ledger, run=run, reason=reason, say=say)

    def options(
        self,
        run: str,
        *,
        wait: bool = False,
        verify: Verify | None = None,
        concurrency: int = CONCURRENCY,
    ) -> Options:
        """Options of a deployment by a command."""
        return Options(
            project=self.config.project.name,
            ledger=self.ledger,
            run=run,
            progress=say,
            verify=verify,
            approvers=self.config.approvers,
            actor=user(),
            concurrency=concurrency,
            wait=wait,
            target=partial(self.target, run=run),
        )

    @asynccontextmanager
    async def run(self, chosen: Release, pipeline: str) -> AsyncIterator[str]:
        """A run of one command, in the ledger like the runs of pipelines; gives its id."""
        began, run = anyio.current_time(), new_run_id()
        await self.ledger.append(
            "run.started",
            run=run,
            data={
                "pipeline": f"buildonce {pipeline}",
                "revision": chosen.revision,
                "version": chosen.version,
                "actor": user(),
            },
        )
        result = "interrupted"
        try:
            yield run
            result = "passed"
        except BuildonceError as error:
            result = _RESULTS.get(error.exit_code, "tool-failed")
            raise
        except Exception:
            result = "tool-failed"
            raise
        finally:
            seconds = anyio.current_time() - began
            data = {"result": result, "seconds": seconds}
            await self.ledger.append("run.finished", run=run, data=data)


def main(config: Path, work: Callable[[Here], Awaitable[T]]) -> T:
    """Do a command's work on that configuration, ended in order by Ctrl-C and SIGTERM."""

    async def run() -> T:
        loaded = Config.load(config)
        async with Ledger.open(loaded.ledger_path) as ledger, ended_by_signals(say):
            return await work(Here(loaded, ledger))

    return anyio.run(run)


def user() -> str:
    """Who calls; "unknown" in a container whose user id has no name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def say(line: str) -> None:
    """Progress, on stderr."""
    typer.echo(line, err=True)


def rollout_json(rollout: Rollout) -> dict[str, Any]:
    """A rollout as JSON values."""
    shares = [{**asdict(share), "measured": share.measured} for share in rollout.shares]
    return {**asdict(rollout), "shares": shares}


def print_json(value: object) -> None:
    """A result, on stdout."""

    def plain(other: object) -> str:
        return other.isoformat() if isinstance(other, datetime) else str(other)

    typer.echo(json.dumps(value, indent=2, default=plain))


def print_table(rows: Sequence[tuple[str, ...]]) -> None:
    """Rows in columns, on stdout."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def age(since: datetime) -> str:
    """ "3 h ago"."""
    seconds = int((datetime.now(UTC) - since).total_seconds())
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{max(seconds, 0)} s ago"
