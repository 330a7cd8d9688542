"""Static analysis for security flaws, with semgrep and rules that this package keeps.

    check = await sast(source, scanner_environment("semgrep", python), fail_on="high")
    check.failures                             # file, line, rule, severity and CWE numbers

Nothing in the scanned repository has a say: its `.semgrepignore` is not looked at, and a
`# nosemgrep` comment silences only what is below the threshold; such findings are counted and
shown. What is at the threshold or above it and is to be accepted is a waiver.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import dagger
from dagger import dag

from buildonce.severity import Severity, at_least, from_score
from buildonce.stages.check import Check, count, latest
from buildonce.stages.evidence import sarif_evidence, text_file
from buildonce.stages.finding import Finding, Fingerprints
from buildonce.stages.sarif import write_sarif
from buildonce.stages.tool import ToolRun, run_tool
from buildonce.stages.waivers import Waiver, apply_waivers

RULES = Path(__file__).with_name("rules")

_NAME = "sast"
_SOURCE = "/scan"
_REPORT_LIMIT = 64 * 1024 * 1024
_COMMENT = re.compile(r"(?:#|//)\s*nosem(?:grep)?\b")
_WORDS: dict[str, Severity] = {
    "CRITICAL": "critical",
    "ERROR": "high",
    "HIGH": "high",
    "WARNING": "medium",
    "MEDIUM": "medium",
    "INFO": "low",
    "LOW": "low",
}

# semgrep tells neither the lines (without a login) nor that a Python file is no Python.
_LINES = r"""
import ast, json, pathlib, sys
report = json.load(open("/found/semgrep.json"))
lines, broken = {}, {}
for path in sorted({found["path"] for found in report["results"]}):
    text = pathlib.Path(path).read_text("utf-8", "replace").splitlines()
    wanted = {found["start"]["line"] for found in report["results"] if found["path"] == path}
    lines[path] = {n: [t[:1000] for t in text[max(n - 2, 0):n]] for n in sorted(wanted)}
