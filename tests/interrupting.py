"""Ctrl-C at a moment of a program's start that is no time but an event: it has loaded a module."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def interrupted_at(
    module: str, command: Sequence[str], environment: Mapping[str, str], folder: Path
) -> tuple[int, str]:
    """Run a Python program and send SIGINT when `module` is loaded: exit code and stderr."""
    running = subprocess.Popen(
        command,
        env={**environment, "PYTHONPROFILEIMPORTTIME": "1"},  # says what is loaded
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr
    while (line := running.stderr.readline()).rpartition("|")[2].strip() != module:
        assert line, f"{module} was not loaded"
    os.kill(running.pid, signal.SIGINT)
    _, said = running.communicate(timeout=60)
    return running.returncode, said
