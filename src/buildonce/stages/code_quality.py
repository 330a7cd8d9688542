"""Code quality of Python: functions that are too complex, and lines that stand in two files.

    tools = scanner_environment("quality", python)
    check = await code_quality(source, tools, paths=["src"], max_complexity=12)
    check.failures            # src/a.py:40: too-complex: `read` is too complex (14 > 12)

Complexity is McCabe's number, counted by ruff. Duplication is a run of equal lines in two files,
found by pylint's `symilar`, which looks at neither comments, docstrings, imports nor signatures.
Neither reads the project's configuration or heeds its comments: what is to stay is a waiver.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import dagger

from buildonce.stages.check import Check, count
from buildonce.stages.environment import PROJECT, in_project
from buildonce.stages.evidence import result_evidence, text_file
from buildonce.stages.finding import Finding, Fingerprints
from buildonce.stages.sarif import write_sarif
from buildonce.stages.tool import ToolBroken, ToolRun, run_tool
from buildonce.stages.waivers import Waiver, apply_waivers

COMPLEX, DUPLICATE, UNREAD = "too-complex", "duplicate-code", "unparsed-file"

_NAME = "code_quality"
_UNDECODABLE = re.compile(r"^warning: Failed to lint (.+?): (.+)$", re.MULTILINE)
_RUN = re.compile(r"^(\d+) similar lines in \d+ files$")
_PLACE = re.compile(r"^==(.+):\[(\d+):(\d+)\]$")
_TOTAL = re.compile(r"^TOTAL lines=\d+ duplicates=\d+ percent=([\d.]+)$")


@dataclass(frozen=True)
class Place:
    """Lines of a file, from 1, both ends included."""

    path: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.path}:{self.first}-{self.last}"


@dataclass(frozen=True)
class Copied:
    """A run of equal lines: how many count, where it stands, and its text."""

    lines: int
    places: tuple[Place, ...]
    text: str


async def code_quality(
    source: dagger.Directory,
    tools: dagger.Container,
    *,
    paths: Sequence[str] = ("src",),
    exclude: Sequence[str] = (),
    max_complexity: int = 10,
    max_equal_lines: int = 9,
    waivers: Sequence[Waiver] = (),
) -> Check:
    """Fail on a function that is too complex, and on lines that were copied.

    Args:
        source: the project; only Python files under `paths` are looked at.
        tools: a container with ruff and pylint (`scanner_environment("quality", python)`).
        paths: folders or files, relative to the source.
        exclude: patterns of files to leave out: generated ones.
        max_complexity: McCabe's number that a function may have: 1 and its branches.
        max_equal_lines: how many lines of code, one after another, two files may have in common.
        waivers: accepted findings: "too-complex", "duplicate-code" (at its first place by name) or
            a fingerprint.

    Returns:
        Failures with path and line; a file that is no Python is one too ("unparsed-file"), for
        nothing is known of it. Report: code_quality.sarif. Evidence: a test result.

    Raises:
        ToolBroken: a tool failed, or there is no Python file under `paths`.

    Example:
        check = await code_quality(source, tools, max_complexity=12, max_equal_lines=7)
    """
    wanted = source.filter(include=list(_patterns(paths)), exclude=list(exclude))
    files = sorted(await wanted.glob("**/*.py"))
    if not files:
        raise ToolBroken(
            f"there is no Python file in {', '.join(paths)}",
            remedy=f"correct `paths` under [checks.{_NAME}]",
        )
    container = in_project(tools, wanted)
    counted = await run_tool(
        container,
        [
            *("ruff", "check", "--isolated", "--no-cache", "--ignore-noqa"),
            *("--no-respect-gitignore", "--target-version=py314", "--select=C901"),
            *("--config", f"lint.mccabe.max-complexity={max_complexity}"),
            *("--output-format=json", "."),
        ],
        report="ruff.json",
        settled=(0, 1),
    )
    found = await _complexity(counted)
    unread = {finding.path for finding in found if finding.id == UNREAD}
    compared = await run_tool(
        container,
        [
            # It tells runs that are longer than this.
            *("symilar", f"--duplicates={max_equal_lines}", "--ignore-comments"),
            *("--ignore-docstrings", "--ignore-imports", "--ignore-signatures"),
            *(f"./{file}" for file in files if file not in unread),
        ],
        report="symilar.txt",
    )
    copied, percent = await _duplication(compared)
    found += duplicates_of(copied)
    left = apply_waivers(_NAME, found, waivers)
    failures = (*left.findings, *left.expired)
    sarif = write_sarif(_NAME, "ruff and symilar", "", left.findings, waived=left.waived)
    names = {COMPLEX: "complexity", DUPLICATE: "duplication", UNREAD: "parsing"}
    failed = {names[finding.id] for finding in left.findings}
    evidence = result_evidence(
        _NAME,
        passed=not failures,
        passed_tests=sorted(set(names.values()) - failed),
        failed_tests=sorted(failed),
        configuration={
            "paths": list(paths),
            "exclude": list(exclude),
            "max_complexity": max_complexity,
            "max_equal_lines": max_equal_lines,
        },
    )
    accepted = f", {len(left.waived)} waived" if left.waived else ""
    limits = f"complexity to {max_complexity}, equal lines to {max_equal_lines}"
    return Check(
        name=_NAME,
        passed=not failures,
        summary=f"{count(len(left.findings), 'finding')}{accepted} in {count(len(files), 'file')} "
        f"({limits}); {percent} % copied",
        failures=failures,
        reports={f"{_NAME}.sarif": text_file(f"{_NAME}.sarif", sarif)},
        ran_at=max(counted.ran_at, compared.ran_at),
        evidence=(evidence,),
        waived=left.waived,
        notes=left.notes,
    )


def _patterns(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        folder = path.removeprefix("./").strip("/")
        if folder.endswith(".py"):
            yield folder
        else:
            yield f"{folder}/**/*.py" if folder not in ("", ".") else "**/*.py"


async def _complexity(run: ToolRun) -> list[Finding]:
    remedy = "run `ruff check --isolated --select=C901` in the project"
    if run.exit_code not in (0, 1):
        raise run.broken(remedy=remedy)
    try:
        report = json.loads(await run.reports.file("ruff.json").contents())
        return list(findings_of(report, run.stderr))
    except (ValueError, KeyError, TypeError) as error:
        raise run.broken(remedy=remedy) from error


def findings_of(report: Iterable[dict[str, Any]], warnings: str) -> Iterator[Finding]:
    """What ruff found; of a file that does not parse, the first reason.

    Args:
        report: its JSON.
        warnings: what it wrote to its error output: files that it could not even read.
    """
    names = Fingerprints()
    unread = {_project_path(path): (1, why) for path, why in _UNDECODABLE.findall(warnings)}
    for found in report:
        path, line, message = _project_path(found["filename"]), found["location"]["row"], ""
        message = found["message"]
        if found["code"] != "C901":
            unread.setdefault(path, (line, message))
            continue
        mark = names.of(path, COMPLEX, message.partition(" is ")[0])
        yield Finding(COMPLEX, message, path, line, fingerprint=mark, aliases=("C901",))
    for path, (line, why) in sorted(unread.items()):
        message = f"nothing is known of this file: {why}"
        yield Finding(UNREAD, message, path, line, fingerprint=names.of(path, UNREAD, ""))


def _project_path(path: str) -> str:
    return path.removeprefix(f"{PROJECT}/").removeprefix("./")


async def _duplication(run: ToolRun) -> tuple[list[Copied], str]:
    copied, percent = runs_of(await run.reports.file("symilar.txt").contents())
    if run.exit_code or percent is None:
        raise run.broken(remedy="run `symilar` on the files by hand")
    return copied, percent


def runs_of(report: str) -> tuple[list[Copied], str | None]:
    """The runs of equal lines in symilar's report, and the percentage that its last line tells.

    None in place of that: the report has no end, so it is none.
    """
    copied: list[Copied] = []
    lines, percent = 0, None
    places: list[Place] = []
    text: list[str] = []

    def end() -> None:
        if places:
            copied.append(Copied(lines, tuple(places), "\n".join(text)))
        places.clear()
        text.clear()

    for line in report.splitlines():
        # What it copies from the files is indented, and so never one of these.
        if head := _RUN.match(line):
            end()
            lines = int(head[1])
        elif place := _PLACE.match(line):
            # Python's slices: from 0, and without the last one.
            places.append(Place(_project_path(place[1]), int(place[2]) + 1, int(place[3])))
        elif total := _TOTAL.match(line):
            end()
            percent = total[1]
        elif line.startswith("   "):
            text.append(line[3:])
    return copied, percent


def duplicates_of(copied: Iterable[Copied]) -> Iterator[Finding]:
    """A finding for each run, at its first place."""
    names = Fingerprints()
    for run in copied:
        first, *others = run.places
        again = " and ".join(str(place) for place in others)
        yield Finding(
            DUPLICATE,
            f"{run.lines} lines, to {first.last}, stand again at {again}",
            first.path,
            first.first,
            fingerprint=names.of(first.path, DUPLICATE, run.text),
            aliases=("R0801",),
        )
