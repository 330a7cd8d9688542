"""CloudFormation templates, linted and tested: one test a stack.

infrastructure/network.yaml           a template
tests/infrastructure/test_network.py  its test; a template without one is a finding

check = await infrastructure(source, python, folders=["infrastructure"])
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final

import dagger
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from buildonce.severity import Severity, at_least
from buildonce.stages.check import Check, Failure, Finding, count, latest
from buildonce.stages.environment import PROJECT, in_project, scanner_environment
from buildonce.stages.evidence import result_evidence, text_file
from buildonce.stages.finding import Fingerprints
from buildonce.stages.pytest_run import JUNIT, PytestRun, run_pytest
from buildonce.stages.sarif import write_sarif
from buildonce.stages.tasks import tasks
from buildonce.stages.tool import ToolRun, run_tool
from buildonce.stages.waivers import Waiver, apply_waivers

SUFFIXES: Final = (".yaml", ".yml", ".json", ".template")
UNTESTED: Final = "untested-template"
_MAX_TEMPLATE = 2 << 20  # CloudFormation itself takes 1 MB
# Of cfn-lint's exit codes: bits for errors (2), warnings (4) and information (8).
_FOUND = range(16)
_SEVERITIES: Mapping[str, Severity] = {
    "Error": "high",
    "Warning": "medium",
    "Informational": "low",
}
# A parameter file or a buildspec may lie beside templates; it has none of these.
_TEMPLATE = re.compile(
    r"""^[\s{]*["']?(?:AWSTemplateFormatVersion|Resources)["']?\s*:"""
    r"""|["']?Type["']?\s*:\s*["']?(?:AWS|Custom|Alexa)::""",
    re.MULTILINE,
)


async def infrastructure(
    source: dagger.Directory,
    python: dagger.Container,
    *,
    folders: Sequence[str] = ("infrastructure",),
    tests: str = "tests/infrastructure",
    sources: Sequence[str] = (),
    fail_on: Severity = "medium",
    regions: Sequence[str] = (),
    waivers: Sequence[Waiver] = (),
) -> Check:
    """Lint each CloudFormation template and run its test.

    cfn-lint knows the resources of CloudFormation by itself; nothing is asked of AWS. Exceptions
    that a template makes for itself in its metadata do not count: a waiver is made in the open.

    Args:
        source: the project.
        python: a container with Python, for cfn-lint, pytest and PyYAML.
        folders: where the templates are, relative to the source.
        tests: where their tests are: test_network.py for network.yaml or network.json; a dash in
            a template's name is an underscore in its test's.
        sources: what else of the project the tests read or import.
        fail_on: an error of cfn-lint is "high", a warning "medium", information "low".
        regions: in which regions the templates must be valid; none: cfn-lint's default.
        waivers: accepted findings, by rule ("W3005").

    Returns:
        Failures named by rule or by test. Reports: infrastructure.sarif, and junit.xml when there
        are tests. Passed, and saying so, when there are no templates.

    Raises:
        ToolBroken: cfn-lint or pytest could not run.

    Example:
        check = await infrastructure(source, python, folders=["deploy/templates"])
    """
    templates, others = await _templates(source, folders)
    if not templates:
        return await _nothing(folders, others)
    environment = scanner_environment("infrastructure", python)
    expected = {name: _test_of(name, tests) for name in templates}
    present = set(await source.filter(include=[f"{tests}/**"]).glob(f"{tests}/**/test_*.py"))
    tested = sorted({test for test in expected.values() if test in present})
    lints: list[ToolRun] = []
    runs: list[PytestRun] = []

    async def lint() -> None:
        only = source.filter(include=list(templates))
        # Of the project nothing but the templates is there, so no .cfnlintrc is either.
        command = [
            *("cfn-lint", "--format", "json", "--include-checks", "I"),
            *("--mandatory-checks", "E", "W", "I"),
            *(("--regions", *regions) if regions else ()),
            *("--template", *(f"./{name}" for name in templates)),
        ]
        linted = in_project(environment, only)
        # Every code of these tells what the templates are, and nothing of the machine.
        run = await run_tool(linted, command, report="lint.json", settled=tuple(_FOUND))
        lints.append(run)

    async def test() -> None:
        wanted = [*templates, f"{tests}/**", *sources]
        container = in_project(environment, source.filter(include=wanted))
        runs.append(await run_pytest(container, tested, ["--import-mode=importlib"]))

    async with tasks() as group:
        group.start_soon(lint)
        if tested:
            group.start_soon(test)
    found = await _findings(lints[0], templates)
    found += [_untested(name, test) for name, test in expected.items() if test not in present]
    failing = [finding for finding in found if at_least(finding.severity, fail_on)]
    after = apply_waivers("infrastructure", failing, waivers)
    broken: tuple[Failure, ...] = runs[0].tests.failures if runs else ()
    quiet = [finding for finding in found if finding not in failing]
    failures = (*after.findings, *after.expired, *broken)
    sarif = write_sarif(
        "infrastructure", "cfn-lint", "", [*after.findings, *quiet], waived=after.waived
    )
    reports = {"infrastructure.sarif": text_file("infrastructure.sarif", sarif)}
    if runs:
        reports[JUNIT] = runs[0].junit
    linted = [f"lint {name}" for name in templates]
    bad = {f"lint {finding.path}" for finding in after.findings}
    evidence = result_evidence(
        "infrastructure",
        passed=not failures,
        passed_tests=[*(runs[0].tests.names if runs else ()), *sorted(set(linted) - bad)],
        failed_tests=[*(failure.id for failure in broken), *sorted(bad)],
        configuration={"folders": list(folders), "tests": tests, "fail_on": fail_on},
    )
    notes = [f"{name} is no CloudFormation template" for name in others]
    if quiet:
        notes.append(f"{count(len(quiet), 'finding')} below {fail_on}")
    return Check(
        name="infrastructure",
        passed=not failures,
        summary=_summary(len(templates), len(after.findings), len(after.waived), runs),
        failures=failures,
        reports=reports,
        ran_at=latest(lints[0].ran_at, *(run.run.ran_at for run in runs)),
        evidence=(evidence,),
        waived=after.waived,
        notes=(*notes, *after.notes),
    )


async def _templates(
    source: dagger.Directory, folders: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """Text of each template by path, and the files beside them that are none."""
    patterns = [f"{folder.rstrip('/')}/**/*{suffix}" for folder in folders for suffix in SUFFIXES]
    there = source.filter(include=patterns)
    names = {name for name in await there.glob("**/*") if name.endswith(SUFFIXES)}
    texts: dict[str, str] = {}

    async def read(name: str) -> None:
        file = there.file(name)
        texts[name] = await file.contents() if await file.size() <= _MAX_TEMPLATE else ""

    async with tasks() as group:
        for name in names:
            group.start_soon(read, name)
    templates = {name: texts[name] for name in sorted(names) if _TEMPLATE.search(texts[name])}
    return templates, sorted(names - templates.keys())


def _test_of(template: str, tests: str) -> str:
    stem = re.sub(r"\W", "_", PurePosixPath(template).stem)
    return f"{tests.rstrip('/')}/test_{stem}.py"


def _untested(template: str, test: str) -> Finding:
    return Finding(
        UNTESTED,
        f"this template has no test: {test} is missing",
        path=template,
        severity="high",
        remedy=f"write {test}",
    )


async def _nothing(folders: Sequence[str], others: Sequence[str]) -> Check:
    where = " and ".join(folders)
    sarif = write_sarif("infrastructure", "cfn-lint", "", [])
    return Check(
        name="infrastructure",
        passed=True,
        summary=f"no CloudFormation templates in {where}",
        reports={"infrastructure.sarif": text_file("infrastructure.sarif", sarif)},
        evidence=(
            result_evidence(
                "infrastructure", passed=True, configuration={"folders": list(folders)}
            ),
        ),
        notes=tuple(f"{name} is no CloudFormation template" for name in others),
    )


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class _Start(_Part):
    LineNumber: int = 1


class _Location(_Part):
    Start: _Start = _Start()


class _Rule(_Part):
    Id: str
    ShortDescription: str = ""


class _Match(_Part):
    Filename: str | None = None
    Level: str = "Error"
    Message: str
    Location: _Location
    Rule: _Rule


_MATCHES: TypeAdapter[list[_Match]] = TypeAdapter(list[_Match])


async def _findings(run: ToolRun, templates: Mapping[str, str]) -> list[Finding]:
    """What cfn-lint found.

    Raises:
        ToolBroken: it failed, or complains about its own command line.
    """
    text = await run.reports.file("lint.json").contents()
    try:
        matches = _MATCHES.validate_json(text or "[]")
    except ValidationError as error:
        raise run.broken(remedy="run `cfn-lint` on the templates by hand") from error
    # A code for findings without findings would be a failure taken for a pass.
    if run.exit_code not in _FOUND or bool(run.exit_code) != bool(matches):
        raise run.broken(remedy="run `cfn-lint` on the templates by hand")
    if any(match.Rule.Id == "E0003" or match.Filename is None for match in matches):
        raise run.broken(remedy="correct the options under [checks.infrastructure]")
    fingerprints = Fingerprints()
    found = []
    for match in matches:
        path = str(match.Filename).removeprefix(f"{PROJECT}/").removeprefix("./")
        line = match.Location.Start.LineNumber
        lines = templates.get(path, "").splitlines()
        text = lines[line - 1] if 0 < line <= len(lines) else ""
        found.append(
            Finding(
                id=match.Rule.Id,
                message=match.Message,
                path=path,
                line=line,
                severity=_SEVERITIES.get(match.Level, "high"),
                fingerprint=fingerprints.of(path, match.Rule.Id, text),
                remedy=match.Rule.ShortDescription or None,
            )
        )
    return found


def _summary(templates: int, findings: int, waived: int, runs: Sequence[PytestRun]) -> str:
    tests = runs[0].summary if runs else "no tests"
    accepted = f", {waived} waived" if waived else ""
    return f"{count(templates, 'template')}, {count(findings, 'finding')}{accepted}; {tests}"
