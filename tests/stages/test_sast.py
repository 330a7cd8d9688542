"""The rules as text, and what is made of semgrep's report. `rules/` has examples for each rule."""

from __future__ import annotations

import re
from typing import Any

from buildonce.stages.sast import RULES, findings_of

TEXT = "".join(file.read_text("utf-8") for file in sorted(RULES.glob("*.yaml")))


def test_every_rule_has_a_weakness_a_score_and_an_example() -> None:
    ids = re.findall(r"(?m)^  - id: (\S+)", TEXT)
    assert len(ids) == len(set(ids)) >= 40
    assert TEXT.count('cwe: ["CWE-') == TEXT.count('security-severity: "') == len(ids)
    folder = RULES.parents[3] / "tests" / "stages" / "rules"
    shown = "".join(file.read_text("utf-8") for file in folder.glob("*.txt"))
    named = set(" ".join(re.findall(r"# bad(?:@-?\d+)?: (.*)", shown)).split())
    assert named == set(ids)


def report(severity: str = "9.8") -> dict[str, Any]:
    found = {
        "check_id": "opt.rules.python-eval",
        "path": "a.py",
        "start": {"line": 2},
        "extra": {
            "message": "m",
            "metadata": {"cwe": ["CWE-95: Eval"], "security-severity": severity},
        },
    }
    return {"results": [found], "errors": [], "paths": {"scanned": ["a.py"]}}


def test_a_comment_silences_only_what_is_below_the_threshold() -> None:
    lines = {"a.py": {"2": ["x = 1", "eval(x)  # nosemgrep"]}}
    found, silenced = findings_of(report(), lines, {}, "high")
    assert not silenced and "write a waiver" in found[0].message
    assert (found[0].id, found[0].severity, found[0].cwe) == (
        "python-eval",
        "critical",
        ("CWE-95",),
    )
    found, silenced = findings_of(report("5.0"), lines, {}, "high")
    assert not found and silenced[0].severity == "medium"


def test_what_does_not_parse_is_a_finding() -> None:
    found, _ = findings_of(report(), {}, {"b.py": 7}, "high")
    assert [(f.id, f.path, f.line) for f in found][-1] == ("unparsed-file", "b.py", 7)
