"""Where things are kept: our variables, then XDG's, then the usual folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from buildonce import places


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("BUILDONCE_CACHE", "BUILDONCE_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_the_usual_folders(tmp_path: Path) -> None:
    assert places.cache() == tmp_path / ".cache" / "buildonce"
    assert places.home() == tmp_path / ".local" / "share" / "buildonce"
    assert places.home().is_dir()


def test_xdg_moves_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/ignored")
    assert places.cache() == tmp_path / "x" / "buildonce"
    assert places.home() == tmp_path / ".local" / "share" / "buildonce"


def test_our_variables_win(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    monkeypatch.setenv("BUILDONCE_CACHE", "~/own")
    assert places.cache() == tmp_path / "own"
