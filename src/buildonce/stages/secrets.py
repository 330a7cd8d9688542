"""Search for secrets, in the files, every commit there ever was and their messages, with gitleaks.

    check = await secrets(source, history, gitleaks)
    check.failures                             # file, line, kind and commit; never the secret

Nothing in the scanned repository has a say: its `.gitleaks.toml`, its `.gitleaksignore` and its
`gitleaks:allow` comments are not looked at, nor are its Git attributes, by which a file could
declare itself binary and leave the history's text. What is to be accepted is a waiver.

gitleaks redacts what it found before it writes anything, so that no secret is in a report, a
message or a log; nor are authors, their addresses and their commit messages.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated

import dagger
from dagger import dag
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from buildonce.stages.check import Check, count, latest
from buildonce.stages.evidence import sarif_evidence, text_file
from buildonce.stages.finding import Finding, Fingerprints
from buildonce.stages.sarif import write_sarif
from buildonce.stages.tasks import tasks
from buildonce.stages.tool import ToolRun, run_tool
from buildonce.stages.waivers import Waiver, apply_waivers

RULES = Path(__file__).with_name("gitleaks.toml")

_NAME = "secrets"
_FOUND = 42  # gitleaks ends with 1 for an error too, unless told otherwise
_RULES_PATH = "/opt/gitleaks.toml"
# gitleaks reads a `.gitleaksignore` in the working directory and in the folder that it scans: the
# source is one level below that one, and the history has no files.
_EMPTY, _TREE, _SOURCE, _HISTORY = "/opt/empty", "/scan/tree", "/scan/tree/source", "/scan/history"
_REPORT_LIMIT = 64 * 1024 * 1024
_REMEDY = (
    "revoke it first: whoever could read the repository has it; then take it out of the source, "
    "or, where it is only in the history and revoked, waive it by its fingerprint"
)

# Mounted files belong to somebody else. Attributes of the scanned repository do not count: where
# the tree named here does not exist, Git takes an empty one.
_GIT_CONFIGURATION = """\
[safe]
\tdirectory = *
[attr]
\ttree = 4b825dc642cb6eb9a060e54bf8d69288fbee4904
[log]
\tshowSignature = false
"""

# gitleaks looks at what commits change, and not at what is written beside it. In this file each
# message stands after the name of its commit or tag.
_MESSAGES = f"""\
git -C {_HISTORY} log --all --format='object %H%n%B' > messages || exit 1
git -C {_HISTORY} for-each-ref --format='object %(objectname)%0a%(contents)' refs/tags \
    >> messages || exit 1
named='/^object [0-9a-f][0-9a-f]*$/'
sed -n -e "$named=" -e "${{named}}p" messages > /reports/objects
exec "$@"
"""

# What a merge itself brings in, beyond both of its sides, is in no other diff.
_LOG_OPTIONS = "--all --full-history --diff-filter=tuxdb --remerge-diff"


class Leak(BaseModel):
    """One entry of gitleaks' report; the fields about people are not read."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    RuleID: Annotated[str, Field(max_length=200)]
    Description: Annotated[str, Field(max_length=2000)] = ""
    File: Annotated[str, Field(max_length=5000)] = ""
    StartLine: Annotated[int, Field(ge=0)] = 0
    Commit: Annotated[str, Field(max_length=64)] = ""
    Date: Annotated[str, Field(max_length=64)] = ""
    Match: str = ""
    Fingerprint: Annotated[str, Field(max_length=6000)] = ""


_Leaks = TypeAdapter(list[Leak])


async def secrets(
    source: dagger.Directory,
    history: dagger.Directory,
    gitleaks: dagger.Container,
    *,
    waivers: Sequence[Waiver] = (),
    today: date | None = None,
) -> Check:
    """Fail on any secret in the files, in the history or in its messages.

    Args:
        source: the project's files.
        history: its Git repository without a work tree: the content of `.git`.
        gitleaks: a container with `gitleaks` 8.28 or newer, `git` 2.36 or newer, and `sh`.
        waivers: findings that are accepted for a time.
        today: the day by which they expire; None: today in UTC.

    Returns:
        Findings named by gitleaks' rule; one that is in the files and in commits is told once, and
        one that is in the message of a commit or tag has no path.
        A waiver may name the rule, our fingerprint, or gitleaks' own ("commit:file:rule:line").
        Reports: secrets.sarif, which is the evidence too.

    Raises:
        ToolBroken: gitleaks or git failed, so that something was not looked at.

    Example:
        check = await secrets(source, dag.host().directory(".git"), gitleaks)
        assert check.passed, check.failures
    """
    rules = dag.directory().with_new_file("gitleaks.toml", RULES.read_text("utf-8"))
    container = (
        gitleaks.with_file(_RULES_PATH, rules.file("gitleaks.toml"))
        .with_new_file("/opt/gitconfig", _GIT_CONFIGURATION)
        .with_env_variable("GIT_CONFIG_GLOBAL", "/opt/gitconfig")
        .with_env_variable("GIT_CONFIG_NOSYSTEM", "1")
        .with_env_variable("GIT_NO_REPLACE_OBJECTS", "1")
        .with_workdir(_EMPTY)
    )
    runs: dict[str, ToolRun] = {}
    leaks: dict[str, list[Leak]] = {}

    async def scan(what: str, where: dagger.Container, before: list[str], *mode: str) -> None:
        command = [
            *(*before, "gitleaks", *mode, "--config", _RULES_PATH, "--ignore-gitleaks-allow"),
            *("--redact=100", "--no-banner", "--no-color", "--exit-code", str(_FOUND)),
            *("--report-format", "json", "--report-path", f"/reports/{what}.json"),
        ]
        runs[what] = await run_tool(where, command, settled=(0, _FOUND))
        leaks[what] = await _leaks(runs[what], f"{what}.json")

    async with tasks() as group:
        files = container.with_mounted_directory(_SOURCE, source.without_directory(".git"))
        group.start_soon(scan, "files", files, [], "dir", _TREE)
        commits = container.with_mounted_directory(_HISTORY, history)
        group.start_soon(
            scan, "commits", commits, [], "git", _HISTORY, f"--log-opts={_LOG_OPTIONS}"
        )
        written = commits.with_workdir("/opt/messages")
        script = ["sh", "-c", _MESSAGES, "sh"]
        group.start_soon(scan, "messages", written, script, "dir", "/opt/messages")

    found = findings_of(leaks["files"], leaks["commits"])
    if leaks["messages"]:
        objects = await runs["messages"].reports.file("objects").contents()
        found += findings_in_messages(leaks["messages"], objects)
    left = apply_waivers(_NAME, found, waivers, today=today)
    failures = (*left.expired, *left.findings)
    sarif = text_file(
        "secrets.sarif",
        write_sarif(_NAME, "gitleaks", "", left.findings, waived=left.waived),
    )
    summary = count(len(left.findings), "secret") if left.findings else "no secrets"
    waived = f", {len(left.waived)} waived" if left.waived else ""
    return Check(
        name=_NAME,
        passed=not failures,
        summary=f"{summary} in the files and {count(_commits(runs['commits']), 'commit')}{waived}",
        failures=failures,
        reports={"secrets.sarif": sarif},
        ran_at=latest(*(run.ran_at for run in runs.values())),
        evidence=(sarif_evidence(_NAME, sarif),),
        waived=left.waived,
        notes=left.notes,
    )


