"""Programs that are Python packages, each in a virtual environment of its own in the user's cache.

    folder = await ensure_python_tool("semgrep", progress=print)     # …/bin
    subprocess.run([folder / "semgrep", "--version"])

Installed by hash from the lists that the containers' environments are made of
(`stages/scanners/<name>.txt`), so that a hook on a laptop says what the pipeline will say.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from functools import partial
from pathlib import Path

import anyio

from buildonce import places
from buildonce.errors import BuildonceError
from buildonce.toolchain.locks import locked
from buildonce.toolchain.processes import Progress, run, silent
from buildonce.toolchain.table import SOURCES

_LISTS = SOURCES / "stages" / "scanners"
_WHOLE = "whole"


def find_python_tool(name: str) -> Path | None:
    """The folder with the programs of the list `name`, if it is installed."""
    folder = _folder(name)
    return folder / "bin" if (folder / _WHOLE).is_file() else None


async def ensure_python_tool(name: str, *, progress: Progress = silent) -> Path:
    """The folder with the programs of the list `name`, installed when they are not there.

    Raises:
        BuildonceError: there is no such list, or it cannot be installed.
    """
    if found := find_python_tool(name):
        return found
    folder = _folder(name)
    async with locked(places.cache() / "locks" / f"{folder.name}.lock", waiting=progress):
        if found := find_python_tool(name):
            return found
        # Made at its place: programs of a virtual environment know where they stand. Isolated (-I):
        # the working directory is somebody's repository, and its `token.py` is no module of ours.
        await anyio.to_thread.run_sync(partial(shutil.rmtree, folder, ignore_errors=True))
        progress(f"installing {name}, every file checked by its hash")
        await run(
            [sys.executable, "-I", "-m", "venv", str(folder)],
            what=f"making the virtual environment {folder}",
            remedy="sudo apt-get install python3-venv",
        )
        await run(
            [
                *(str(folder / "bin" / "python"), "-I", "-m", "pip", "install", "--quiet"),
                *("--no-input", "--disable-pip-version-check", "--require-hashes"),
                *("-r", str(_list(name))),
            ],
            what=f"installing {name}",
            remedy="the Python package index must be reachable; then do this again",
            progress=progress,
        )
        (folder / _WHOLE).touch()
    return folder / "bin"


def _list(name: str) -> Path:
    file = _LISTS / f"{name}.txt"
    if not file.is_file():
        raise BuildonceError(f"there is no list of packages for {name!r} at {file}")
    return file


def _folder(name: str) -> Path:
    facts = f"{sys.version} {sys.base_prefix} ".encode() + _list(name).read_bytes()
    return places.cache() / "python" / f"{name}-{hashlib.sha256(facts).hexdigest()[:16]}"
