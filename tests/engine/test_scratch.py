"""The folder of a session goes with it, and that of a killed one with the next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from buildonce.engine.scratch import Scratch

pytestmark = pytest.mark.embedded_only


def test_a_folder_goes_with_its_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    scratch = Scratch()
    (scratch.folder() / "file").write_text("x")
    assert len(list(tmp_path.iterdir())) == 1
    scratch.close()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_sessions_folder_goes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    program = (
        "import time; from buildonce.engine.scratch import Scratch; s = Scratch();"
        "print(s.folder(), flush=True); time.sleep(60)"
    )
    killed = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert killed.stdout
    folder = Path(killed.stdout.readline().strip()).parent
    old = time.time() - 3600
    os.utime(folder, (old, old))
    Scratch().close()
    assert folder.exists()  # it lives, however old
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    strange = tmp_path / "buildonce-session-link"
    strange.symlink_to(tmp_path.parent)
    os.utime(strange, (old, old), follow_symlinks=False)
    Scratch().close()
    assert list(tmp_path.iterdir()) == [strange]
