"""One run of pytest in a container: what the unit and the acceptance tests have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import dagger

from buildonce.stages.check import count
from buildonce.stages.evidence import text_file
from buildonce.stages.junit import NotJUnit, TestReport, as_published, parse_junit
from buildonce.stages.tool import REPORTS, ToolRun, run_tool

JUNIT = "junit.xml"

# pytest's documented exit codes; every other one is a broken tool.
_FAILED, _INTERRUPTED, _NOTHING_COLLECTED = 1, 2, 5
_REPORT_LIMIT = 64 << 20


@dataclass(frozen=True)
class PytestRun:
    """What pytest did, and the tests' results."""

    run: ToolRun
    tests: TestReport
    junit: dagger.File

    @property
    def summary(self) -> str:
        """ "148 tests passed, 2 skipped" or "1 of 150 tests failed"."""
        if failed := len(self.tests.failures):
            return f"{failed} of {count(self.tests.total, 'test')} failed"
        skipped = f", {self.tests.skipped} skipped" if self.tests.skipped else ""
        return f"{count(self.tests.passed, 'test')} passed{skipped}"


async def run_pytest(
    container: dagger.Container, paths: Sequence[str], options: Sequence[str] = ()
) -> PytestRun:
    """Run the tests at `paths`; failing ones are a result.

    Args:
        container: has pytest, and the tests in its working directory.
        paths: what to run.
        options: more of pytest's options.

    Raises:
        ToolBroken: pytest could not run, or there was no test to run.
    """
    command = [
        *("python3", "-m", "pytest", "--color=no", "-p", "no:cacheprovider"),
        # xunit1 names the file and the line of each test.
        *(f"--junit-xml={REPORTS}/{JUNIT}", "--override-ini=junit_family=xunit1"),
        *(*options, *paths),
    ]
    run = await run_tool(container, command)
    named = " ".join(paths)
    if run.exit_code == _NOTHING_COLLECTED:
        raise run.broken(remedy=f"write a first test under {named}, or correct `paths`")
    if run.exit_code not in (0, _FAILED, _INTERRUPTED):
        raise run.broken(remedy=f"run `pytest {named}` in the project")
    file = run.reports.file(JUNIT)
    try:
        if await file.size() > _REPORT_LIMIT:
            raise NotJUnit("it is too large to be read")
        report = await file.contents()
        tests, junit = parse_junit(report), text_file(JUNIT, as_published(report))
    except (NotJUnit, dagger.QueryError) as error:
        raise run.broken(remedy=f"run `pytest {named}` in the project") from error
    # Without a failing test that is no failed run, whatever else it is.
    if run.exit_code != 0 and not tests.failures:
        raise run.broken(remedy=f"run `pytest {named}` in the project")
    return PytestRun(run, tests, junit)
