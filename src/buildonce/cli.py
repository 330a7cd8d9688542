"""The `buildonce` command: one app; every area's commands are imported only when they are called.

Each area brings `buildonce/<area>/commands.py` with `app: typer.Typer`, whose command or group has
the name given in `COMMANDS`. What they raise ends here: a `BuildonceError` as its message, remedy
and exit code; anything else as one line that names a log file with the traceback.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import typer

from buildonce.errors import BuildonceError, ExitCode


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
_EPILOG = "`buildonce COMMAND --help` has an example of each."


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
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    called = next((word for word in arguments if not word.startswith("-")), None)
    area = next((entry.module for entry in COMMANDS if entry.name == called), None)
    loaded = False
    for entry in COMMANDS:
        if not _exists(entry):
            continue
        if entry.module != area:
            app.command(entry.name, help=entry.help)(_only_listed)
        elif not loaded:
            app.add_typer(importlib.import_module(f"buildonce.{area}.commands").app)
            loaded = True
    return app


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


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(int(run(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run the command line; the exit code. Every failure has become a message on stderr."""
    try:
        _prepare_environment()
        command = typer.main.get_command(build(arguments))
        result = command.main(args=arguments, prog_name="buildonce", standalone_mode=False)
        return result if isinstance(result, int) else ExitCode.PASSED
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nothing to say, and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.TOOL_FAILED
    except SystemExit:
        raise
    except BaseException as error:
        if isinstance(error, _UsageMistake):
            error.show()
            return error.exit_code
        return _explain(error)


@runtime_checkable
class _UsageMistake(Protocol):
    """What typer raises for a wrong command line; its class has no public name."""

    exit_code: int

    def show(self) -> None: ...


def _explain(error: BaseException) -> int:
    causes = _leaves(error)
    if any(isinstance(cause, KeyboardInterrupt) for cause in causes):
        return ExitCode.INTERRUPTED
    expected = [cause for cause in causes if isinstance(cause, BuildonceError)]
    if expected and len(expected) == len(causes):
        for cause in expected:
            _complain(cause.message, cause.remedy)
        return expected[0].exit_code
    unexpected = next(cause for cause in causes if not isinstance(cause, BuildonceError))
    log = _write_log(error)
    _complain(
        f"buildonce itself failed: {type(unexpected).__name__}: {unexpected}",
        f"read {log}; please report it with that file",
    )
    return ExitCode.TOOL_FAILED


def _leaves(error: BaseException) -> list[BaseException]:
    """What really happened: task groups wrap failures in groups of groups."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def _complain(message: str, remedy: str | None) -> None:
    red, plain = ("\033[31m", "\033[0m") if _coloured() else ("", "")
    print(f"{red}error:{plain} {message}", file=sys.stderr)
    if remedy:
        print(f"  try: {remedy}", file=sys.stderr)


def _coloured() -> bool:
    return sys.stderr.isatty() and "NO_COLOR" not in os.environ


def _write_log(error: BaseException) -> Path:
    import tempfile
    from datetime import UTC, datetime

    from buildonce import places

    when = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    name = f"failure-{when}-{os.getpid()}.log"
    try:
        log = places.cache() / "logs" / name
        log.parent.mkdir(parents=True, exist_ok=True)
    except (BuildonceError, OSError):
        log = Path(tempfile.mkdtemp(prefix="buildonce-")) / name
    lines = [f"arguments: {sys.argv[1:]}\n", *traceback.format_exception(error)]
    log.write_text("".join(lines), "utf-8")
    return log


def _prepare_environment() -> None:
    """Let every podman below us work on machines where it needs a configuration of ours."""
    from buildonce.toolchain.containers import environment

    for name, value in environment().items():
        os.environ.setdefault(name, value)


def _exists(entry: Entry) -> bool:
    # Looked up as a file: `find_spec` would import the area.
    folder = Path(__file__).parent.joinpath(*entry.module.split("."))
    return (folder / "commands.py").is_file()
