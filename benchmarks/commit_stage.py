"""How long the commit stage takes: cold, after a change of one line, and with nothing changed.

    make benchmark-commit                      # or: python benchmarks/commit_stage.py [--json]

A clone of this project's last commit ships itself, with a registry and environments of its own. Of
this machine it has the programs that `buildonce setup` made, and nothing else: its engine begins
with an empty cache, and every package is fetched.

The checks that depend on each other are a chain: its seconds are the sum of theirs. However many
run beside them, all cannot be done before the longest chain is. The ratio of how long all took to
that is what waiting for each other and two cores cost; to reach: 1.2. Nothing is asserted on, for
the machine may be busy.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from buildonce import places
from buildonce.errors import ExitCode

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.e2e.shop import Ran, Shop, opened_shop

SOURCE, TEST = "src/buildonce/dashboard/formatting.py", "tests/dashboard/test_formatting.py"


@dataclass(frozen=True)
class Measured:
    """One run; all times in seconds.

    Args:
        run: what was changed before it.
        stage: how long the commit stage took, with cutting the release.
        checks: how long all of its checks took.
        chain: how long the longest chain of checks that wait for each other took.
        chain_of: their names.
        ratio: checks / chain.
        executed: commands that ran in containers, for the whole pipeline.
        cached: checks of the stage whose result was cached.
        whole: the whole pipeline, deployments included.
    """

    run: str
    stage: float
    checks: float
    chain: float
    chain_of: tuple[str, ...]
    ratio: float
    executed: int
    cached: str
    whole: float


def longest_chain(checks: Sequence[Mapping[str, Any]]) -> tuple[float, tuple[str, ...]]:
    """Seconds and names of the longest chain among the checks of `out/summary.json`."""
    chains: dict[str, tuple[float, tuple[str, ...]]] = {}
    for check in checks:  # a check is listed after all that it waits for
        before = max((chains[name] for name in check["after"]), default=(0.0, ()))
        chains[check["check"]] = (before[0] + check["seconds"], (*before[1], check["check"]))
    return max(chains.values())


def measured(name: str, shop: Shop) -> Measured:
    """Run the pipeline once."""
    ran: Ran = shop.run().must(ExitCode.PASSED)
    (stage,) = (one for one in ran.summary["stages"] if one["stage"] == "commit")
    seconds, chain = longest_chain(stage["checks"])
    events = [
        event
        for event in shop.events()
        if event.run == ran.summary["run"] and event.data.get("stage") == "commit"
    ]
    began = min(event.at for event in events if event.kind == "stage.started")
    ended = max(event.at for event in events if event.kind == "check.finished")
    checks = (ended - began).total_seconds()
    cached = sum(check["cached"] is True for check in stage["checks"])
    return Measured(
        run=name,
        stage=stage["seconds"],
        checks=round(checks, 3),
        chain=round(seconds, 3),
        chain_of=chain,
        ratio=round(checks / seconds, 2),
        executed=len(ran.executed),
        cached=f"{cached}/{len(stage['checks'])}",
        whole=round(ran.seconds, 3),
    )


def measure(folder: Path, unchanged: int) -> Iterator[Measured]:
    """The runs, one after another."""
    cache = folder / "cache"
    cache.mkdir()
    (cache / "bin").symlink_to(places.cache() / "bin")  # what set-up made, and no more
    with opened_shop(folder, history=True, variables={"BUILDONCE_CACHE": str(cache)}) as shop:
        yield measured("cold", shop)
        for number in range(unchanged):
            yield measured(f"unchanged, {number + 1}", shop)
        shop.commit(TEST, "\n\n# one line more\n")
        yield measured("a line of a test", shop)
        shop.commit(SOURCE, "\n\n# one line more\n")
        yield measured("a line of the source", shop)


def table(results: Sequence[Measured]) -> Table:
    shown = Table(title=f"commit stage, seconds; {os.cpu_count()} cores")
    for heading in ("", "stage", "checks", "longest chain", "ratio", "executed", "cached", "whole"):
        shown.add_column(heading, justify="left" if heading in ("", "longest chain") else "right")
    for one in results:
        shown.add_row(
            one.run,
            f"{one.stage:.1f}",
            f"{one.checks:.1f}",
            f"{one.chain:.1f}  {' ─▶ '.join(one.chain_of)}",
            f"{one.ratio:.2f}",
            str(one.executed),
            one.cached,
            f"{one.whole:.1f}",
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument("--unchanged", type=int, default=3, help="runs without a change")
    arguments = parser.parse_args()
    progress = Console(stderr=True)
    results = []
    with tempfile.TemporaryDirectory(prefix="buildonce-", ignore_cleanup_errors=True) as folder:
        for one in measure(Path(folder), arguments.unchanged):
            progress.print(f"{one.run}: {one.stage:.1f} s")
            results.append(one)
    if arguments.json:
        print(json.dumps([asdict(one) for one in results], indent=1))
    else:
        Console().print(table(results))


if __name__ == "__main__":
    main()