async def _leaks(run: ToolRun, report: str) -> list[Leak]:
    # gitleaks counts a history that git could not read as one without commits, and passes.
    trouble = [line for line in run.stderr.splitlines() if " ERR " in line or " FTL " in line]
    if run.exit_code not in (0, _FOUND) or trouble:
        raise run.broken(
            remedy="give `secrets` the whole `.git` folder and a container with gitleaks and git"
        )
    file = run.reports.file(report)
    if await file.size() > _REPORT_LIMIT:
        raise run.broken(remedy="leave out generated files: gitleaks found too much to read")
    try:
        found = _Leaks.validate_json(await file.contents())
    except (ValidationError, dagger.QueryError) as error:
        raise run.broken(remedy="use gitleaks 8.28 or newer") from error
    if bool(found) != (run.exit_code == _FOUND):
        raise run.broken(remedy="use gitleaks 8.28 or newer")
    return found


def findings_of(tree: Iterable[Leak], history: Iterable[Leak]) -> list[Finding]:
    """One finding for each secret in the files, and for each more that a commit brought.

    The newest commit with a secret of the files' kind, place and surroundings is told with it. A
    secret that was on that line before is another one, with a name of its own: a waiver of the one
    does not accept the other.
    """
    commits: dict[tuple[str, str, str], list[Leak]] = {}
    for leak in sorted(history, key=lambda leak: (leak.Date, leak.Commit, leak.StartLine)):
        commits.setdefault((leak.File, leak.RuleID, leak.Match), []).append(leak)
    names = Fingerprints()
    findings = []
    for leak in sorted(tree, key=lambda leak: (leak.File, leak.StartLine, leak.RuleID)):
        path = leak.File.removeprefix(f"{_SOURCE}/")
        # The match is redacted: what is around the secret, so no one can try passwords against it.
        brought = commits.get((path, leak.RuleID, leak.Match))
        since = f", since {brought.pop().Commit[:8]}" if brought else ""
        name = names.of(path, leak.RuleID, leak.Match)
        findings.append(_finding(leak, path, f"in the files{since}", name))
    for (path, rule, match), brought in sorted(commits.items()):
        for leak in brought:
            name = names.of(path, rule, f"{leak.Commit} {match}")
            findings.append(_finding(leak, path, f"in the history: {leak.Commit[:8]}", name))
    return findings


def findings_in_messages(leaks: Iterable[Leak], objects: str) -> list[Finding]:
    """One finding for each secret in the message of a commit or tag.

    Args:
        leaks: in the file of messages.
        objects: the lines that name a commit or tag, the number of each before it: "12",
            "object 1a2b…".
    """
    lines = objects.split()
    begins = [(int(number), name) for number, name in zip(lines[::3], lines[2::3], strict=False)]
    names = Fingerprints()
    findings: dict[tuple[str, str, str], Finding] = {}
    for leak in sorted(leaks, key=lambda leak: leak.StartLine):
        before = bisect_right(begins, (leak.StartLine, "g")) - 1
        commit = begins[before][1] if before >= 0 else ""
        key = (commit, leak.RuleID, leak.Match)
        if key not in findings:  # a tag without a message has that of its commit
            name = names.of("", leak.RuleID, f"{commit} {leak.Match}")
            findings[key] = _finding(leak, None, f"in the message of {commit[:8]}", name)
    return list(findings.values())


def _finding(leak: Leak, path: str | None, where: str, name: str) -> Finding:
    return Finding(
        id=leak.RuleID,
        message=f"{leak.Description or 'a secret'} ({where})",
        path=path,
        line=(leak.StartLine or None) if path else None,
        severity="critical",
        cwe=("CWE-798",),
        fingerprint=name,
        aliases=(leak.Fingerprint.replace(f"{_SOURCE}/", ""),) if path else (),
        remedy=_REMEDY,
    )


def _commits(run: ToolRun) -> int:
    words = run.stderr.split()
    places = [i for i, word in enumerate(words) if word == "commits" and i]
    number = words[places[0] - 1] if places else "0"
    return int(number) if number.isdigit() else 0
