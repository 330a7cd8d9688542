"""Reading JUnit XML, which is not trusted: a container that ran anybody's code wrote it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from xml.etree.ElementTree import Element, ParseError, tostring

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from buildonce.stages.check import Failure


class NotJUnit(ValueError):
    """The text is no JUnit report."""


@dataclass(frozen=True)
class TestReport:
    """Counts and failures of a test run.

    Args:
        passed: tests that ran and passed.
        skipped: tests that did not run.
        failures: tests that failed or broke, as pytest names them.
        seconds: how long all tests took.
        names: of the tests that passed, as pytest names them.
    """

    __test__ = False  # the name is no test class of pytest

    passed: int
    skipped: int
    failures: tuple[Failure, ...]
    seconds: float
    names: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """All tests that were collected."""
        return self.passed + self.skipped + len(self.failures)


def parse_junit(text: str) -> TestReport:
    """Read a report as pytest writes it (junit_family xunit1 names file and line, xunit2 does not).

    Raises:
        NotJUnit: it is not XML, not JUnit, or carries entities or a document type.
    """
    root = _root(text)
    skipped = 0
    passed: list[str] = []
    failures: dict[str, Failure] = {}
    seconds = 0.0
    for case in root.iter("testcase"):
        seconds += _number(case.get("time"))
        problem = next((child for child in case if child.tag in ("failure", "error")), None)
        if problem is not None:
            # A test that failed and whose teardown broke too stands there twice.
            failure = _failure(case, problem)
            failures.setdefault(failure.id, failure)
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed.append(_node_id(case))
    return TestReport(len(passed), skipped, tuple(failures.values()), seconds, tuple(passed))


def as_published(text: str) -> str:
    """The report as Jenkins' schema has it: without files, lines and properties of single tests.

    Raises:
        NotJUnit: as `parse_junit`.
    """
    root = _root(text)
    for case in root.iter("testcase"):
        for name in ("file", "line"):
            case.attrib.pop(name, None)
        for properties in case.findall("properties"):
            case.remove(properties)
    return tostring(root, encoding="unicode", xml_declaration=True)


def _root(text: str) -> Element:
    try:
        root: Element = defusedxml.ElementTree.fromstring(text, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise NotJUnit(f"not a JUnit report: {error or type(error).__name__}") from error
    if root.tag not in ("testsuites", "testsuite"):
        raise NotJUnit(f"not a JUnit report: its root is <{root.tag}>")
    return root


def _failure(case: Element, problem: Element) -> Failure:
    message = problem.get("message") or (problem.text or "").strip() or problem.tag
    line = case.get("line", "")
    return Failure(
        id=_node_id(case),
        message=message.splitlines()[0][:300] if message else problem.tag,
        path=case.get("file"),
        # pytest counts lines from 0 here.
        line=int(line) + 1 if line.isascii() and line.isdigit() and len(line) < 10 else None,
    )


def _node_id(case: Element) -> str:
    """What one gives to pytest to run this test alone: "tests/test_a.py::TestB::test_c"."""
    name, file, classes = case.get("name", ""), case.get("file"), case.get("classname", "")
    if not file:
        return f"{classes}::{name}" if classes else name
    module = file.removesuffix(".py").replace("/", ".")
    inside = classes.removeprefix(module).strip(".")
    if not classes.startswith(module):
        inside = ""
    return "::".join([file, *(part for part in inside.split(".") if part), name])


def _number(text: str | None) -> float:
    try:
        number = float(text or 0)
    except ValueError:
        return 0.0
    return number if math.isfinite(number) and number > 0 else 0.0
