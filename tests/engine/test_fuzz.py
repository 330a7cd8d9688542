"""Whatever is asked of the real engine, it answers, and goes on answering."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.embedded_only
def test_any_chain_of_fields() -> None:
    buildonce = str(Path(sys.executable).with_name("buildonce"))
    command = [
        buildonce,
        "run",
        "--progress",
        "quiet",
        sys.executable,
        "-m",
        "tests.engine.fuzzing",
    ]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 50
