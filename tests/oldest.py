"""The oldest `dagger-io` that is supported, unpacked once and kept in the user's cache.

    environment["PYTHONPATH"] = str(oldest_client())

It is a folder for PYTHONPATH: the client runs on the dependencies of the installed, newest one.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

from buildonce import places

OLDEST = "0.19.0"


def oldest_client() -> Path:
    """The folder; asks the package index where it is not there yet."""
    folder = places.cache() / "tests" / f"dagger-io-{OLDEST}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", temporary]
        subprocess.run([*pip, f"dagger-io=={OLDEST}"], check=True, timeout=300)
        (wheel,) = Path(temporary).glob("*.whl")
        whole = Path(temporary, "whole")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(whole)
        with suppress(OSError):  # another process of the tests was first
            whole.rename(folder)
    return folder
