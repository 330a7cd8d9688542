"""What hooks give to their programs, and what they make of the answers."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml

from buildonce.errors import BuildonceError
from buildonce.hooks import checks
from buildonce.toolchain import ensure
from tests.planted.history import Repository
from tests.planted.leaks import Maker

ROOT = Path(__file__).parents[2]
BUILDONCE = Path(sys.executable).parent / "buildonce"
OFFERED: list[dict[str, Any]] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))

PROGRAM = """\
#!/bin/sh
printf '%s\\n' "$@" "in $(pwd)" >> {folder}/called
env | grep -E '=/dev/' >> {folder}/devices
printf '\\033[31mfound\\033[0m in a\\rb.py\\n'
exit $(cat {folder}/code)
"""


@dataclass
class Programs:
    """Programs that note how they are called."""

    folder: Path

    def end_with(self, code: int) -> None:
        (self.folder / "code").write_text(str(code))

    @property
    def called(self) -> list[str]:
        file = self.folder / "called"
        return file.read_text("utf-8").splitlines() if file.exists() else []


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("ruff", "semgrep", "cfn-lint"):
        (folder / name).write_text(PROGRAM.format(folder=shlex.quote(str(folder))))
        (folder / name).chmod(0o755)

    async def found(_name: str, **_: object) -> Path:
        return folder

    monkeypatch.setattr(checks, "ensure_python_tool", found)
    made = Programs(folder)
    made.end_with(0)
    return made


TEMPLATE = "AWSTemplateFormatVersion: '2010-09-09'\nResources: {}\n"


@pytest.mark.parametrize("name", ["lint", "sast", "infrastructure"])
@pytest.mark.parametrize(("ends", "code"), [(0, 0), (1, 1), (2, 1), (7, 70)])
def test_what_a_program_ends_with(
    programs: Programs, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    name: str, ends: int, code: int,
) -> None:  # fmt: skip
    # Findings are 1 to ruff and semgrep, and sums of 2, 4 and 8 to cfn-lint.
    if (ends, name) in ((1, "infrastructure"), (2, "lint"), (2, "sast")):
        code = 70
    files = ["-rf.yaml", "two words.yaml"]
    for file in files:
        (tmp_path / file).write_text(TEMPLATE)
    programs.end_with(ends)
    if code == 70:
        with pytest.raises(BuildonceError, match=f"exit code {ends}"):
            anyio.run(checks.HOOKS[name], files, tmp_path)
    else:
        assert anyio.run(checks.HOOKS[name], files, tmp_path) == code
    at = programs.called.index("--")
    assert programs.called[at + 1 : at + 4] == [*files, f"in {tmp_path}"]
    said = capsys.readouterr().out
    assert ("found" in said) == (code == 1)
    assert not set(said) & set("\x1b\r")


def test_no_program_is_told_to_write_to_a_device(programs: Programs, tmp_path: Path) -> None:
    """semgrep renames a new file over its settings: /dev/null was a file after that."""
    (tmp_path / "a.yaml").write_text(TEMPLATE)
    for name in ("lint", "sast", "infrastructure"):
        before = {value for value in os.environ.values() if value.startswith("/dev/")}
        anyio.run(checks.HOOKS[name], ["a.yaml"], tmp_path)
        told = (programs.folder / "devices").read_text("utf-8").splitlines()
        assert {line.partition("=")[2] for line in told} <= before, name
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.parametrize("name", ["lint", "sast", "infrastructure"])
def test_without_files_nothing_is_run(programs: Programs, tmp_path: Path, name: str) -> None:
    (tmp_path / "other.yaml").write_text("a: 1\n")
    files = ["other.yaml"] if name == "infrastructure" else []
    assert anyio.run(checks.HOOKS[name], files, tmp_path) == 0
    assert not programs.called


def test_every_offered_hook_is_one_and_takes_any_file_name() -> None:
    assert {entry["id"] for entry in OFFERED} == {f"buildonce-{name}" for name in checks.HOOKS}
    for entry in OFFERED:
        program, command, name, *rest = entry["entry"].split()
        assert (program, command) == ("buildonce", "hook")
        assert entry["id"] == f"buildonce-{name}"
        # pre-commit puts the names behind it, and one may begin with a dash.
        assert rest == ([] if entry.get("pass_filenames") is False else ["--"])


def test_a_file_whose_name_begins_with_a_dash_is_a_file(tmp_path: Path) -> None:
    for entry in OFFERED:
        if entry["id"] == "buildonce-infrastructure":
            command = [str(BUILDONCE), *entry["entry"].split()[1:], "-rf.yaml"]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
            assert done.returncode == 0, done.stderr


@pytest.mark.e2e
def test_staged_secrets_are_found_and_not_shown(tmp_path: Path) -> None:
    anyio.run(ensure, "gitleaks")
    secret = f"ghp_{Maker(7).some(36)}"
    repository = Repository(tmp_path)
    repository.write({"README.md": "harmless\n"})
    repository.commit("first")
    repository.write({"token.py": f'T = "{secret}"  # gitleaks:allow\n'})

    def hook() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BUILDONCE, "hook", "secrets"], cwd=tmp_path, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    assert hook().returncode == 0  # nothing is staged, and the history is clean
    repository.git("add", "token.py")
    done = hook()
    assert done.returncode == 1, done.stderr
    assert "token.py" in done.stdout
    assert secret not in done.stdout + done.stderr
    assert "\x1b" not in done.stdout
