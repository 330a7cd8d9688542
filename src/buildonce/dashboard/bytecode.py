"""Compile what the dashboard imports, so that a container starts without compiling.

    python bytecode.py FOLDER MODULE...      # then run with PYTHONPYCACHEPREFIX=FOLDER

The container's user may write nothing, and the public Python image comes without bytecode even of
the standard library: each start would compile some 300 files. This bytecode is checked against no
source and holds no time, so that the same source gives the same bytes. What FOLDER already has is
kept: the dependencies are compiled once, not with every change of the source.
"""

from __future__ import annotations

import importlib
import os
import py_compile
import subprocess
import sys
from importlib.util import cache_from_source
from pathlib import Path


def imported(modules: list[str]) -> list[str]:
    """The Python files that importing the modules reads, sorted."""
    for name in modules:
        importlib.import_module(name)
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return sorted({file for file in files if file and file.endswith(".py")})


def compile_into(folder: str, files: list[str]) -> None:
    """Write the bytecode of the files under `folder`, laid out as PYTHONPYCACHEPREFIX has it."""
    sys.pycache_prefix = folder
    for file in files:
        if not Path(cache_from_source(file)).exists():
            mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
            py_compile.compile(file, doraise=True, invalidation_mode=mode)


def main() -> None:
    """Import in this process, compile in another."""
    folder, *names = sys.argv[1:]
    if names[:1] == ["--files"]:
        compile_into(folder, names[1:])
        return
    # The order of a set's constants follows the hash seed, and what marshal writes depends on
    # which strings are in use: a process with a fixed seed that imported nothing else settles both.
    command = [sys.executable, "-B", __file__, folder, "--files", *imported(names)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "0"})


if __name__ == "__main__":
    main()
