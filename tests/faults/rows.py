"""The fault table: its rows, and how it is shown.

A row is one (step, fault) pair: a rollout or a rollback in which one thing went wrong at one
recorded step, what `resume` then did, and on what the environment ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Console
from rich.table import Table

from buildonce.ledger import Event

SCENARIOS = ("rollout", "rollback")


@dataclass(frozen=True)
class Step:
    """A recorded step: the n-th event of its name in a rollout's ledger.

    Attributes:
        name: "rollout.started", "shift started", "rollout.finished", …
        nth: from 1; canary steps have the same name.
    """

    name: str
    nth: int = 1

    def __str__(self) -> str:
        return self.name if self.nth == 1 else f"{self.name} #{self.nth}"


@dataclass(frozen=True)
class Pair:
    """What goes wrong where.

    Attributes:
        target: "local", "weighted", …
        scenario: "rollout" or "rollback".
        step, when: "before" or "after" that step was recorded.
        fault: by its name in the table.
    """

    target: str
    scenario: str
    step: Step
    when: str
    fault: str

    def __str__(self) -> str:
        return f"{self.target} {self.scenario}: {self.fault} {self.when} {self.step}"


@dataclass(frozen=True)
class Row:
    """What became of it.

    Attributes:
        first: what the process ended with that the fault struck: "killed", an error's name, "done".
        resumed: what `resume` did: "nothing to do", results, an error's name.
        ends: "old" or "new": which release serves now, by the target's own word.
        problem: what is not as it must be; None when all is.
        seconds: that it took here.
    """

    pair: Pair
    first: str
    resumed: str
    ends: str
    problem: str | None
    seconds: float

    def checked(self) -> Row:
        """The same; a kill that killed nobody proves nothing, so it is a problem."""
        if self.pair.fault != "kill -9" or self.first == "killed":
            return self
        return replace(self, problem=f"it was not killed, but {self.first}; {self.problem or ''}")

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "pair": {**asdict(self.pair), "step": str(self.pair.step)}}


def label(event: Event) -> str | None:
    """What the table calls an event; None for one that is no step of a rollout."""
    return label_of(event.kind, event.data)


def label_of(kind: str, data: dict[str, Any]) -> str | None:
    if kind in ("rollout.started", "rollout.finished"):
        return kind
    if kind == "rollout.step":
        return f"{data['step']} {data['data'].get('state', '')}".strip()
    return None


def steps_of(events: Iterable[Event]) -> list[Step]:
    """The steps of a rollout that went well: what the table's rows are made from."""
    seen: Counter[str] = Counter()
    steps = []
    for event in events:
        name = label(event)
        # How often a watch changes its mind is a matter of time, not a step.
        if name is not None and not name.startswith("watch"):
            seen[name] += 1
            steps.append(Step(name, seen[name]))
    return steps


def pairs_of(
    target: str, scenario: str, steps: Sequence[Step], faults: Iterable[str]
) -> list[Pair]:
    """Each step with a kill before and after its record, and with each other fault from it on."""
    pairs = [Pair(target, scenario, step, when, "kill -9") for step in steps for when in _WHEN]
    begins = [step for step in steps if not step.name.endswith(" done") or step.name in _LONE]
    pairs += [Pair(target, scenario, step, "after", f) for f in faults for step in begins]
    return pairs


_WHEN = ("before", "after")
_LONE = ("prepared done", "proven done")


def show(rows: Sequence[Row], console: Console) -> None:
    """One line for each target, scenario and fault; then all that went wrong."""
    table = Table("target", "scenario", "fault", "pairs", "old", "new", "resume had to", "wrong")
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        key = (row.pair.target, row.pair.scenario, row.pair.fault)
        groups.setdefault(key, []).append(row)
    for key, group in groups.items():
        ends = Counter(row.ends for row in group)
        resumed = sum(row.resumed != "nothing to do" for row in group)
        wrong = sum(row.problem is not None for row in group)
        figures = [len(group), ends["old"], ends["new"], resumed, wrong]
        table.add_row(*key, *map(str, figures), style="red" if wrong else None)
    console.print(table)
    for row in rows:
        if row.problem is not None:
            console.print(
                f"{row.pair}: {row.first}, then {row.resumed}, on {row.ends}:", style="red"
            )
            console.print(f"    {row.problem}", markup=False)
    wrong = sum(row.problem is not None for row in rows)
    killed = sum(row.first == "killed" for row in rows)
    console.print(f"{len(rows)} pairs, {killed} of them kills; {wrong} exceptions")
