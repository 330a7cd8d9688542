"""`buildonce hook`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import anyio
import typer

from buildonce.hooks.checks import HOOKS

app = typer.Typer()

Name = StrEnum("Name", {name: name for name in HOOKS})  # type: ignore[misc]


@app.command()
def hook(
    name: Name = typer.Argument(help="Which check."),
    files: list[str] = typer.Argument(None, help="What is about to be committed."),
) -> int:
    """Run a check on what is about to be committed, without an engine; for `pre-commit`.

    Ends with 0 when nothing is found, with 1 when something is, with 70 when the check could not be
    done.

    Example: buildonce hook secrets
    """
    return anyio.run(HOOKS[name.value], tuple(files or ()), Path.cwd())
