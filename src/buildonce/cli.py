"""The `buildonce` command: one app; every area's commands are imported only when they are called.

Each area brings `buildonce/<area>/commands.py` with `app: typer.Typer`, whose command or group has
the name given in `COMMANDS`. What they raise becomes a message and an exit code in `ending`.
"""

from __future__ import annotations

import importlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import typer

from buildonce import ending, interrupts
from buildonce.errors import ExitCode


@dataclass(frozen=True)
class Entry:
    """A command as the help lists it, and the module that has it."""

    name: str
    module: str
    help: str


COMMANDS: tuple[Entry, ...] = (
    Entry("run", "engine", "Run a Dagger program on the embedded engine."),
    Entry("session", "engine", "Serve one engine session, as `dagger session` does."),
    Entry("prune", "engine", "Delete what the engine keeps of earlier runs."),
    Entry("deploy", "delivery", "Deploy a release to an environment."),
    Entry("promote", "delivery", "Deploy a release to the environment that comes next."),
    Entry("rollback", "delivery", "Put an environment back to its previous release."),
    Entry("resume", "delivery", "Continue what a killed deployment left; revive after a reboot."),
    Entry("approve", "delivery", "Approve a release that waits for it."),
    Entry("reject", "delivery", "Refuse a release that waits for an approval."),
    Entry("status", "delivery", "Show what runs in each environment."),
    Entry("history", "delivery", "Show what ran there before."),
    Entry("diff", "delivery", "Show what sets two environments apart."),
    Entry("environments", "delivery", "Environments as a whole: remove one."),
    Entry("env", "delivery.aws", "Stacks and roles of an environment in an account: plan, apply."),
    Entry("release", "release", "Releases in the registry: list, show, verify, withdraw."),
    Entry("verify", "release", "Say whether a release may enter an environment."),
    Entry("explain", "release", "Say what a policy demands of a release, line by line."),
    Entry("rescan", "release", "Withdraw releases that a new advisory is about."),
    Entry("advisories", "advisories", "The database of known vulnerabilities: update, status."),
    Entry("hook", "hooks", "Run a check on what is about to be committed; for pre-commit."),
    Entry("setup", "toolchain", "Bring this machine to where pipelines run."),
    Entry("doctor", "toolchain", "List each part: found where, which version, or what to type."),
    Entry("registry", "toolchain", "The loopback registry: up, down, status."),
)


def build(arguments: list[str]) -> typer.Typer:
    """The app, with the real commands of the area that `arguments` call and the names of the rest.

    Listing all commands must not import them all: `buildonce --help` is then a matter of 0.1 s.
    """
    app = typer.Typer(
        name="buildonce",
        help="Build once, sign it, promote the same digest everywhere.",
        epilog="`buildonce COMMAND --help` has an example of each.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # plain text: the same on every terminal, and half the time
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    area = _area(arguments)
    loaded = False
    for entry in COMMANDS:
        if not _exists(entry):
            continue
        if entry.module != area:
            app.command(entry.name, short_help=entry.help)(_only_listed)
        elif not loaded:
            app.add_typer(importlib.import_module(f"buildonce.{area}.commands").app)
            loaded = True
    return app


def _area(arguments: list[str]) -> str | None:
    called = next((word for word in arguments if not word.startswith("-")), None)
    return next((entry.module for entry in COMMANDS if entry.name == called), None)


def _only_listed() -> None:
    raise AssertionError("a command of an area that was not called")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"buildonce {version('buildonce')}")
        raise typer.Exit


def _root(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass


def run(arguments: list[str]) -> int:
    """Run the command line; the exit code. Every failure has become a message on stderr."""
    return ending.exit_code(lambda: _call(arguments))


def _call(arguments: list[str]) -> object:
    command: Any = typer.main.get_command(build(arguments))
    interrupts.raise_again()  # all is loaded
    if _area(arguments) not in (None, "engine"):
        _prepare_environment()
    try:
        return command.main(args=arguments, prog_name="buildonce", standalone_mode=False)
    except typer.Abort:
        return ExitCode.INTERRUPTED
    except Exception as error:
        if not isinstance(error, _UsageMistake):
            raise
        error.show()
        return error.exit_code


@runtime_checkable
class _UsageMistake(Protocol):
    """What typer raises for a wrong command line; its class has no public name."""

    exit_code: int

    def show(self) -> None: ...


def _prepare_environment() -> None:
    """Let every podman below us work on machines where it needs a configuration of ours."""
    from buildonce.toolchain.containers import environment

    with suppress(OSError):  # a full disk: commands that need no podman go on
        for name, value in environment().items():
            os.environ.setdefault(name, value)


def _exists(entry: Entry) -> bool:
    # Looked up as a file: `find_spec` would import the area.
    folder = Path(__file__).parent.joinpath(*entry.module.split("."))
    return (folder / "commands.py").is_file()
