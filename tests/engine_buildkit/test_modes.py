"""Modes survive the way over Go's representation."""

from __future__ import annotations

import stat

import pytest

from buildonce.engine.buildkit.filemode import from_go, to_go

KINDS = [stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR]


@pytest.mark.parametrize("kind", [*KINDS, stat.S_IFBLK])
@pytest.mark.parametrize("bits", [0, 0o644, 0o4755, 0o2755, 0o1777, 0o7777])
def test_there_and_back(kind: int, bits: int) -> None:
    assert from_go(to_go(kind | bits)) == kind | bits


def test_values_of_go() -> None:
    assert to_go(stat.S_IFDIR | 0o755) == 0x800001ED
    assert to_go(stat.S_IFLNK | 0o777) == 0x080001FF
    assert to_go(stat.S_IFREG | 0o4755) == 0x008001ED
