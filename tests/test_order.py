"""The lists of tests, in what order and which are long, name tests that are there."""

from __future__ import annotations

from tests.conftest import LONG, LONGEST, ROOT


def test_the_longest_files_are_there() -> None:
    assert [name for name in LONGEST if not (ROOT / name).is_file()] == []


def test_the_long_tests_are_there() -> None:
    missing = []
    for name in LONG:
        file, _, function = name.partition("[")[0].partition("::")
        if f"def {function}" not in (ROOT / file).read_text("utf-8"):
            missing.append(name)
    assert missing == []
