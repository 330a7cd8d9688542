"""The program itself: what it loads, and how it ends when somebody is impatient or gone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from buildonce.engine import commands, launching
from tests.interrupting import interrupted_at

BUILDONCE = [sys.executable, "-m", "buildonce"]


def call(*arguments: str, more: Mapping[str, str] = {}, **options: object) -> tuple[int, str]:
    """Exit code and stderr of a command."""
    done = subprocess.run(
        [*BUILDONCE, *arguments],
        env={**os.environ, **more},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        **options,  # type: ignore[call-overload]
    )
    return done.returncode, done.stderr


def test_a_run_loads_no_parser_and_nothing_of_the_engine() -> None:
    joined = {"DAGGER_SESSION_PORT": "1", "DAGGER_SESSION_TOKEN": "t"}
    code, said = call("run", "true", more=joined | {"PYTHONPROFILEIMPORTTIME": "1"})
    loaded = {line.rpartition("|")[2].strip() for line in said.splitlines()}
    assert code == 0
    assert "buildonce.engine.launching" in loaded
    for heavy in ("typer", "pydantic", "anyio", "httpx", "graphql", "grpc", "dagger", "rich"):
        assert heavy not in loaded


@pytest.mark.parametrize(
    "words",
    [
        ["true"],
        ["--progress", "plain", "a", "b"],
        ["--progress=tty", "--", "a", "--help"],
        ["--", "-x"],
        ["a", "--progress", "plain"],
        ["--help"],
        ["--progress", "loud", "a"],
        ["--progress"],
        ["--progress=quiet"],
        ["--progressive=plain", "a"],
        ["--"],
        [],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("variable", ["", "quiet", "nonsense"])
def test_what_needs_no_parser_is_what_the_parser_says(
    words: list[str], variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[list[str], str]] = []

    def run(command: list[str], progress: str) -> int:
        asked.append((command, progress))
        return 0

    monkeypatch.setenv("BUILDONCE_PROGRESS", variable)
    monkeypatch.setattr(launching, "run", run)
    CliRunner().invoke(commands.app, ["run", *words])
    plain = launching.plain(words)
    assert ([plain] if plain else []) == asked


@pytest.mark.parametrize("module", ["typer.main", "buildonce.ledger.ledger"])
def test_an_interrupt_while_it_loads_is_an_exit_code(module: str, tmp_path: Path) -> None:
    code, said = interrupted_at(module, [*BUILDONCE, "status"], os.environ, tmp_path)
    assert code == 130
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("before", "after", "code", "said"),
    [
        ("", "", 130, ""),  # although whatever runs at the moment would swallow an exception
        ("", "interrupts.raise_again()", 0, "swallowed"),
        ("signal.signal(signal.SIGINT, signal.SIG_IGN)", "", 0, ""),
        ("", "interrupts.raise_again(); interrupts.leave_quietly()", 130, ""),
    ],
    ids=["quiet", "raised again", "ignored before", "quiet again"],
)
def test_an_interrupt_cannot_be_swallowed_before_the_work_begins(
    before: str, after: str, code: int, said: str
) -> None:
    program = f"""
import os, signal, time
from buildonce import interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)
{before}
interrupts.leave_quietly()
{after}
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.05)
except BaseException:
    print("swallowed", end="")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, said, "")


def test_a_reader_that_has_gone_is_no_failure() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code, said = call("--help", stdout=writing)
    os.close(writing)
    assert (code, said) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_full_disk_is_told() -> None:
    with Path("/dev/full").open("wb") as full:
        code, said = call("--help", stdout=full)
    assert code == 70
    assert "No space left on device" in said
    assert "Traceback" not in said
    assert "Exception" not in said


def test_a_folder_that_has_gone_is_told(tmp_path: Path) -> None:
    script = 'cd "$1" && rmdir "$1" && exec "$0" -m buildonce hook secrets'
    words = ["sh", "-c", script, sys.executable, str(tmp_path / "gone")]
    (tmp_path / "gone").mkdir()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "has been deleted" in done.stderr


def test_without_any_output_it_works() -> None:
    done = subprocess.run(
        ["sh", "-c", '"$0" -m buildonce --help >&- 2>&-', sys.executable], check=False
    )
    assert done.returncode == 0
