"""How a run ends badly, and saying so in a few lines instead of a traceback."""

from __future__ import annotations

from collections.abc import Sequence

import dagger

from buildonce.errors import BuildonceError, ExitCode, leaves, refusal
from buildonce.pipeline.journal import Journal
from buildonce.report import CheckRecord, Problem, Result, RunRecord

_SHOWN_LINES = 8


class CheckFailed(BuildonceError):
    """The gate is shut: checks failed, so nothing after them happens.

    Args:
        checks: those that failed, and those that could not be made.
    """

    exit_code = ExitCode.CHECK_FAILED

    def __init__(self, checks: Sequence[CheckRecord]) -> None:
        self.checks = tuple(checks)
        named = ", ".join(f"{check.name} ({check.result})" for check in checks)
        super().__init__(f"the gate is shut: {named}")


class CheckBroken(CheckFailed):
    """No check failed, but one could not be made: what it would have said is not known."""

    exit_code = ExitCode.TOOL_FAILED


class CheckDenied(CheckFailed):
    """A check met something in the registry that is not to be believed, or no answer at all."""

    exit_code = ExitCode.POLICY_DENIED


class StageTimedOut(BuildonceError):
    """A stage took longer than its budget."""

    exit_code = ExitCode.CHECK_FAILED


def gate_error(checks: Sequence[CheckRecord]) -> CheckFailed:
    """The error for these failing checks. A denial outweighs a failure, and that a breakage."""
    if any(check.denied for check in checks):
        return CheckDenied(checks)
    failed = any(check.result == Result.FAILED for check in checks)
    return CheckFailed(checks) if failed else CheckBroken(checks)


def explain(error: BaseException) -> tuple[Problem, ExitCode, bool]:
    """What to tell about an error, the exit code, and whether its traceback is worth keeping."""
    error = weightiest(error)
    if isinstance(error, BuildonceError):
        return Problem(error.message, error.remedy), error.exit_code, False
    if isinstance(error, dagger.ExecError):
        said = (error.stderr.strip() or error.stdout.strip() or "it said nothing").splitlines()
        command = " ".join(error.command)
        message = f"`{_short(command)}` failed in a container with exit code {error.exit_code}:\n"
        message += "\n".join(f"    {_short(line, 200)}" for line in said[-_SHOWN_LINES:])
        return Problem(message), ExitCode.CHECK_FAILED, True
    if isinstance(error, dagger.QueryError):
        lines = str(error).strip().splitlines() or ["no message"]
        shown = lines if len(lines) <= _SHOWN_LINES else [*lines[:3], "…", *lines[-3:]]
        return (
            Problem("the engine could not do it: " + "\n".join(shown)),
            ExitCode.TOOL_FAILED,
            True,
        )
    if isinstance(error, dagger.DaggerError):
        return (
            Problem(
                f"the engine cannot be reached: {error}",
                "buildonce run python ci/main.py (or: dagger run python ci/main.py)",
            ),
            ExitCode.TOOL_FAILED,
            True,
        )
    if (refused := refusal(error)) is not None:
        return Problem(refused.message, refused.remedy), refused.exit_code, False
    cause = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return Problem(f"unexpected error: {cause}"), ExitCode.TOOL_FAILED, True


def note_problem(error: BaseException, journal: Journal | None, record: RunRecord) -> None:
    """Have the run end with this error, unless it ended with another one before."""
    if record.exit_code:
        return
    if isinstance(error, SystemExit | KeyboardInterrupt):
        record.exit_code = ExitCode.INTERRUPTED
        record.problem = Problem("interrupted")
        return
    problem, record.exit_code, keep = explain(error)
    record.problem = problem
    if consequence := _consequence(record):
        problem.message += f"\n{consequence}"
    if keep and journal is not None:
        journal.debug(error)
        if problem.remedy is None:
            problem.remedy = "see out/debug.log for the traceback"


def _consequence(record: RunRecord) -> str:
    """What did not happen because of the problem: whoever reads it wonders."""
    if record.release is None:
        return "nothing was pushed, nothing was deployed" if record.stages else ""
    there = ", ".join(rollout.environment for rollout in record.rollouts)
    return f"the release is pushed, and deployed to {there or 'no environment'}"


def weightiest(error: BaseException) -> BaseException:
    """The error of a group that says most: a rollback before a failed check before a breakage."""
    order = [ExitCode.ROLLED_BACK, ExitCode.POLICY_DENIED, ExitCode.CHECK_FAILED]

    def rank(leaf: BaseException) -> int:
        code = leaf.exit_code if isinstance(leaf, BuildonceError) else None
        return order.index(code) if code in order else len(order) + (code is None)

    return min(leaves(error), key=rank)


def _short(text: str, limit: int = 120) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
