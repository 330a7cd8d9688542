"""Format and lint, with ruff."""

from __future__ import annotations

import json
from collections.abc import Sequence

import anyio
import dagger

from buildonce.stages.check import Check, count, latest
from buildonce.stages.environment import PROJECT, in_project
from buildonce.stages.evidence import result_evidence, text_file
from buildonce.stages.finding import Finding
from buildonce.stages.sarif import write_sarif
from buildonce.stages.tool import ToolRun, run_tool

_SOURCES = ("**/*.py", "**/*.pyi", "**/pyproject.toml", "**/ruff.toml", "**/.ruff.toml")


async def format_and_lint(
    source: dagger.Directory, python: dagger.Container, *, paths: Sequence[str] = (".",)
) -> Check:
    """Say where the source is not formatted as ruff would, and what its rules find.

    Args:
        source: the project; only Python files and ruff's configuration are looked at.
        python: a container with ruff 0.15 or newer (`python_environment`).
        paths: what to look at, relative to the source.

    Returns:
        Failures named by rule ("F401") with path and line. Reports: ruff-format.json,
        ruff-check.json and format_and_lint.sarif. Evidence: a test result.

    Raises:
        ToolBroken: ruff itself failed (a mistake in its configuration, say).

    Example:
        check = await format_and_lint(source, python_environment(python, requirements))
        assert check.passed, check.failures
    """
    container = in_project(python, source.filter(include=list(_SOURCES))).with_env_variable(
        "RUFF_NO_CACHE", "true"
    )
    runs: dict[str, ToolRun] = {}

    async def ruff(name: str, *arguments: str) -> None:
        command = ["ruff", name, *arguments, "--output-format=json", *paths]
        runs[name] = await run_tool(container, command, report=f"ruff-{name}.json")

    async with anyio.create_task_group() as group:
        group.start_soon(ruff, "format", "--check")
        group.start_soon(ruff, "check")

    failures: list[Finding] = []
    reports: dict[str, dagger.File] = {}
    passed_tests, failed_tests = [], []
    for name, run in sorted(runs.items(), reverse=True):
        file = f"ruff-{name}.json"
        reports[file] = run.reports.file(file)
        if run.exit_code == 0:
            passed_tests.append(f"ruff {name}")
            continue
        found = _failures(await reports[file].contents())
        if not found:
            raise run.broken(remedy=f"run `ruff {name} {' '.join(paths)}` in the project")
        failures += found
        failed_tests.append(f"ruff {name}")
    files = {failure.path for failure in failures}
    sarif = write_sarif("format_and_lint", "ruff", "", failures)
    reports["format_and_lint.sarif"] = text_file("format_and_lint.sarif", sarif)
    evidence = result_evidence(
        "format_and_lint",
        passed=not failures,
        passed_tests=passed_tests,
        failed_tests=failed_tests,
        configuration={"paths": list(paths)},
    )
    return Check(
        name="format_and_lint",
        passed=not failures,
        summary=f"{count(len(failures), 'finding')} in {count(len(files), 'file')}"
        if failures
        else "formatted, no findings",
        failures=tuple(failures),
        reports=reports,
        ran_at=latest(*(run.ran_at for run in runs.values())),
        evidence=(evidence,),
    )


def _failures(report: str) -> list[Finding]:
    """The findings in a report of ruff; none when it is no report."""
    try:
        findings = json.loads(report)
    except ValueError:
        return []
    return [
        Finding(
            id=finding.get("code") or "invalid-syntax",
            message=finding["message"],
            path=finding["filename"].removeprefix(f"{PROJECT}/"),
            line=(finding.get("location") or {}).get("row"),
            severity="low",
        )
        for finding in findings
    ]
