"""SARIF 2.1.0: the file that says what a check found, written and read.

    text = write_sarif("sast", "semgrep", "1.182.0", findings, waived=waived, rules=rules)
    log = read_sarif(text)                     # bounded: whoever wrote it is not trusted
    log.results[0].rule_id, log.results[0].severity, log.results[0].suppressed

What is written has no times and no places of a machine, so that the same findings are the same
bytes. A severity is in three places, because readers differ: `level` of the result,
`security-severity` of the rule (a score, for code hosts), and `severity` among the result's own
properties (our word).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from buildonce.severity import SEVERITIES, Severity, from_score, to_score
from buildonce.stages.finding import Finding
from buildonce.stages.waivers import Waived

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)

MAXIMUM_BYTES = 32 * 1024 * 1024
MAXIMUM_RESULTS = 50_000
_TEXT = 4_000

_LEVELS: dict[Severity, str] = {
    "info": "note",
    "low": "note",
    "medium": "warning",
    "high": "error",
    "critical": "error",
}
_OF_LEVELS: dict[str, Severity] = {
    "none": "info",
    "note": "low",
    "warning": "medium",
    "error": "high",
}


class NotSarif(ValueError):
    """The text is no SARIF log, or larger than one that is read."""


@dataclass(frozen=True)
class Rule:
    """What a check looks for.

    Args:
        id: its name, as findings have it.
        summary: one sentence.
        severity: that its findings have, unless they say otherwise.
        cwe: the weaknesses that it finds: ("CWE-89",).
        help: an address with more, or "".
    """

    id: str
    summary: str
    severity: Severity = "medium"
    cwe: tuple[str, ...] = ()
    help: str = ""


def write_sarif(
    check: str,
    tool: str,
    version: str,
    findings: Iterable[Finding],
    *,
    waived: Iterable[Waived] = (),
    suppressed: Iterable[Finding] = (),
    rules: Iterable[Rule] = (),
) -> str:
    """A log of one run.

    Args:
        check: the check's name; becomes `automationDetails.id`.
        tool: name of the program that looked.
        version: of that program; "" when it does not say.
        findings: what was found.
        waived: found, and accepted in the configuration: results with an external suppression.
        suppressed: found, and silenced by a comment in the source: in-source suppressions.
        rules: what was looked for; rules that only findings name are added.
    """
    known = {rule.id: rule for rule in rules}
    found, accepted, silenced = list(findings), list(waived), list(suppressed)
    for finding in (*found, *(w.finding for w in accepted), *silenced):
        known.setdefault(
            finding.id, Rule(finding.id, finding.message, finding.severity, finding.cwe)
        )
    order = {rule_id: index for index, rule_id in enumerate(sorted(known))}
    driver: dict[str, Any] = {"name": tool, "rules": [_rule(known[name]) for name in order]}
    if version:
        driver["version"] = version
    results = [
        *(_result(finding, order, []) for finding in found),
        *(
            _result(w.finding, order, [{"kind": "external", "justification": _why(w)}])
            for w in accepted
        ),
        *(_result(finding, order, [{"kind": "inSource"}]) for finding in silenced),
    ]
    log = {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": driver},
                "automationDetails": {"id": check},
                # No finding says something only when the search came to its end; policies ask.
                "invocations": [{"executionSuccessful": True}],
                "columnKind": "unicodeCodePoints",
                "results": sorted(results, key=_place),
            }
        ],
    }
    return json.dumps(log, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _rule(rule: Rule) -> dict[str, Any]:
    written: dict[str, Any] = {
        "id": rule.id,
        "shortDescription": {"text": _cut(rule.summary) or rule.id},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
        "properties": {
            "security-severity": str(to_score(rule.severity)),
            "tags": ["security", *rule.cwe],
        },
    }
    if rule.help:
        written["helpUri"] = rule.help
    return written


def _result(
    finding: Finding, order: Mapping[str, int], suppressions: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    written: dict[str, Any] = {
        "ruleId": finding.id,
        "ruleIndex": order[finding.id],
        "level": _LEVELS[finding.severity],
        "message": {"text": _cut(finding.message) or finding.id},
        "properties": {"severity": finding.severity, "cwe": list(finding.cwe)},
        "suppressions": list(suppressions),
    }
    if finding.path:
        uri = quote(finding.path, errors="surrogatepass")
        location: dict[str, Any] = {"artifactLocation": {"uri": uri}}
        if finding.line:
            location["region"] = {"startLine": finding.line}
        written["locations"] = [{"physicalLocation": location}]
    if finding.fingerprint:
        written["partialFingerprints"] = {"buildonce/v1": finding.fingerprint}
    return written


def _place(result: Mapping[str, Any]) -> tuple[str, int, str, str]:
    location = result.get("locations", [{}])[0].get("physicalLocation", {})
    line = location.get("region", {}).get("startLine", 0)
    uri = location.get("artifactLocation", {}).get("uri", "")
    return uri, line, result["ruleId"], json.dumps(result, sort_keys=True)


def _why(waived: Waived) -> str:
    return f"{waived.waiver.reason} (until {waived.waiver.expires})"


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT else f"{text[: _TEXT - 1]}…"


class _Part(BaseModel):
    # Others' logs hold much that is not looked at; what is looked at has its type.
    model_config = ConfigDict(extra="ignore", frozen=True)


_Short = Annotated[str, Field(max_length=_TEXT)]
_Long = Annotated[str, Field(max_length=16 * _TEXT)]


class _Text(_Part):
    text: _Long = ""


class _Artifact(_Part):
    uri: _Short = ""


class _Region(_Part):
    startLine: Annotated[int, Field(ge=1)] | None = None


class _Physical(_Part):
    artifactLocation: _Artifact = _Artifact()
    region: _Region = _Region()


class _Location(_Part):
    physicalLocation: _Physical = _Physical()


class _Suppression(_Part):
    kind: _Short
    status: _Short = "accepted"
    justification: _Long = ""


class _Configuration(_Part):
    level: _Short = "warning"


class _RuleRead(_Part):
    id: _Short
    defaultConfiguration: _Configuration = _Configuration()
    properties: dict[str, Any] = {}


class _Driver(_Part):
    name: _Short
    version: _Short = ""
    rules: Annotated[list[_RuleRead], Field(max_length=MAXIMUM_RESULTS)] = []


class _Tool(_Part):
    driver: _Driver


class _Automation(_Part):
    id: _Short = ""


class _ResultRead(_Part):
    ruleId: _Short = ""
    level: _Short | None = None
    message: _Text = _Text()
    locations: Annotated[list[_Location], Field(max_length=1000)] = []
    suppressions: Annotated[list[_Suppression], Field(max_length=1000)] | None = None
    properties: dict[str, Any] = {}


class _Run(_Part):
    tool: _Tool
    automationDetails: _Automation = _Automation()
    results: Annotated[list[_ResultRead], Field(max_length=MAXIMUM_RESULTS)] | None = None


class _Log(_Part):
    version: Annotated[str, Field(pattern=r"^2\.1\.0$")]
    runs: Annotated[list[_Run], Field(max_length=100)]


@dataclass(frozen=True)
class SarifResult:
    """A result of a log that was read.

    Args:
        check: `automationDetails.id` of its run.
        rule_id: the rule.
        message: what was found.
        severity: ours where the log has it, else by the rule's score, else by the level.
        path, line: where, when the log says it.
        suppressed: a comment or a waiver silences it.
    """

    check: str
    rule_id: str
    message: str
    severity: Severity
    path: str | None
    line: int | None
    suppressed: bool


@dataclass(frozen=True)
class SarifLog:
    """A log that was read: the tools that ran, and all their results."""

    tools: tuple[str, ...]
    results: tuple[SarifResult, ...]


def read_sarif(text: str | bytes) -> SarifLog:
    """Read a log that anybody may have written.

    Raises:
        NotSarif: it is too large, no JSON, or not SARIF 2.1.0. A log of no runs is refused too: it
            says nothing, and must not be read as "nothing found".
    """
    if len(text) > MAXIMUM_BYTES:
        raise NotSarif(f"a SARIF log of {len(text):,} bytes: at most {MAXIMUM_BYTES:,} are read")
    try:
        log = _Log.model_validate(json.loads(text))
    except (ValueError, RecursionError, ValidationError) as error:
        raise NotSarif(f"not a SARIF 2.1.0 log: {_first(error)}") from None
    if not log.runs or any(run.results is None for run in log.runs):
        raise NotSarif("a SARIF log without results: the tool did not finish")
    return SarifLog(
        tools=tuple(run.tool.driver.name for run in log.runs),
        results=tuple(result for run in log.runs for result in _results(run)),
    )


def _results(run: _Run) -> Iterable[SarifResult]:
    rules = {rule.id: rule for rule in run.tool.driver.rules}
    for result in run.results or ():
        place = result.locations[0].physicalLocation if result.locations else _Physical()
        yield SarifResult(
            check=run.automationDetails.id,
            rule_id=result.ruleId,
            message=result.message.text,
            severity=_severity(result, rules.get(result.ruleId)),
            path=place.artifactLocation.uri or None,
            line=place.region.startLine,
            suppressed=any(s.status == "accepted" for s in result.suppressions or ()),
        )


def _severity(result: _ResultRead, rule: _RuleRead | None) -> Severity:
    own = result.properties.get("severity")
    if own in SEVERITIES:
        return own  # type: ignore[no-any-return]
    if rule is not None:
        try:
            return from_score(float(rule.properties.get("security-severity", "none")))
        except (TypeError, ValueError):
            pass  # not every rule has a score
    level = result.level or (rule.defaultConfiguration.level if rule else "warning")
    # An unknown word is not taken for harmless.
    return _OF_LEVELS.get(level, "high")


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        found = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(str(part) for part in found['loc'])}: {found['msg']}"
    return str(error) or type(error).__name__
