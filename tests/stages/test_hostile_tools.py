"""Reports of tools that ran somebody else's code: whatever they write, it is refused or read."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildonce.advisories import SbomUnreadable
from buildonce.advisories.packages import packages_of
from buildonce.stages import Finding
from buildonce.stages.junit import NotJUnit, as_published, parse_junit
from buildonce.stages.licences import ALLOWED, DENIED, judged
from buildonce.stages.licences_policy import LicenceRules, Verdict
from buildonce.stages.sarif import NotSarif, read_sarif, write_sarif
from buildonce.stages.sca_scanner import AnswerUnreadable, answer
from buildonce.stages.secrets import Leak, findings_of

RULES = LicenceRules(ALLOWED, DENIED)
LONG = "9" * 5000

odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["\ud800", "\x1b[2J", "pkg:pypi/a@1", "pkg:deb/debian/a@1?distro=debian-12"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from([
            "purl", "name", "version", "licenses", "license", "id", "expression", "components",
            "results", "packages", "package", "ecosystem", "vulnerabilities", "severity",
            "runs", "tool", "driver", "rules", "properties", "level", "message", "locations",
        ]), inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.lists(odd, max_size=4))
def test_components_of_any_type_are_refused_or_read(components: list[Any]) -> None:
    document = {"bomFormat": "CycloneDX", "components": components}
    with suppress(SbomUnreadable):
        packages_of(document)
    with suppress(SbomUnreadable):
        judged([document], RULES, strict=True)


def test_a_component_inside_another_is_judged_too() -> None:
    inner = {"name": "in", "version": "1", "purl": "pkg:pypi/in@1",
             "licenses": [{"license": {"id": "AGPL-3.0-only"}}]}  # fmt: skip
    outer = {"name": "out", "version": "1", "purl": "pkg:pypi/out@1",
             "licenses": [{"license": {"id": "MIT"}}], "components": [inner]}  # fmt: skip
    document = {"bomFormat": "CycloneDX", "components": [outer]}
    found = {one.name: one.verdict for one in judged([document], RULES, strict=True)}
    assert found == {"in": Verdict.DENIED, "out": Verdict.ALLOWED}


@given(odd)
def test_answers_of_any_type_are_refused_or_read(value: Any) -> None:
    text = json.dumps(value)
    with suppress(AnswerUnreadable):
        answer(text, [])
    with suppress(NotSarif):
        read_sarif(text)


@given(odd, odd, odd)
def test_sarif_of_any_type_inside_is_refused_or_read(rules: Any, results: Any, tool: Any) -> None:
    log = {"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "x", "rules": rules}},
                                         "results": results}]}  # fmt: skip
    for document in (log, {**log, "runs": [{"tool": tool, "results": results}]}):
        with suppress(NotSarif):
            read_sarif(json.dumps(document))


@pytest.mark.parametrize("line", [LONG, "-1", "\u00b2", "1e3", "", " 3", "0x10"])
@pytest.mark.parametrize("time", ["nan", "inf", "-3", "1e999", LONG, "soon", ""])
def test_numbers_of_a_report_are_numbers(line: str, time: str) -> None:
    case = f'<testcase name="a" file="a.py" line="{line}" time="{time}"><failure/></testcase>'
    tests = parse_junit(f"<testsuite>{case}</testsuite>")
    assert 0 <= tests.seconds < float("inf")
    assert tests.failures[0].line is None


def test_entities_are_refused_in_what_is_published_too() -> None:
    laughs = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(9))
    text = f'<!DOCTYPE t [<!ENTITY l0 "ha">{laughs}]><testsuite><testcase name="&l9;"/></testsuite>'
    for read in (parse_junit, as_published):
        with pytest.raises(NotJUnit):
            read(text)


def test_what_is_published_has_what_the_schema_knows() -> None:
    case = '<testcase name="a" classname="t" file="t.py" line="3" time="0.1" />'
    assert 'name="a" classname="t" time="0.1"' in as_published(f"<testsuite>{case}</testsuite>")


@given(st.text(), st.text(), st.text())
def test_names_of_any_kind_are_written(path: str, message: str, rule: str) -> None:
    for name in (path, f"{path}\ud800\udcff"):
        finding = Finding(rule or "r", message, name, 1)
        read = read_sarif(write_sarif("sast", "t", "", [finding]).encode("utf-8", "replace"))
        assert len(read.results) == 1
    leak = Leak(RuleID="r", Description=message, File=path, StartLine=1, Match=message)
    assert len(findings_of([leak], [leak])) in (1, 2)
