"""`buildonce setup`, `doctor` and `registry`."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import anyio
import typer

from buildonce.errors import BuildonceError, ExitCode
from buildonce.toolchain.machine import Setup, failures
from buildonce.toolchain.registry import LoopbackRegistry, Status
from buildonce.toolchain.whole import write_whole

app = typer.Typer(no_args_is_help=True)
registry = typer.Typer(
    no_args_is_help=True,
    help="The loopback registry: where images live when no other registry is configured.",
)
app.add_typer(registry, name="registry")


@app.command()
def setup(
    again: bool = typer.Option(False, "--again", help="Look at everything, also when all is done."),
    profile_file: Path | None = typer.Option(
        None, "--profile-file", help="Write the name of the profile that suits this machine there."
    ),
) -> int:
    """Bring this machine to where pipelines run.

    Builds or finds the engine's programs, installs the packages that are missing (with root or
    sudo), starts the loopback registry, and makes a base image where none can be pulled. What is
    done is skipped: it is safe to repeat, and then a matter of milliseconds.

    Example: buildonce setup
    """
    here = Setup.here()
    memory = None if again else here.remembered()
    if memory is not None:
        _write_profile(profile_file, memory.profile)
        typer.echo(f"set-up: all there (profile {memory.profile or 'default'})")
        return ExitCode.PASSED
    from buildonce.toolchain.display import StepsDisplay
    from buildonce.toolchain.steps import run_steps

    with StepsDisplay() as display:
        outcomes = anyio.run(run_steps, here.steps(), display)
    if failed := failures(outcomes):
        here.forget()
        names = ", ".join(outcome.name for outcome in failed)
        raise BuildonceError(
            f"the set-up is not complete: {names}",
            remedy="follow the remedies above, then type `buildonce setup` again; "
            "`buildonce doctor` lists every part",
        )
    here.remember()
    _write_profile(profile_file, here.profile or "")
    return ExitCode.PASSED


@app.command()
def doctor(
    as_json: bool = typer.Option(False, "--json", help="Print the parts as JSON."),
) -> int:
    """List each part: found where, which version, or exactly what to type.

    Ends with 0 when pipelines can run here, with 1 when a part is missing.

    Example: buildonce doctor --json
    """
    from buildonce.toolchain.doctor import State, examine

    parts = anyio.run(examine, Setup.here())
    if as_json:
        typer.echo(json.dumps([part.to_json() for part in parts], indent=1))
    else:
        from buildonce.toolchain.display import show_parts

        show_parts(parts)
    missing = [part.name for part in parts if part.state is State.MISSING]
    if missing and not as_json:
        typer.echo(f"pipelines cannot run here yet: {', '.join(missing)}")
    return 1 if missing else ExitCode.PASSED


@registry.command()
def up() -> None:
    """Start the registry unless it runs.

    Example: buildonce registry up
    """
    status = anyio.run(partial(LoopbackRegistry.configured().up, progress=typer.echo))
    _show(status)


@registry.command()
def down() -> None:
    """Stop the registry; its images stay.

    Example: buildonce registry down
    """
    stopped = anyio.run(LoopbackRegistry.configured().down)
    typer.echo("stopped; the images stay" if stopped else "it did not run")


@registry.command()
def status(
    as_json: bool = typer.Option(False, "--json", help="Print the status as JSON."),
) -> int:
    """Say whether the registry runs, where, and where its data and log are.

    Ends with 0 when it runs, with 1 when not.

    Example: buildonce registry status --json
    """
    found = LoopbackRegistry.configured().status()
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=1))
    else:
        _show(found)
    return ExitCode.PASSED if found.running else 1


def _show(status: Status) -> None:
    if status.running:
        who = f" (process {status.pid})" if status.pid else ""
        typer.echo(f"registry: answers at {status.address}{who}, data in {status.data}")
    else:
        typer.echo(f"registry: {status.problem or f'nothing at {status.address}'}")
        typer.echo("  try: buildonce registry up")


def _write_profile(file: Path | None, profile: str) -> None:
    if file is not None and (not file.is_file() or file.read_text("utf-8").strip() != profile):
        write_whole(Path(os.fspath(file)), f"{profile}\n")
