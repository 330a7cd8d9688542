"""The oldest `dagger-io` that is supported passes the same tests on the embedded engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.oldest import OLDEST, oldest_client

PROJECT = Path(__file__).parents[2]
TESTS = "tests/engine/test_exec.py"

pytestmark = pytest.mark.e2e


def test_the_oldest_client_runs_commands(tmp_path: Path) -> None:
    # Before this environment's own client, of which it has the dependencies.
    environment = {**os.environ, "PYTHONPATH": f"{oldest_client()}:{PROJECT / 'src'}:{PROJECT}"}
    version = "import importlib.metadata as m, dagger; print(m.version('dagger-io'), dagger)"
    command = [sys.executable, "-c", version]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.split()[0] == OLDEST
    assert str(oldest_client()) in told.stdout
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    result = subprocess.run(
        [*pytest_, f"--basetemp={tmp_path}/t", TESTS],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-5000:]
