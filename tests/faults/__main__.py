"""`make faults`: the fault table, from a run of all its pairs.

    python -m tests.faults [--targets "local; lambda"] [--sample 25] [--only TEXT] [--json FILE]

Exit code 1 when one pair did not end as it must.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.loopback import free_port

from . import killing
from .accounts import TARGETS, Account
from .killing import KilledAccount
from .local import LocalEnvironment
from .rows import SCENARIOS, Pair, Row, Step, show

ALL = ("local", *TARGETS, killing.TARGET)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="The fault table.")
    parser.add_argument("--targets", default=";".join(ALL), help="separated by semicolons")
    parser.add_argument("--sample", type=int, help="so many pairs only")
    parser.add_argument("--only", default="", help="pairs whose name has this in it")
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="side by side")
    given = parser.parse_args()
    targets = [name.strip() for name in given.targets.split(";")]
    if unknown := set(targets) - set(ALL):
        parser.error(f"there is no target {', '.join(unknown)}; there are: {', '.join(ALL)}")
    console = Console(width=120)
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        rows = run(targets, Path(folder), given.jobs, given.only, given.sample)
    show(rows, console)
    if given.json:
        given.json.write_text(json.dumps([row.to_json() for row in rows], indent=1))
    return int(not rows or any(row.problem is not None for row in rows))


def run(
    targets: Sequence[str], folder: Path, jobs: int, only: str = "", sample: int | None = None
) -> list[Row]:
    """The rows, by workers side by side: each is a process with environments of its own."""
    workers: list[tuple[int, Path]] = []
    for number in range(jobs):
        answers = folder / f"rows-{number}"
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                _work(targets, folder / str(number), answers, (number, jobs), only, sample)
                code = 0
            finally:
                os._exit(code)
        workers.append((pid, answers))
    failed = [os.waitpid(pid, 0)[1] for pid, _ in workers]
    if any(failed):
        raise SystemExit("a worker of the table broke; its traceback is above")
    return [row for _, answers in workers for row in _read(answers)]


def _work(
    targets: Sequence[str],
    folder: Path,
    answers: Path,
    part: tuple[int, int],
    only: str,
    sample: int | None,
) -> None:
    try:
        with answers.open("w") as file:
            for number, opened in enumerate(_environments(targets, folder, sample)):
                one = opened()
                try:
                    wanted = [pair for pair in one.pairs() if only in str(pair)]
                    if sample is not None:
                        wanted = _some(wanted, sample // len(targets), number / len(targets))
                    for found in one.rows(wanted[part[0] :: part[1]]):
                        row = found.checked()
                        file.write(json.dumps(row.to_json()) + "\n")
                        file.flush()
                        mark = "ok" if row.problem is None else "WRONG"
                        said = f"{row.pair}: {row.first}, resume: {row.resumed}, ends {row.ends}"
                        print(f"{mark:5} {row.seconds:4.1f} s  {said}", file=sys.stderr)
                finally:
                    one.close()
    except BaseException:
        import traceback

        traceback.print_exc()
        raise


def _environments(
    targets: Sequence[str], folder: Path, sample: int | None
) -> Iterator[Callable[[], LocalEnvironment | Account | KilledAccount]]:
    """All there are; for a sample, a rollout of one target and a rollback of the next."""
    for number, target in enumerate(targets):
        if target == killing.TARGET:
            if sample is None:  # time is real there
                yield partial(KilledAccount, folder / "killed")
            continue
        chosen = SCENARIOS if sample is None else SCENARIOS[number % 2 :][:1]
        for scenario in chosen:
            if target == "local":
                yield partial(LocalEnvironment, folder / scenario, free_port(), scenario)
            else:
                yield partial(Account, target, scenario)


def _some(pairs: Sequence[Pair], number: int, phase: float) -> list[Pair]:
    """So many, evenly; another phase takes others."""
    apart = len(pairs) / max(1, number)
    return [pairs[int(apart * (index + phase))] for index in range(min(number, len(pairs)))]


def _read(path: Path) -> list[Row]:
    return [_row(json.loads(line)) for line in path.read_text().splitlines()]


def _row(data: dict[str, Any]) -> Row:
    pair = data.pop("pair")
    name, _, nth = pair.pop("step").partition(" #")
    return Row(Pair(step=Step(name, int(nth or 1)), **pair), **data)


if __name__ == "__main__":
    sys.exit(main())
