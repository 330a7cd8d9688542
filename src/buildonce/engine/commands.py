"""The commands of the engine: `buildonce run | session | prune`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from buildonce.errors import BuildonceError

if TYPE_CHECKING:
    from buildonce.engine.progress.show import Mode

app = typer.Typer(no_args_is_help=True)

Progress = Annotated[
    str,
    typer.Option(
        "--progress",
        metavar="auto|tty|plain|quiet",
        envvar="BUILDONCE_PROGRESS",
        help="How to show what happens: a live tree (tty), lines (plain), nothing (quiet).",
    ),
]


@app.command(
    context_settings={"allow_interspersed_args": False},
    epilog="Example: buildonce run python ci/main.py --my-option",
)
def run(
    command: Annotated[list[str], typer.Argument(metavar="CMD...", help="The program to run.")],
    progress: Progress = "auto",
) -> None:
    """Run a program with the embedded engine: a `dagger-io` program runs unchanged.

    Everything from CMD on is the program's own. Its exit status becomes this command's.
    """
    from buildonce.engine import launching

    raise typer.Exit(launching.run(command, _mode(progress)))


@app.command(
    hidden=True, context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
)
def session(
    label: Annotated[list[str] | None, typer.Option(help="What the client says of itself.")] = None,
    workdir: Annotated[Path | None, typer.Option(help="Where relative paths start.")] = None,
    project: Annotated[Path | None, typer.Option(hidden=True)] = None,
    version: Annotated[str, typer.Option(hidden=True)] = "",
    load_workspace_modules: Annotated[bool, typer.Option(hidden=True)] = False,
    progress: Progress = "auto",
) -> None:
    """Serve one session until standard input is closed; `dagger-io` starts this by itself.

    Example: export _EXPERIMENTAL_DAGGER_CLI_BIN=$(command -v buildonce); python main.py
    """
    from buildonce.engine import launching

    if load_workspace_modules:
        raise BuildonceError(
            "the embedded engine serves no Dagger modules",
            remedy="run the program on Dagger: unset _EXPERIMENTAL_DAGGER_CLI_BIN",
        )
    if workdir:
        os.chdir(workdir)
    raise typer.Exit(launching.session(_mode("plain" if progress == "auto" else progress)))


@app.command(epilog="Example: buildonce prune --keep 10g")
def prune(
    keep: Annotated[str, typer.Option(metavar="SIZE", help="Keep this much, the newest.")] = "0",
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Delete what the engine keeps of earlier runs, cache volumes too. Running ones keep theirs."""
    import asyncio
    import json
    from dataclasses import asdict

    from buildonce.engine import pruning
    from buildonce.engine.machine import engine_options

    kept = pruning.size(keep)

    def tell(so_far: pruning.Pruned) -> None:
        typer.echo(f"{so_far} so far …", err=True)

    async def work() -> pruning.Pruned:
        options = await engine_options(os.environ)
        return await pruning.prune(options, keep=kept, on_progress=tell)

    done = asyncio.run(work())
    typer.echo(json.dumps(asdict(done)) if as_json else done)


def _mode(name: str) -> Mode:
    from buildonce.engine.launching import mode_called
    from buildonce.engine.progress.show import MODES

    if mode := mode_called(name):
        return mode
    raise typer.BadParameter(f"{name!r}: choose one of {', '.join(MODES)}")
