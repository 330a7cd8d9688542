"""A machine of one's own: empty cache and home, a PATH with nothing but what a test puts there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from buildonce.toolchain import binaries


@dataclass
class Sandbox:
    """The folders of a test's machine."""

    cache: Path
    home: Path
    path: Path

    def program(self, name: str, script: str) -> Path:
        """Put a shell script on the PATH."""
        file = self.path / name
        file.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        file.chmod(0o755)
        return file


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    box = Sandbox(tmp_path / "cache", tmp_path / "home", tmp_path / "bin")
    box.path.mkdir()
    for name in [name for name in os.environ if name.startswith("BUILDONCE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BUILDONCE_CACHE", str(box.cache))
    monkeypatch.setenv("BUILDONCE_HOME", str(box.home))
    monkeypatch.setenv("PATH", f"{box.path}:/usr/bin:/bin")
    monkeypatch.setattr(binaries, "_ADMIN_FOLDERS", ())
    return box
