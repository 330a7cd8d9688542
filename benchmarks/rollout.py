"""Rollouts on this machine under load: how the answers were split, and how fast it goes back.

    make benchmark-rollout                      # or: python benchmarks/rollout.py [--rounds N]

Real containers, a real registry, HAProxy, and 100 requests a second all the time, half over kept
connections; nothing of the machine's own environments is touched. Two tables:

- the split at each step, as the proxy counted it (what every report shows) beside what the clients
  got, who see by the digest in each answer by whom it was given;
- rollbacks from 100 %: seconds from the call (in this process; by the command, Python's start
  included) until the last answer of the release that is left, and until all was done.

Both say how many requests failed. Nothing is asserted on: a machine may be busy.
"""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import anyio
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from buildonce.config import Config  # noqa: E402
from buildonce.delivery import deploy, open_target, rollback  # noqa: E402
from buildonce.delivery.containers import ContainerRuntime, detect_runtime  # noqa: E402
from buildonce.ledger import Ledger, Rollout, new_run_id  # noqa: E402
from buildonce.release import Release  # noqa: E402
from tests.delivery.images import SERVE, push  # noqa: E402
from tests.delivery.load import Seen, load  # noqa: E402
from tests.loopback import free_port, registry  # noqa: E402

RATE = 100

CONFIG = """\
[project]
name = "{name}"
repository = "{repository}"

[environments.production]
port = {port}
policy = "none"

[environments.production.rollout]
strategy = "canary"
steps = [10, 25, 50]
interval = "{seconds}s"
bake = "{seconds}s"
"""


@dataclass
class Bench:
    """One environment, two releases."""

    config: Config
    ledger: Ledger
    releases: dict[str, Release]
    runtime: ContainerRuntime

    @property
    def url(self) -> str:
        return f"{self.config.environment('production').url}/healthz"

    async def target(self) -> dict[str, object]:
        place, project = self.config.environment("production"), self.config.project.name
        target = await open_target(
            place, project=project, ledger=self.ledger.path, runtime=self.runtime
        )
        return {"project": project, "ledger": self.ledger, "run": new_run_id(), "target": target}

    async def deploy(self, version: str) -> Rollout:
        place, common = self.config.environment("production"), await self.target()
        return await deploy(self.releases[version], place, **common)  # type: ignore[arg-type]

    async def back_by_call(self) -> None:
        await rollback(self.config.environment("production"), **await self.target())  # type: ignore[arg-type]

    async def back_by_command(self) -> None:
        command = [sys.executable, "-m", "buildonce", "rollback", "production"]
        await anyio.run_process(command, cwd=self.config.path.parent.parent)


@contextmanager
def bench(folder: Path, seconds: int) -> Iterator[Callable[[], Awaitable[Bench]]]:
    """A project of its own in the folder, with a registry."""
    name = f"bench-{secrets.token_hex(3)}"
    os.environ["BUILDONCE_HOME"] = str(folder / "home")
    os.environ.pop("BUILDONCE_PROFILE", None)
    with registry(folder) as host:
        repository = f"{host}/{name}"
        releases = {
            version: Release(
                version=version,
                revision=f"{number:040x}",
                image=push(repository, SERVE, tag=version),
                created=datetime(2026, 1, 1 + number, tzinfo=UTC),
                configuration=f"sha256:{0:064x}",
            )
            for number, version in enumerate(("1", "2"))
        }
        file = folder / "ci/pipeline.toml"
        file.parent.mkdir()
        port = free_port()
        file.write_text(CONFIG.format(name=name, repository=repository, port=port, seconds=seconds))
        config = Config.load(file)

        async def make() -> Bench:
            ledger = Ledger.open(config.ledger_path)
            for release in releases.values():
                data = {**release.to_json(), "committed_at": release.created.isoformat()}
                await ledger.append("release.created", run=new_run_id(), data=data)
            return Bench(config, ledger, releases, await detect_runtime())

        try:
            yield make
        finally:
            command = [sys.executable, "-m", "buildonce", "environments", "down", "production"]
            subprocess.run(command, cwd=folder, capture_output=True, check=False)


async def split(one: Bench) -> Table:
    """Release 2 over 1 by canary steps."""
    await one.deploy("1")
    async with load(one.url, rate=RATE) as seen:
        rollout = await one.deploy("2")
    digest = one.releases["2"].image.digest
    table = Table(title=f"Split of {RATE} requests a second ({seen.requests} in all)")
    for title in ("weight %", "proxy: answers", "new %", "clients: answers", "new %", "failed"):
        table.add_column(title, justify="right")
    bakes = [step for step in rollout.steps if step.name == "bake"]
    for begin, end in zip(bakes[::2], bakes[1::2], strict=True):
        counted, answers = end.data["traffic"], seen.between(begin.at, end.at)
        table.add_row(
            str(end.data["percent"]),
            str(counted["new"] + counted["old"]),
            f"{counted['share']:.1f}",
            str(answers.total()),
            f"{100 * answers[digest] / answers.total():.1f}",
            str(counted["failed"]),
        )
    table.caption = _failures(seen)
    return table


async def backs(one: Bench, rounds: int) -> Table:
    """Rollbacks from all of the traffic."""
    table = Table(title=f"Rollback from 100 %, {rounds} rounds (seconds)")
    for title in ("", "last new answer: median", "worst", "done: median", "worst", "failed"):
        table.add_column(title, justify="left" if not title else "right")
    ways = {"in process": one.back_by_call, "buildonce rollback": one.back_by_command}
    for name, back in ways.items():
        last, done, failed, asked = [], [], 0, 0
        for _ in range(rounds):
            await one.deploy("2")
            async with load(one.url, rate=RATE) as seen:
                began = datetime.now(UTC)
                await back()
                done.append((datetime.now(UTC) - began).total_seconds())
                await anyio.sleep(1)
            last.append((seen.last(one.releases["2"].image.digest) - began).total_seconds())
            failed, asked = failed + len(seen.failures), asked + seen.requests
        figures = [statistics.median(last), max(last), statistics.median(done), max(done)]
        table.add_row(name, *(f"{figure:.2f}" for figure in figures), f"{failed} of {asked}")
    return table


def _failures(seen: Seen) -> str:
    return f"{len(seen.failures)} requests failed" + "".join(
        f"\n{failure}" for failure in seen.failures[:5]
    )


async def measure(make: Callable[[], Awaitable[Bench]], rounds: int) -> None:
    """Print both tables."""
    one = await make()
    console = Console()
    console.print(await split(one))
    # Without steps, so that each round begins at 100 % at once.
    plain = one.config.model_copy(update={"environments": _all_at_once(one.config)})
    console.print(await backs(Bench(plain, one.ledger, one.releases, one.runtime), rounds))
    one.ledger.close()


def _all_at_once(config: Config) -> dict[str, object]:
    production = config.environment("production")
    plain = type(production.rollout)(drain=production.rollout.drain)
    return {"production": production.model_copy(update={"rollout": plain})}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="rollbacks of each kind")
    parser.add_argument("--seconds", type=int, default=5, help="length of each canary step")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        bench(Path(folder), arguments.seconds) as make,
    ):
        anyio.run(measure, make, arguments.rounds)


if __name__ == "__main__":
    main()
