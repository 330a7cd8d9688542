"""The steps of a set-up: order, skipping, and failures that stop only what needs them."""

from __future__ import annotations

import anyio
import pytest

from buildonce.errors import BuildonceError
from buildonce.toolchain.steps import Outcome, Result, Step, run_steps

pytestmark = pytest.mark.anyio


class Heard:
    """A report that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def started(self, name: str) -> None:
        self.lines.append(f"{name} started")

    def progress(self, name: str, line: str) -> None:
        self.lines.append(f"{name}: {line}")

    def finished(self, outcome: Outcome) -> None:
        self.lines.append(f"{outcome.name} {outcome.result}")


async def nothing() -> str | None:
    return None


def step(name: str, *after: str, there: str | None = None, fails: bool = False) -> Step:
    async def done() -> str | None:
        return there

    async def do(progress: object) -> str:
        await anyio.sleep(0.01)
        if fails:
            raise BuildonceError(f"{name} broke", remedy=f"mend {name}")
        return f"{name} made"

    return Step(name, done, do, after)


async def test_what_is_done_is_skipped() -> None:
    heard = Heard()
    first, second = await run_steps([step("a", there="it is"), step("b", "a")], heard)
    assert (first.result, first.detail) == (Result.SKIPPED, "it is")
    assert (second.result, second.detail) == (Result.DONE, "b made")
    assert heard.lines == ["a skipped", "b started", "b done"]


async def test_a_failure_stops_only_what_needs_it() -> None:
    outcomes = await run_steps(
        [step("a", fails=True), step("b", "a"), step("c", "b"), step("d")], Heard()
    )
    assert [outcome.result for outcome in outcomes] == [
        Result.FAILED,
        Result.NOT_TRIED,
        Result.NOT_TRIED,
        Result.DONE,
    ]
    assert outcomes[0].error is not None
    assert outcomes[0].error.remedy == "mend a"
    assert outcomes[1].detail == "needs a"


async def test_independent_steps_run_side_by_side() -> None:
    met = anyio.Event()

    async def waits(_progress: object) -> str:
        with anyio.fail_after(60):
            await met.wait()
        return "met"

    async def sets(_progress: object) -> str:
        met.set()
        return "set"

    outcomes = await run_steps([Step("a", nothing, waits), Step("b", nothing, sets)], Heard())
    assert all(outcome.well for outcome in outcomes)


async def test_a_step_after_an_unknown_one_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="b is after"):
        await run_steps([step("b", "a"), step("a")], Heard())
