"""A release into 50 and into 200 environments (accounts x regions), on the simulation of AWS.

    make fleet                                 # or: python benchmarks/fleet.py [--json] [SIZE ...]

What is measured is buildonce: calls, memory, and the time that it and the simulation compute. Waits
(tasks that start, steps, bakes) take no time, the simulation's clock jumps over them; "lasts" is
what they would add up to. Every 20th call is throttled. Each size runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from buildonce.config import Config, EnvironmentConfig
from buildonce.delivery.deploying import deliver
from buildonce.delivery.options import Options
from buildonce.delivery.waves import planned_waves
from buildonce.ledger import Ledger, new_run_id
from buildonce.ledger.sqlite import SqliteStore
from tests.aws.accounts import enter, furnish
from tests.aws.faults import Process
from tests.aws.simulation import retries_wait_by
from tests.aws.world import release
from tests.delivery.leases import Dynamo

SIZES = (50, 200)
REGIONS = ("eu-west-1", "us-east-1")
THROTTLED = 20  # every so many calls
_LOOKS = ("cloudwatch.DescribeAlarms",)
_LEASES = ("dynamodb.GetItem", "dynamodb.UpdateItem")

_PROJECT = """
[project]
name = "shop"
repository = "127.0.0.1:5080/shop"
"""
_ENVIRONMENT = """
[accounts.shop-{number}]
id = "{account}"
[environments.shop-{number}]
target = "ecs"
account = "shop-{number}"
regions = {regions}
role = "shop-deploy"
[environments.shop-{number}.rollout]
strategy = "canary"
steps = [10]
interval = "1m"
bake = "1m"
look_every = "1m"
"""


class Forgetful(list[Any]):
    """A journal that only counts: the simulation's memory is not what is measured."""

    def __init__(self) -> None:
        self._count = 0

    def append(self, _: Any) -> None:
        self._count += 1

    def __len__(self) -> int:
        return self._count


def configured(size: int) -> Config:
    """That many places: accounts with two regions each, in three waves."""
    accounts = range(size // len(REGIONS))
    text = _PROJECT
    for number in accounts:
        text += _ENVIRONMENT.format(
            number=number, account=f"{100_000_000_000 + number}", regions=json.dumps(REGIONS)
        )
    names = [f"shop-{number}" for number in accounts]
    second = 1 + len(names) // 10
    waves = [wave for wave in (names[:1], names[1:second], names[second:]) if wave]
    text += f"[waves.live]\nenvironments = {json.dumps(waves)}\nbake = '1m'\n"
    return Config.parse(text, path=Path("pipeline.toml"))


async def measured(size: int, concurrency: int) -> dict[str, Any]:
    """A promotion of a second release through all of them."""
    config = configured(size)
    waves, bake = planned_waves(config, "live")
    places = [place for wave in waves for place in wave]
    table = Dynamo()
    simulation = table.simulation
    simulation.journal = Forgetful()
    enter(simulation, places, project="shop")
    furnish(simulation, places, project="shop")
    await table.make()
    process = Process()

    async def target(place: EnvironmentConfig) -> Any:
        from buildonce.delivery.aws import open_aws_target

        return await open_aws_target(
            place,
            project="shop",
            run="fleet",
            clock=simulation.clock,
            connect=lambda: simulation.connect(Process()),
        )

    async def smoke(_: str) -> None: ...

    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(SqliteStore(Path(folder) / "ledger.sqlite"))
        leases = table.process(simulation.clock, process)

        async def promoted(version: str) -> None:
            options = Options(
                project="shop",
                ledger=ledger,
                run=new_run_id(),
                clock=simulation.clock,
                leases=leases,
                target=target,
                concurrency=concurrency,
            )
            with retries_wait_by(simulation.clock):
                async with simulation.clock.running():
                    await deliver(release(version), waves, options, bake=bake, smoke=smoke)

        await promoted("1.0")
        simulation.counts.clear()
        simulation.throttle_every = THROTTLED
        began, cpu, lasted = time.monotonic(), time.process_time(), simulation.clock.monotonic()
        await promoted("2.0")
        took, cpu = time.monotonic() - began, time.process_time() - cpu
        events = await ledger.events()
    lasted = simulation.clock.monotonic() - lasted
    counts = Counter(simulation.counts)
    calls = sum(counts.values())
    looks, held = (sum(counts[name] for name in names) for names in (_LOOKS, _LEASES))
    digests = {
        digest
        for place in places
        for digest in simulation.place(place.account_config.id, place.region or "").serving(
            f"shop-{place.name}"
        )
    }
    if digests != {release("2.0").image.digest}:
        raise SystemExit(f"not everywhere: {digests}")
    return {
        "environments": len(places),
        "concurrency": concurrency,
        "seconds": round(took, 1),
        "cpu_seconds": round(cpu, 1),
        "milliseconds_per_environment": round(1000 * took / len(places)),
        "lasts_minutes": round(lasted / 60, 1),
        "calls": calls,
        "calls_per_environment": round((calls - looks - held) / len(places), 1),
        "looks_at_alarms_per_environment": round(looks / len(places), 1),
        "lease_calls_per_environment": round(held / len(places), 1),
        "throttled_and_survived": simulation.throttled,
        "events_in_the_ledger": len(events),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "by_call": dict(counts.most_common()),
    }


def alone(size: int, concurrency: int) -> dict[str, Any]:
    """The same in a process of its own, so that memory is its own too."""
    command = [sys.executable, __file__, "--one", str(size), "--concurrency", str(concurrency)]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def show(found: Sequence[dict[str, Any]]) -> None:
    table = Table("", *(f"{one['environments']} environments" for one in found))
    for key in found[0]:
        if key not in ("environments", "by_call"):
            table.add_row(key.replace("_", " "), *(f"{one[key]:g}" for one in found))
    console = Console()
    console.print(table)
    console.print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} CPUs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, help="even numbers")
    parser.add_argument("--concurrency", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        print(json.dumps(anyio.run(measured, given.one, given.concurrency)))
        return
    found = [alone(size, given.concurrency) for size in given.sizes]
    print(json.dumps(found, indent=1)) if given.json else show(found)


if __name__ == "__main__":
    main()
