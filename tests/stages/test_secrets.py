"""What is made of gitleaks' report; and its rules, on secrets that are made here, run by run."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from buildonce.stages.secrets import RULES, Leak, findings_in_messages, findings_of
from tests.planted.leaks import Maker, harmless, planted


def leak(file: str, line: int = 1, commit: str = "", date: str = "") -> Leak:
    named = f"{commit}:{file}:github-pat:{line}" if commit else f"{file}:github-pat:{line}"
    return Leak(
        RuleID="github-pat", Description="a token", File=file, StartLine=line, Commit=commit,
        Date=date, Match="t = REDACTED", Fingerprint=named,
    )  # fmt: skip


def test_a_secret_in_files_and_history_is_told_once_and_an_older_one_for_itself() -> None:
    tree = [leak("/scan/tree/source/a.py", 3)]
    history = [
        leak("a.py", 3, "b" * 40, "2026-02-01T00:00:00Z"),
        leak("a.py", 3, "a" * 40, "2026-01-01T00:00:00Z"),
        leak("gone.py", 1, "c" * 40, "2026-01-05T00:00:00Z"),
    ]
    now, before, gone = findings_of(tree, history)
    assert (now.path, now.line, now.severity, now.cwe) == ("a.py", 3, "critical", ("CWE-798",))
    assert "in the files, since bbbbbbbb" in now.message
    assert "in the history: aaaaaaaa" in before.message
    assert "in the history: cccccccc" in gone.message
    # A waiver of one, by whatever name of its own, covers no other.
    assert len({now.fingerprint, before.fingerprint, gone.fingerprint}) == 3
    assert now.aliases == ("a.py:github-pat:3",)
    assert before.aliases == (f"{'a' * 40}:a.py:github-pat:3",)


def test_a_secret_in_a_message_is_told_by_its_commit() -> None:
    objects = f"1\nobject {'a' * 40}\n4\nobject {'b' * 40}\n9\nobject {'b' * 40}\n"
    first, second = findings_in_messages(
        [leak("messages", 5), leak("messages", 3), leak("messages", 10)], objects
    )
    assert "in the message of aaaaaaaa" in first.message
    assert "in the message of bbbbbbbb" in second.message
    assert (first.path, first.line) == (None, None)
    assert first.fingerprint != second.fingerprint


@pytest.mark.e2e
def test_planted_secrets_are_found_and_look_alikes_are_not(tmp_path: Path) -> None:
    import anyio

    from buildonce.toolchain import ensure

    gitleaks = anyio.run(ensure, "gitleaks").path
    maker = Maker(20261121)
    secrets = {secret.path: secret for secret in planted(maker)}
    alike = harmless(maker)
    for name, text in [*((s.path, s.text) for s in secrets.values()), *alike.items()]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    report = tmp_path / "report.json"
    done = subprocess.run(
        [gitleaks, "dir", tmp_path, "--config", RULES, "--redact=100", "--ignore-gitleaks-allow",
         "--no-banner", "--exit-code", "42", "--report-format", "json", "--report-path", report],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 42, done.stderr
    text = report.read_text("utf-8")
    hit = {Path(found["File"]).relative_to(tmp_path).as_posix() for found in json.loads(text)}
    assert (sorted(secrets.keys() - hit), sorted(alike.keys() & hit)) == ([], [])
    assert not [path for path, secret in secrets.items() if secret.value in text]
