"""A stage: a named part of the run with a time budget."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from opentelemetry import trace

from buildonce.errors import ExitCode
from buildonce.pipeline.budget import Budget
from buildonce.pipeline.errors import StageTimedOut, explain
from buildonce.pipeline.journal import Journal
from buildonce.report import Result, StageRecord, duration

# These say nothing about what was built: the pipeline or its configuration is at fault.
_OURS = (ExitCode.TOOL_FAILED, ExitCode.USAGE)

_tracer = trace.get_tracer("buildonce")


@asynccontextmanager
async def run_stage(
    name: str, journal: Journal, *, budget: Budget, warn: timedelta | None
) -> AsyncIterator[StageRecord]:
    """Run the body as a stage: recorded, traced, and ended when its budget is spent.

    Args:
        name: of the stage.
        journal: where it is told.
        budget: how long it may take.
        warn: when it is said that it is slow, people not counted; None for never.

    Raises:
        StageTimedOut: the budget was spent, and the body ended for it.
    """
    stage = StageRecord(name)
    started = time.monotonic()
    await journal.stage_started(stage)
    attributes = {"cicd.pipeline.task.name": name}
    # Not as an exception event of the span: the gate's message is the summary, not a breakage.
    with _tracer.start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        result, summary = Result.CANCELLED, "cancelled"
        try:
            with budget.running():
                yield stage
            if budget.ended:
                raise _timed_out(stage, budget.allowed)
            result, summary = Result.PASSED, "passed"
        except Exception as error:
            problem, code, _ = explain(error)
            result = Result.BROKEN if code in _OURS else Result.FAILED
            summary = problem.message.splitlines()[0]
            raise
        finally:
            # A body that had to put things back may end with an error of its own after the time.
            if budget.spent:
                result = Result.TIMED_OUT
            stage.result, stage.seconds = result, time.monotonic() - started
            stage.awaited = budget.awaited
            if warn and stage.seconds - stage.awaited > warn.total_seconds():
                wanted = duration(warn.total_seconds())
                stage.late = f"slower than its warning of {wanted}"
                journal.progress.say(f"{name} took {duration(stage.seconds)}: {stage.late}")
            if result != Result.PASSED:
                span.set_status(trace.StatusCode.ERROR, summary)
            await journal.stage_finished(stage, summary)


def _timed_out(stage: StageRecord, budget: timedelta | None) -> StageTimedOut:
    allowed = duration(budget.total_seconds()) if budget else "?"
    unfinished = [c for c in stage.checks if c.result in (None, Result.CANCELLED)]
    for check in unfinished:
        check.result, check.summary = Result.TIMED_OUT, "ended by the stage's budget"
    names = ", ".join(check.name for check in unfinished)
    doing = f" while {names} ran" if names else ""
    slowest = max(stage.checks, key=lambda check: check.seconds, default=None)
    hint = f" (the slowest was {slowest.name}, {duration(slowest.seconds)})" if slowest else ""
    return StageTimedOut(
        f"the stage {stage.name} was ended after its budget of {allowed}{doing}{hint}",
        remedy=f"make it faster, or raise `budget` under [stages.{stage.name}]",
    )
