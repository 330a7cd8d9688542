from __future__ import annotations

from datetime import timedelta

import anyio
import pytest

from buildonce.errors import BuildonceError, ExitCode
from buildonce.pipeline import StageTimedOut
from buildonce.pipeline.budget import Budget
from buildonce.pipeline.checks import Checks
from buildonce.pipeline.errors import CheckFailed
from buildonce.pipeline.stage import run_stage
from buildonce.report import CheckRecord, Result
from buildonce.stages import Check

from .conftest import Told

pytestmark = pytest.mark.anyio


async def slow() -> Check:
    await anyio.sleep(60)
    return Check("slow", True, "")


async def quick() -> Check:
    return Check("quick", True, "")


async def test_a_stage_is_told_from_beginning_to_end(told: Told) -> None:
    async with run_stage("commit", told.journal, budget=Budget(None), warn=None):
        pass
    assert [kind for kind, _ in told.events] == ["stage.started", "stage.finished"]
    finished = told.events[-1][1]
    assert finished["result"] == "passed"
    assert told.journal.record.stages[0].result == Result.PASSED


async def test_a_spent_budget_ends_the_stage_and_says_what_ran(told: Told) -> None:
    with anyio.fail_after(30), pytest.raises(StageTimedOut) as raised:
        async with (
            run_stage(
                "commit", told.journal, budget=Budget(timedelta(seconds=0.2)), warn=None
            ) as stage,
            Checks(stage, told.journal, told.config) as checks,
        ):
            checks.start(slow)
            checks.start(quick)
    assert "the stage commit was ended after its budget of 0.2 s while slow ran" in str(
        raised.value
    )
    assert "[stages.commit]" in (raised.value.remedy or "")
    assert raised.value.exit_code == ExitCode.CHECK_FAILED
    assert told.events[-1][1]["result"] == "timed-out"
    assert [str(check.result) for check in stage.checks] == ["timed-out", "passed"]


async def test_what_a_body_raises_after_its_time_is_not_lost(told: Told) -> None:
    with pytest.raises(BuildonceError, match="put back"):
        async with run_stage(
            "production", told.journal, budget=Budget(timedelta(seconds=0.05)), warn=None
        ):
            try:
                await anyio.sleep(60)
            finally:
                raise BuildonceError("put back")
    assert told.events[-1][1]["result"] == "timed-out"


async def test_a_slow_stage_is_said_to_be_slow(told: Told) -> None:
    async with run_stage(
        "commit", told.journal, budget=Budget(timedelta(seconds=30)), warn=timedelta(seconds=0.01)
    ) as stage:
        await anyio.sleep(0.05)
    assert stage.late == "slower than its warning of 0.0 s"
    assert "slower than its warning" in told.lines.getvalue()


async def test_results_of_a_stage_follow_what_ended_it(told: Told) -> None:
    with pytest.raises(CheckFailed):
        async with run_stage("a", told.journal, budget=Budget(None), warn=None):
            raise CheckFailed([CheckRecord("tests", Result.FAILED)])
    with pytest.raises(ZeroDivisionError):
        async with run_stage("b", told.journal, budget=Budget(None), warn=None):
            raise ZeroDivisionError
    with anyio.CancelScope() as scope:
        async with run_stage("c", told.journal, budget=Budget(None), warn=None):
            scope.cancel()
            await anyio.sleep(60)
    results = [str(stage.result) for stage in told.journal.record.stages]
    assert results == ["failed", "broken", "cancelled"]
    in_ledger = [data["result"] for kind, data in told.events if kind == "stage.finished"]
    assert in_ledger == ["failed", "failed", "cancelled"]
