"""Type check, with mypy."""

from __future__ import annotations

import json
from collections.abc import Sequence

import dagger
from dagger import dag

from buildonce.stages.check import Check, count
from buildonce.stages.environment import in_project
from buildonce.stages.evidence import result_evidence, text_file
from buildonce.stages.finding import Finding
from buildonce.stages.sarif import write_sarif
from buildonce.stages.tool import run_tool

_CONFIGURATION = ("pyproject.toml", "mypy.ini", ".mypy.ini", "setup.cfg")


async def type_check(
    source: dagger.Directory,
    python: dagger.Container,
    *,
    paths: Sequence[str] = ("src",),
    sources: Sequence[str] = ("src",),
) -> Check:
    """Check types, as strictly as the project's mypy configuration says.

    mypy's own cache is a cache volume: a changed file costs its own check and not all of them.

    Args:
        source: the project; only `paths`, `sources` and mypy's configuration are looked at.
        python: a container with mypy 1.11 or newer and the project's dependencies.
        paths: what to check, relative to the source.
        sources: what that imports, relative to the source.

    Returns:
        Failures named by mypy's code ("arg-type") with path and line. Reports: mypy.jsonl and
        type_check.sarif. Evidence: a test result.

    Raises:
        ToolBroken: mypy itself failed.

    Example:
        check = await type_check(source, python_environment(python, requirements))
    """
    container = in_project(
        python, source.filter(include=[*paths, *sources, *_CONFIGURATION])
    ).with_mounted_cache("/var/cache/mypy", dag.cache_volume("buildonce-mypy"))
    options = ["--output=json", "--cache-dir=/var/cache/mypy", "--no-error-summary"]
    run = await run_tool(container, ["mypy", *options, *paths], report="mypy.jsonl")
    report = run.reports.file("mypy.jsonl")
    failures = _failures(await report.contents()) if run.exit_code else ()
    if run.exit_code and not failures:
        raise run.broken(remedy=f"run `mypy {' '.join(paths)}` in the project")
    evidence = result_evidence(
        "type_check",
        passed=not failures,
        passed_tests=() if failures else ("mypy",),
        failed_tests=("mypy",) if failures else (),
        configuration={"paths": list(paths)},
    )
    sarif = text_file("type_check.sarif", write_sarif("type_check", "mypy", "", failures))
    return Check(
        name="type_check",
        passed=not failures,
        summary=count(len(failures), "type error") if failures else "no type errors",
        failures=failures,
        reports={"mypy.jsonl": report, "type_check.sarif": sarif},
        ran_at=run.ran_at,
        evidence=(evidence,),
    )


def _failures(report: str) -> tuple[Finding, ...]:
    """The errors in mypy's JSON lines; notes belong to an error before them."""
    failures = []
    for line in report.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue  # mypy prints plain text for what is not about a file
        if found.get("severity") == "error":
            failures.append(
                Finding(
                    id=found.get("code") or "error",
                    message=found["message"],
                    path=found["file"],
                    # -1 stands for the whole file.
                    line=found["line"] if found["line"] > 0 else None,
                    severity="low",
                )
            )
    return tuple(failures)
