"""Doing the steps of a set-up: what is done is skipped, what is independent runs side by side.

steps = [Step("packages", done=..., do=...), Step("registry", ..., after=("packages",))]
outcomes = await run_steps(steps, report)
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import anyio

from buildonce.errors import BuildonceError
from buildonce.toolchain.processes import Progress


@dataclass(frozen=True)
class Step:
    """One thing that must be so.

    Args:
        name: what it is about: "packages".
        done: what is there already, in words; None when there is something to do. Quick.
        do: makes it so, telling its progress; returns what there is now, in words. A
            `BuildonceError` of it names the cause and the remedy.
        after: names of the steps that must have succeeded before.
    """

    name: str
    done: Callable[[], Awaitable[str | None]]
    do: Callable[[Progress], Awaitable[str]]
    after: tuple[str, ...] = ()


class Result(StrEnum):
    """How a step ended."""

    SKIPPED = "skipped"
    DONE = "done"
    FAILED = "failed"
    NOT_TRIED = "not tried"


@dataclass(frozen=True)
class Outcome:
    """A step's end: its result, what there is now or why not, and how long it took in seconds."""

    name: str
    result: Result
    detail: str
    seconds: float = 0.0
    error: BuildonceError | None = None

    @property
    def well(self) -> bool:
        return self.result in (Result.SKIPPED, Result.DONE)


class Report(Protocol):
    """Who tells the user."""

    def started(self, name: str) -> None: ...

    def progress(self, name: str, line: str) -> None: ...

    def finished(self, outcome: Outcome) -> None: ...


async def run_steps(steps: Sequence[Step], report: Report) -> list[Outcome]:
    """Run the steps, each as soon as those it is after have ended well; outcomes in their order.

    A failure stops only what depends on it, so that one run names everything that is amiss.

    Raises:
        ValueError: a step is after one that does not come before it in `steps`.
    """
    ended = {step.name: anyio.Event() for step in steps}
    outcomes: dict[str, Outcome] = {}
    known: set[str] = set()
    for step in steps:
        if not known.issuperset(step.after):
            raise ValueError(f"{step.name} is after a step that does not come before it")
        known.add(step.name)

    async def work(step: Step) -> None:
        for name in step.after:
            await ended[name].wait()
        outcome = await _run(step, [outcomes[name] for name in step.after], report)
        outcomes[step.name] = outcome
        report.finished(outcome)
        ended[step.name].set()

    async with anyio.create_task_group() as group:
        for step in steps:
            group.start_soon(work, step)
    return [outcomes[step.name] for step in steps]


async def _run(step: Step, before: Sequence[Outcome], report: Report) -> Outcome:
    if failed := [outcome.name for outcome in before if not outcome.well]:
        return Outcome(step.name, Result.NOT_TRIED, f"needs {', '.join(failed)}")
    began = time.monotonic()
    try:
        if (there := await step.done()) is not None:
            return Outcome(step.name, Result.SKIPPED, there, time.monotonic() - began)
        report.started(step.name)
        detail = await step.do(lambda line: report.progress(step.name, line))
    except BuildonceError as error:
        return Outcome(step.name, Result.FAILED, error.message, time.monotonic() - began, error)
    return Outcome(step.name, Result.DONE, detail, time.monotonic() - began)
