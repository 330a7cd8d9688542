"""Running a tool in a container, where failing is a result and not an exception.

    run = await run_tool(container, ["ruff", "check", "."])
    run.exit_code, run.stdout                      # 1, "…"
    await run.reports.file("ruff.json").contents() # what it wrote to /reports

A passing result is cached by the engine and a failing one too, since its exit code is a result. But
whoever starts a failed run again wants it tried again (a flaky test, a full disk), so a failure
that comes from the cache is run anew, until it passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import dagger

from buildonce.errors import BuildonceError
from buildonce.stages.tasks import tasks

REPORTS = "/reports"

# The moment is written by the exec that runs the tool: it tells a cached result from a new one.
# A file and not an argument, so that a live view shows the tool's own command line.
_SCRIPT = f"""\
set -eu
mkdir -p {REPORTS}
date -u +%s.%N > {REPORTS}/.ran_at
if [ "$1" = --report ]; then
    report={REPORTS}/$2
    shift 2
    exec "$@" > "$report"
fi
exec "$@"
"""
_SCRIPT_PATH = "/opt/run-tool"


class ToolBroken(BuildonceError):
    """A tool could not do its work, so there is neither a pass nor a failure."""


@dataclass(frozen=True)
class ToolRun:
    """What a tool did.

    Args:
        command: the command line.
        exit_code: as the tool ended.
        stdout: what it wrote there.
        stderr: what it wrote there.
        ran_at: when it ran (UTC, by the engine's clock).
        reports: the files it wrote to /reports.
    """

    command: Sequence[str]
    exit_code: int
    stdout: str
    stderr: str
    ran_at: datetime
    reports: dagger.Directory

    def broken(self, remedy: str | None = None) -> ToolBroken:
        """The error to raise when the exit code is none that the tool documents."""
        said = (self.stderr.strip() or self.stdout.strip() or "it said nothing").splitlines()
        return ToolBroken(
            f"`{' '.join(self.command)}` ended with exit code {self.exit_code}: "
            + "\n".join(said[-12:]),
            remedy=remedy,
        )


async def run_tool(
    container: dagger.Container,
    command: Sequence[str],
    *,
    report: str | None = None,
    settled: Sequence[int] = (0,),
) -> ToolRun:
    """Run a command; whatever its exit code, the result is a `ToolRun`.

    Args:
        container: where it runs; needs `sh`, `mkdir` and `date`.
        command: program and arguments.
        report: file name under /reports that its standard output goes to.
        settled: exit codes that say no more than what is in the cache with them: they are not
            tried again.

    Raises:
        dagger.QueryError: the container itself could not be made or started.
    """
    started = datetime.now(UTC)
    run = await _run(container, command, report)
    attempt = 1
    while run.exit_code not in settled and run.ran_at < started:
        # Each attempt has a key of its own: one that passed is found again by later runs.
        attempt += 1
        again = container.with_env_variable("BUILDONCE_ATTEMPT", str(attempt))
        run = await _run(again, command, report)
    return run


async def _run(container: dagger.Container, command: Sequence[str], report: str | None) -> ToolRun:
    options = ["--report", report] if report else []
    done = container.with_new_file(_SCRIPT_PATH, _SCRIPT).with_exec(
        ["sh", _SCRIPT_PATH, *options, *command], expect=dagger.ReturnType.ANY
    )
    # By its ID from here on: else each question would repeat how the container was made.
    done = await done.sync()
    reports = done.directory(REPORTS)
    texts: dict[str, str] = {}

    async def fetch(name: str) -> None:
        match name:
            case "exit_code":
                texts[name] = str(await done.exit_code())
            case "stdout":
                texts[name] = await done.stdout()
            case "stderr":
                texts[name] = await done.stderr()
            case "ran_at":
                texts[name] = await reports.file(".ran_at").contents()

    async with tasks() as group:
        for name in ("exit_code", "stdout", "stderr", "ran_at"):
            group.start_soon(fetch, name)
    # Whole microseconds: `date` of busybox writes no fraction, of coreutils nine digits.
    seconds = float(texts["ran_at"].strip().removesuffix(".%N"))
    return ToolRun(
        command=command,
        exit_code=int(texts["exit_code"]),
        stdout=texts["stdout"],
        stderr=texts["stderr"],
        ran_at=datetime.fromtimestamp(seconds, UTC),
        reports=reports,
    )
