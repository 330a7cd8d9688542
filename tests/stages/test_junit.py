from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildonce.stages.junit import NotJUnit, parse_junit

TESTS = """
import pytest

def test_passes(): pass

def test_fails(): assert 1 == 2, "one is not two"

class TestInside:
    @pytest.mark.parametrize("n", [1, 2])
    def test_of_class(self, n): assert n == 1

@pytest.mark.skip
def test_skipped(): pass

@pytest.fixture
def broken(): raise OSError("no disk")

def test_errs(broken): pass

@pytest.fixture
def torn():
    yield
    raise OSError("teardown")

def test_fails_and_tears(torn): assert False
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("project")
    (root / "tests").mkdir()
    (root / "tests" / "test_a.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junit-xml=j.xml"]
    command += ["-o", "junit_family=xunit1", "tests"]
    done = subprocess.run(command, cwd=root, capture_output=True, check=False)
    assert done.returncode == 1
    return Path(root, "j.xml").read_text()


def test_reads_what_pytest_writes(report: str) -> None:
    tests = parse_junit(report)
    assert (tests.passed, tests.skipped) == (2, 1)
    assert [failure.id for failure in tests.failures] == [
        "tests/test_a.py::test_fails",
        "tests/test_a.py::TestInside::test_of_class[2]",
        "tests/test_a.py::test_errs",
        "tests/test_a.py::test_fails_and_tears",
    ]
    first = tests.failures[0]
    assert (first.path, first.line) == ("tests/test_a.py", 6)
    assert first.message == "AssertionError: one is not two"
    assert str(first) == "tests/test_a.py::test_fails: AssertionError: one is not two"


def test_reads_reports_without_file_names() -> None:
    tests = parse_junit(
        '<testsuite><testcase classname="a.B" name="c" time="x"><failure/></testcase></testsuite>'
    )
    assert [failure.id for failure in tests.failures] == ["a.B::c"]
    assert tests.failures[0].message == "failure"


BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    "<testsuites>&b;</testsuites>"
)
SECRET = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]><testsuites>&a;</testsuites>'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html/>",
        "<testsuites>",
        BOMB,
        SECRET,
        "<!DOCTYPE x><testsuites/>",
        "\x00",
        "<testsuite/>" * 2,
    ],
)
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(NotJUnit):
        parse_junit(text)


@given(st.text(max_size=60))
def test_no_text_at_all_breaks_the_reader(text: str) -> None:
    for candidate in (text, f"<testsuites><testcase>{text}</testcase></testsuites>"):
        try:
            parse_junit(candidate)
        except NotJUnit:
            continue
