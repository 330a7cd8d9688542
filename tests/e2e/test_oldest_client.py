"""The oldest `dagger-io` that is supported passes the same tests on the embedded engine."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

OLDEST = "0.19.0"
PROJECT = Path(__file__).parents[2]
TESTS = "tests/engine/test_exec.py"

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python with that client; its `buildonce` is this environment's, the client's own not."""
    folder = tmp_path_factory.mktemp("oldest")
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, f"dagger-io=={OLDEST}", "pytest", "anyio"], check=True, timeout=300)
    command = folder / "bin/buildonce"
    buildonce = Path(sys.executable).parent / "buildonce"
    command.write_text(f'#!/bin/sh\nunset PYTHONPATH\nexec {buildonce} "$@"\n')
    command.chmod(0o755)
    return folder / "bin/python"


def test_the_oldest_client_runs_commands(python: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{PROJECT / 'src'}:{PROJECT}"}
    version = "import importlib.metadata as m; print(m.version('dagger-io'))"
    told = subprocess.run([python, "-c", version], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == OLDEST
    result = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/t", TESTS],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-5000:]
