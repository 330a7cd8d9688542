from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildonce.severity import SEVERITIES
from buildonce.stages import Finding, Waived, Waiver
from buildonce.stages.sarif import MAXIMUM_BYTES, NotSarif, Rule, read_sarif, write_sarif

FOUND = Finding(
    "py-eval", "eval of input", "src/a b.py", 7, severity="critical", cwe=("CWE-95",),
    fingerprint="0123456789abcdef",
)  # fmt: skip
OTHER = Finding("py-md5", "MD5", "src/a b.py", 3, severity="medium", cwe=("CWE-328",))
WAIVER = Waiver("sast", "py-md5", "old protocol", date(2027, 1, 31))


def log(**changes: Any) -> dict[str, Any]:
    text = write_sarif("sast", "semgrep", "1.0", [FOUND])
    return {**json.loads(text), **changes}


def test_what_is_written_is_read_back() -> None:
    text = write_sarif(
        "sast", "semgrep", "1.0", [FOUND], waived=[Waived(OTHER, WAIVER)],
        suppressed=[Finding("py-eval", "again", "b.py", 1, severity="high")],
        rules=[Rule("py-unused", "never found", "low")],
    )  # fmt: skip
    read = read_sarif(text)
    assert read.tools == ("semgrep",)
    assert [
        (r.check, r.rule_id, r.severity, r.path, r.line, r.suppressed) for r in read.results
    ] == [
        ("sast", "py-eval", "high", "b.py", 1, True),
        ("sast", "py-md5", "medium", "src/a%20b.py", 3, True),
        ("sast", "py-eval", "critical", "src/a%20b.py", 7, False),
    ]
    run = json.loads(text)["runs"][0]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == [
        "py-eval", "py-md5", "py-unused",
    ]  # fmt: skip
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    assert run["results"][1]["suppressions"] == [
        {"kind": "external", "justification": "old protocol (until 2027-01-31)"}
    ]


def test_the_order_of_findings_does_not_change_the_bytes() -> None:
    assert write_sarif("sast", "t", "", [FOUND, OTHER]) == write_sarif(
        "sast", "t", "", [OTHER, FOUND]
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not a SARIF"),
        ("[]", "not a SARIF"),
        ("[" * 100_000, "not a SARIF"),
        (json.dumps(log(version="2.0.0")), "version"),
        (json.dumps(log(runs=[])), "did not finish"),
        (json.dumps(log(runs=[{"tool": {"driver": {"name": "x"}}}])), "did not finish"),
        (json.dumps(log(runs=[{"tool": {}, "results": []}])), "driver"),
        (json.dumps(log(runs=[{"tool": {"driver": {"name": "x"}}, "results": [3]}])), "results"),
        (b"\xff\xfe\x00", "not a SARIF"),
        (b" " * (MAXIMUM_BYTES + 1), "at most"),
    ],
    ids=["empty", "list", "deep", "version", "no-runs", "no-results", "no-driver", "number",
         "no-text", "large"],
)  # fmt: skip
def test_what_is_no_log_is_refused(text: str | bytes, told: str) -> None:
    with pytest.raises(NotSarif, match=told):
        read_sarif(text)


def test_severity_of_others_logs_is_never_taken_for_less() -> None:
    def severity(rule: dict[str, Any], **result: Any) -> str:
        run = {
            "tool": {"driver": {"name": "x", "rules": [{"id": "r", **rule}]}},
            "results": [{"ruleId": "r", "message": {"text": "m"}, **result}],
        }
        return read_sarif(json.dumps(log(runs=[run]))).results[0].severity

    assert severity({"properties": {"security-severity": "9.1"}}) == "critical"
    assert severity({"properties": {"security-severity": "99"}}, level="error") == "high"
    assert severity({"properties": {"security-severity": [1]}}, level="note") == "low"
    assert severity({"defaultConfiguration": {"level": "error"}}) == "high"
    assert severity({}, level="whatever") == "high"
    assert severity({}) == "medium"


TEXTS = st.text(max_size=20)


@given(
    st.lists(
        st.builds(
            Finding, id=TEXTS.filter(bool), message=TEXTS, path=st.none() | TEXTS,
            line=st.none() | st.integers(1, 10**6), severity=st.sampled_from(SEVERITIES),
        ),
        max_size=5,
    )
)  # fmt: skip
def test_any_finding_is_written_and_read(findings: list[Finding]) -> None:
    read = read_sarif(write_sarif("sast", "tool", "1", findings))
    assert sorted((r.rule_id, r.severity) for r in read.results) == sorted(
        (f.id, f.severity) for f in findings
    )
