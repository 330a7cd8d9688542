"""The order in which files are handed out names files that are there."""

from __future__ import annotations

from tests.conftest import LONGEST, ROOT


def test_the_longest_files_are_there() -> None:
    assert [name for name in LONGEST if not (ROOT / name).is_file()] == []
