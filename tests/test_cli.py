"""The command line: quick, and every failure ends as a message with a remedy and an exit code."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from buildonce import cli
from buildonce.errors import BuildonceError, ExitCode

HEAVY = ("dagger", "grpc", "graphql", "boto3", "httpx", "starlette", "buildonce.config")


def heavy_modules(*arguments: str) -> str:
    """Which of the heavy modules a command line imports."""
    program = (
        "import sys\n"
        "from buildonce import cli\n"
        "cli.run(sys.argv[1:])\n"
        f"print('loaded:', *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.rpartition("loaded:")[2].strip()


def test_help_imports_no_area() -> None:
    assert heavy_modules("--help") == ""


def test_one_area_imports_no_other() -> None:
    assert heavy_modules("registry", "status") == ""


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == ExitCode.PASSED
    shown = capsys.readouterr().out
    for name in ("run", "setup", "doctor", "registry", "deploy"):
        assert name in shown


GROUPS = ("registry", "environments", "release", "advisories", "env")


@pytest.mark.parametrize("entry", cli.COMMANDS, ids=lambda entry: entry.name)
def test_every_listed_command_exists_and_has_an_example(
    entry: cli.Entry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([entry.name, "--help"]) == ExitCode.PASSED
    shown = capsys.readouterr().out
    assert f"buildonce {entry.name}" in shown
    # A group's examples are at its commands.
    assert "xample" in shown or entry.name in GROUPS


@pytest.mark.parametrize("arguments", [["nonsense"], ["doctor", "--nonsense"], ["registry", "x"]])
def test_a_wrong_command_line_is_wrong_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == ExitCode.USAGE
    assert "Traceback" not in capsys.readouterr().err


class RolledBack(BuildonceError):
    exit_code = ExitCode.ROLLED_BACK


Failing = Callable[[BaseException | int | None], int]


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Failing:
    """Run a command that ends in the given way; the exit code."""
    monkeypatch.setenv("BUILDONCE_CACHE", str(tmp_path))

    def run(how: BaseException | int | None) -> int:
        def build(_arguments: list[str]) -> typer.Typer:
            app = typer.Typer(pretty_exceptions_enable=False)

            @app.command()
            def command() -> int | None:
                if isinstance(how, BaseException):
                    raise how
                return how

            return app

        monkeypatch.setattr(cli, "build", build)
        return cli.run([])

    return run


@pytest.mark.parametrize(
    ("how", "code"),
    [
        (None, 0),
        (5, 5),
        (typer.Exit(4), 4),
        (KeyboardInterrupt(), 130),
        (typer.Abort(), 130),
        (BuildonceError("it broke"), 70),
        (RolledBack("it went back"), 3),
        (BaseExceptionGroup("tasks", [KeyboardInterrupt(), ValueError("noise")]), 130),
        (ExceptionGroup("tasks", [ExceptionGroup("more", [RolledBack("deep")])]), 3),
        (ValueError("a mistake of ours"), 70),
    ],
    ids=repr,
)
def test_how_it_ends_is_the_exit_code(
    ending: Failing, how: BaseException | int | None, code: int
) -> None:
    assert ending(how) == code


def test_a_failure_names_cause_and_remedy(
    ending: Failing, capsys: pytest.CaptureFixture[str]
) -> None:
    ending(BuildonceError("the registry is full", remedy="free some space"))
    assert capsys.readouterr().err == "error: the registry is full\n  try: free some space\n"


def test_a_mistake_of_ours_is_one_line_and_a_log(
    ending: Failing, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ending(ExceptionGroup("tasks", [ZeroDivisionError("division by zero")]))
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert "ZeroDivisionError: division by zero" in shown
    (log,) = (tmp_path / "logs").iterdir()
    assert str(log) in shown
    assert "Traceback" in log.read_text("utf-8")


def test_a_cache_that_cannot_be_made_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    monkeypatch.setenv("BUILDONCE_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("BUILDONCE_HOME", str(tmp_path / "file" / "home"))
    assert cli.run(["registry", "status"]) == ExitCode.TOOL_FAILED
    shown = capsys.readouterr().err
    assert "cannot be made" in shown
    assert "set BUILDONCE_" in shown
