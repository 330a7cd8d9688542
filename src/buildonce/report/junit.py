"""All checks of a run as one JUnit file, which every CI vendor can show.

A check that has a JUnit report of its own gives its tests; every other check is one test case.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree.ElementTree import Element, ParseError, SubElement, indent, tostring

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from buildonce.report.record import CheckRecord, Result, RunRecord

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def merge_junit(record: RunRecord, reports: Mapping[tuple[str, str], str]) -> str:
    """The whole run as JUnit XML.

    Args:
        record: the run.
        reports: texts of the checks' own JUnit reports, by stage and check. One that is no JUnit
            is left out: the check's own result still stands.
    """
    root = Element("testsuites", name=_xml(record.pipeline))
    for stage in record.stages:
        for check in stage.checks:
            suites = _own_suites(reports.get((stage.name, check.name)))
            for suite in suites:
                suite.set("name", _xml(f"{stage.name}.{check.name}"))
                root.append(suite)
            # Tests that all passed do not make a check that failed for another reason pass.
            told = any(suite.find("testcase/failure") is not None for suite in suites) or any(
                suite.find("testcase/error") is not None for suite in suites
            )
            if not suites or (check.result != Result.PASSED and not told):
                root.append(_as_suite(stage.name, check))
    indent(root)
    return tostring(root, encoding="unicode", xml_declaration=True)


def _own_suites(text: str | None) -> list[Element]:
    if text is None:
        return []
    try:
        root = defusedxml.ElementTree.fromstring(text, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError):
        return []
    return [root] if root.tag == "testsuite" else list(root.iter("testsuite"))


def _as_suite(stage: str, check: CheckRecord) -> Element:
    name = _xml(check.name)
    bad = check.result in (Result.FAILED, Result.BROKEN, Result.TIMED_OUT)
    skipped = check.result in (Result.CANCELLED, None)
    suite = Element(
        "testsuite",
        name=f"{stage}.{name}",
        tests="1",
        failures=str(int(bad and check.result != Result.BROKEN)),
        errors=str(int(check.result == Result.BROKEN)),
        skipped=str(int(skipped)),
        time=f"{check.seconds:.3f}",
    )
    case = SubElement(suite, "testcase", classname=stage, name=name, time=f"{check.seconds:.3f}")
    if bad:
        tag = "error" if check.result == Result.BROKEN else "failure"
        problem = SubElement(case, tag, message=_xml(check.summary))
        problem.text = _xml("\n".join([*map(str, check.failures), *check.details]))
    elif skipped:
        SubElement(case, "skipped", message="cancelled")
    return suite


def _xml(text: str) -> str:
    """The text without the characters that XML 1.0 cannot hold."""
    return _NOT_XML.sub("\ufffd", text)