for path in report["paths"]["scanned"]:
    if path.endswith(".py"):
        try:
            ast.parse(pathlib.Path(path).read_bytes())
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            broken[path] = getattr(error, "lineno", None) or 1
json.dump({"lines": lines, "broken": broken}, sys.stdout)
"""


async def sast(
    source: dagger.Directory,
    semgrep: dagger.Container,
    *,
    fail_on: Severity = "high",
    paths: Sequence[str] = (),
    rules: Sequence[str] = (),
    waivers: Sequence[Waiver] = (),
    today: date | None = None,
) -> Check:
    """Fail on a finding that is as bad as `fail_on`, or worse.

    Args:
        source: the project.
        semgrep: a container with semgrep 1.100 or newer, and Python.
        fail_on: the threshold.
        paths: folders and files to look at, relative to the source; none: all of it.
        rules: files or folders of more semgrep rules, relative to the source.
        waivers: findings that are accepted for a time.
        today: the day by which they expire; None: today in UTC.

    Returns:
        Failures named by rule; files that do not parse are findings too ("unparsed-file", medium).
        Reports: sast.sarif, with all findings of every severity, which is the evidence too.

    Raises:
        ToolBroken: semgrep failed, or a rule is wrong.

    Example:
        check = await sast(source, scanner_environment("semgrep", python), rules=["ci/rules"])
    """
    own = dag.directory()
    for file in sorted(RULES.glob("*.yaml")):
        own = own.with_new_file(file.name, file.read_text("utf-8"))
    # Without a file of its own semgrep leaves out tests, and whatever the repository's says.
    wanted = source.filter(include=[*paths, *rules]) if paths else source
    scanned = wanted.filter(exclude=[".git", "**/.semgrepignore"]).with_new_file(
        ".semgrepignore", "# nothing is left out\n"
    )
    container = (
        semgrep.with_mounted_directory("/opt/rules", own)
        .with_mounted_directory(_SOURCE, scanned)
        .with_workdir(_SOURCE)
        .with_env_variable("SEMGREP_SEND_METRICS", "off")
        .with_env_variable("SEMGREP_ENABLE_VERSION_CHECK", "0")
        .with_env_variable("SEMGREP_SETTINGS_FILE", "/opt/semgrep-settings.yml")
    )
    configurations = ["--config", "/opt/rules"]
    for path in rules:
        configurations += ["--config", f"{_SOURCE}/{path}"]
    run = await run_tool(
        container,
        [
            *("semgrep", "scan", *configurations, "--metrics=off", "--disable-version-check"),
            *("--no-git-ignore", "--disable-nosem", "--max-target-bytes=0"),
            *("--json", "--output", "/reports/semgrep.json", "."),
        ],
    )
    report = await _report(run)
    looked = await run_tool(
        # Isolated: the working directory is the repository, which may have a `json.py` of its own.
        container.with_directory("/found", run.reports),
        ["python3", "-I", "-c", _LINES],
    )
    if looked.exit_code:
        raise looked.broken(remedy="give `sast` a container with semgrep and Python 3.11")
    seen: dict[str, Any] = json.loads(looked.stdout)

    found, silenced = findings_of(report, seen["lines"], seen["broken"], fail_on)
    left = apply_waivers(_NAME, found, waivers, today=today)
    bad = [finding for finding in left.findings if at_least(finding.severity, fail_on)]
    below = [finding for finding in left.findings if not at_least(finding.severity, fail_on)]
    failures = (*left.expired, *bad)
    sarif = text_file(
        "sast.sarif",
        write_sarif(
            _NAME,
            "semgrep",
            str(report.get("version", "")),
            left.findings,
            waived=left.waived,
            suppressed=silenced,
        ),
    )
    parts = [f"{count(len(bad), 'finding')} at or above {fail_on}" if bad else f"nothing {fail_on}"]
    for number, what in (
        (len(below), "below"),
        (len(left.waived), "waived"),
        (len(silenced), "suppressed in the source"),
    ):
        if number:
            parts.append(f"{number} {what}")
    return Check(
        name=_NAME,
        passed=not failures,
        summary=f"{', '.join(parts)} in {count(len(report['paths']['scanned']), 'file')}",
        failures=failures,
        reports={"sast.sarif": sarif},
        ran_at=latest(run.ran_at, looked.ran_at),
        evidence=(sarif_evidence(_NAME, sarif),),
        waived=left.waived,
        notes=(
            *left.notes,
            *(str(finding) for finding in below),
            *(f"{finding}; suppressed by a comment" for finding in silenced),
        ),
    )


async def _report(run: ToolRun) -> dict[str, Any]:
    remedy = "run semgrep with the same rules; mend the rule or the file that it names"
    if run.exit_code not in (0, 1):
        raise run.broken(remedy=remedy)
    file = run.reports.file("semgrep.json")
    if await file.size() > _REPORT_LIMIT:
        raise run.broken(remedy="leave generated files out of the source")
    try:
        report = json.loads(await file.contents())
        assert isinstance(report["results"], list)
        assert isinstance(report["paths"]["scanned"], list)
        assert isinstance(report["errors"], list)
    except (ValueError, KeyError, TypeError, AssertionError, RecursionError) as error:
        raise run.broken(remedy=remedy) from error
    return dict(report)


def findings_of(
    report: Mapping[str, Any],
    lines: Mapping[str, Mapping[str, Sequence[str]]],
    broken: Mapping[str, int],
    fail_on: Severity,
) -> tuple[list[Finding], list[Finding]]:
    """The findings that count, and those below the threshold that a comment silences."""
    names = Fingerprints()
    found: list[Finding] = []
    silenced: list[Finding] = []
    order = sorted(report["results"], key=lambda r: (r["path"], r["start"]["line"], r["check_id"]))
    for result in order:
        path, line = result["path"], result["start"]["line"]
        rule = result["check_id"].rpartition(".")[2]
        extra = result["extra"]
        severity = _severity(extra)
        around = list(lines.get(path, {}).get(str(line), []))
        text = around[-1] if around else ""
        before = around[0].strip() if len(around) == 2 else ""
        comment = bool(_COMMENT.search(text) or (before[:1] in "#/" and _COMMENT.search(before)))
        message = " ".join(str(extra.get("message", rule)).split())
        counts = at_least(severity, fail_on)
        if comment and counts:
            message += " (nosemgrep does not silence this: write a waiver)"
        cwe = extra.get("metadata", {}).get("cwe", [])
        finding = Finding(
            id=rule,
            message=message,
            path=path,
            line=line,
            severity=severity,
            cwe=tuple(str(w).partition(":")[0] for w in ([cwe] if isinstance(cwe, str) else cwe)),
            fingerprint=names.of(path, rule, text),
        )
        (silenced if comment and not counts else found).append(finding)
    unread = {path: (line, "no Python that this version parses") for path, line in broken.items()}
    for error in report["errors"]:
        path = str(error.get("path") or "")
        if path:
            unread.setdefault(path, (1, str(error.get("message", ""))[:300].split("\n")[0]))
    for path, (line, why) in sorted(unread.items()):
        name = names.of(path, "unparsed-file", "")
        message = f"not all of this file was looked at: {why}"
        found.append(
            Finding("unparsed-file", message, path, line, severity="medium", fingerprint=name)
        )
    return found, silenced


def _severity(extra: Mapping[str, Any]) -> Severity:
    try:
        return from_score(float(extra["metadata"]["security-severity"]))
    except (KeyError, TypeError, ValueError):
        return _WORDS.get(str(extra.get("severity", "")).upper(), "high")
