"""Unit tests with coverage, with pytest."""

from __future__ import annotations

import json
from collections.abc import Sequence

import dagger

from buildonce.stages.check import Check, Failure
from buildonce.stages.environment import in_project
from buildonce.stages.evidence import result_evidence
from buildonce.stages.pytest_run import JUNIT, run_pytest
from buildonce.stages.tool import REPORTS

_CONFIGURATION = ("pyproject.toml", "pytest.ini", "tox.ini", "setup.cfg", "conftest.py")


async def unit_tests(
    source: dagger.Directory,
    python: dagger.Container,
    *,
    paths: Sequence[str] = ("tests",),
    sources: Sequence[str] = ("src",),
    coverage_of: Sequence[str] = ("src",),
    coverage_floor: float = 0,
    options: Sequence[str] = (),
) -> Check:
    """Run the unit tests; fail on a failing one, or when less is covered than the floor.

    Args:
        source: the project; only `paths`, `sources` and pytest's configuration are looked at.
        python: a container with pytest, pytest-cov and the project's dependencies.
        paths: the tests, relative to the source.
        sources: what the tests import or read, relative to the source.
        coverage_of: folders or packages whose coverage is measured.
        coverage_floor: percent of them that must be covered, 0 to 100.
        options: more of pytest's options.

    Returns:
        Failures named as pytest names the tests. Reports: junit.xml, coverage.xml (Cobertura),
        coverage.json. Evidence: a test result with the tests' names.

    Raises:
        ToolBroken: pytest could not run, or found no tests.

    Example:
        check = await unit_tests(source, python_environment(python, requirements))
        print(check.summary)   # "148 tests passed, coverage 93.1 %"
    """
    container = in_project(
        python, source.filter(include=[*paths, *sources, *_CONFIGURATION])
    ).with_env_variable("COVERAGE_FILE", f"{REPORTS}/.coverage")
    pytest = await run_pytest(
        container,
        paths,
        [
            *(f"--cov={name}" for name in coverage_of),
            f"--cov-report=xml:{REPORTS}/coverage.xml",
            f"--cov-report=json:{REPORTS}/coverage.json",
            *options,
        ],
    )
    coverage_json = pytest.run.reports.file("coverage.json")
    covered: float = json.loads(await coverage_json.contents())["totals"]["percent_covered"]
    failures = list(pytest.tests.failures)
    if not failures and covered < coverage_floor:
        wanted = f"{covered:.1f} % of {', '.join(coverage_of)} is covered; {coverage_floor:g} %"
        failures.append(Failure("coverage", f"{wanted} is wanted"))
    evidence = result_evidence(
        "unit_tests",
        passed=not failures,
        passed_tests=pytest.tests.names,
        failed_tests=[failure.id for failure in failures],
        configuration={
            "paths": list(paths),
            "coverage_of": list(coverage_of),
            "coverage_floor": coverage_floor,
        },
    )
    return Check(
        name="unit_tests",
        passed=not failures,
        summary=f"{pytest.summary}, coverage {covered:.1f} %",
        failures=tuple(failures),
        reports={
            JUNIT: pytest.junit,
            "coverage.xml": pytest.run.reports.file("coverage.xml"),
            "coverage.json": coverage_json,
        },
        ran_at=pytest.run.ran_at,
        evidence=(evidence,),
    )
