"""A whole run without an engine: what is recorded, shown, and what it exits with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Any

import anyio
import dagger
import pytest

from buildonce.errors import BuildonceError, ExitCode
from buildonce.ledger import Event, Ledger
from buildonce.pipeline import Pipeline
from buildonce.release import Image, Release
from buildonce.stages import Check, Failure

CONFIG = """\
[project]
name = "app"
repository = "registry.test/app"

[stages.commit]
budget = "30s"

[environments.development]
port = 8101
deploy = "on-demand"

[environments.staging]
port = 8102

[environments.production]
port = 8103
after = "staging"

[ledger]
path = "ledger.sqlite"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "pipeline.toml").write_text(CONFIG)
    (root / ".gitignore").write_text("out/\n*.sqlite*\n")
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.test"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    monkeypatch.chdir(root)
    monkeypatch.delenv("BUILDONCE_PROFILE", raising=False)
    return root


def unconnected() -> AbstractAsyncContextManager[object]:
    return nullcontext()


def run(body: Callable[[Pipeline], Awaitable[None]]) -> int:
    """The exit code of a pipeline with this body."""

    async def main() -> None:
        async with Pipeline.from_config("pipeline.toml", connect=unconnected) as pipeline:
            await body(pipeline)

    try:
        anyio.run(main)
    except SystemExit as end:
        assert isinstance(end.code, int)
        return end.code
    return 0


def events(root: Path) -> list[Event]:
    async def read() -> list[Event]:
        async with Ledger.open(root / "ledger.sqlite", read_only=True) as ledger:
            return await ledger.events()

    return anyio.run(read)


def summary(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "out/summary.json").read_text())
    return found


async def passes() -> Check:
    return Check("passes", True, "fine")


async def fails() -> Check:
    return Check("fails", False, "1 failed", (Failure("tests/test_a.py::test_b", "no"),))


def test_a_run_is_in_the_ledger_from_beginning_to_end(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def body(pipeline: Pipeline) -> None:
        async with pipeline.stage("commit"), pipeline.parallel() as checks:
            checks.start(passes)

    assert run(body) == 0
    assert [event.kind for event in events(project)] == [
        "run.started",
        "stage.started",
        "check.finished",
        "stage.finished",
        "run.finished",
    ]
    assert events(project)[-1].data["result"] == "passed"
    assert summary(project)["result"] == "passed"
    assert (project / "out/junit.xml").exists()
    assert "passed (exit code 0)" in capsys.readouterr().out


def test_a_failed_check_ends_it_with_1_and_names_the_test(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def body(pipeline: Pipeline) -> None:
        async with pipeline.stage("commit"), pipeline.parallel() as checks:
            checks.start(fails)
            checks.start(passes)
        raise AssertionError("the gate was open")

    assert run(body) == ExitCode.CHECK_FAILED
    assert events(project)[-1].data["result"] == "check-failed"
    screen = capsys.readouterr().out
    assert "tests/test_a.py::test_b: no" in screen
    assert "Traceback" not in screen
    assert not (project / "out/debug.log").exists()


def test_a_release_is_not_cut_past_a_failed_check(project: Path) -> None:
    async def body(pipeline: Pipeline) -> None:
        try:
            async with pipeline.stage("commit"), pipeline.parallel() as checks:
                checks.start(fails)
        except BuildonceError:
            pass  # somebody swallows it
        async with pipeline.stage("release"):
            await pipeline.release(dagger.dag.container())

    assert run(body) == ExitCode.CHECK_FAILED
    assert "release.created" not in [event.kind for event in events(project)]


class Refused(BuildonceError):
    exit_code = ExitCode.ROLLED_BACK


@pytest.mark.parametrize(
    ("error", "code", "result"),
    [
        (BuildonceError("no registry", remedy="start it"), 70, "tool-failed"),
        (Refused("rolled back"), 3, "rolled-back"),
        (ExceptionGroup("two", [ValueError("x"), Refused("rolled back")]), 3, "rolled-back"),
        (ZeroDivisionError("division by zero"), 70, "tool-failed"),
        (dagger.ClientConnectionError("refused"), 70, "tool-failed"),
    ],
)
def test_errors_have_exit_codes_and_no_traceback(
    project: Path, capsys: pytest.CaptureFixture[str], error: Exception, code: int, result: str
) -> None:
    async def body(pipeline: Pipeline) -> None:
        async with pipeline.stage("commit"):
            raise error

    assert run(body) == code
    assert events(project)[-1].data["result"] == result
    output = capsys.readouterr()
    assert "Traceback" not in output.out + output.err
    problem = summary(project)["problem"]
    assert problem["message"] in output.out
    unexpected = not isinstance(error, BuildonceError | ExceptionGroup)
    assert (project / "out/debug.log").exists() == unexpected


def test_a_mistake_in_the_configuration_ends_it_before_it_begins(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "pipeline.toml").write_text(CONFIG.replace("port = 8102", "prot = 8102"))

    async def body(pipeline: Pipeline) -> None:
        raise AssertionError("it began")

    assert run(body) == ExitCode.USAGE
    assert "pipeline.toml:13: environments.staging.prot: unknown key" in capsys.readouterr().out
    assert not (project / "ledger.sqlite").exists()


def test_an_engine_that_is_not_there_is_told_with_the_command_to_type(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Unreachable:
        async def __aenter__(self) -> None:
            raise dagger.ClientConnectionError("nobody answers")

        async def __aexit__(self, *_: object) -> None: ...

    async def main() -> None:
        async with Pipeline.from_config("pipeline.toml", connect=Unreachable):
            raise AssertionError("it began")

    with pytest.raises(SystemExit) as end:
        anyio.run(main)
    assert end.value.code == ExitCode.TOOL_FAILED
    assert "buildonce run python ci/main.py" in capsys.readouterr().out


def release(pipeline: Pipeline) -> Release:
    image = Image("registry.test/app", "sha256:" + "ab" * 32)
    revision = pipeline.revision
    return Release(
        revision.version, revision.commit, image, revision.committed, pipeline.config.digest
    )


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ("development", "pipeline.toml:10: development is deployed on demand"),
        ("production", "production comes after staging, where this release ("),
        ("produktion", "did you mean 'production'?"),
    ],
)
def test_a_pipeline_deploys_only_where_it_may(
    project: Path, capsys: pytest.CaptureFixture[str], environment: str, message: str
) -> None:
    async def body(pipeline: Pipeline) -> None:
        async with pipeline.stage("production"):
            await pipeline.deploy(release(pipeline), to=environment)

    assert run(body) == ExitCode.USAGE
    assert message in capsys.readouterr().out
    assert not any(event.kind.startswith("rollout") for event in events(project))


def test_what_belongs_to_a_stage_is_refused_outside_of_one(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def body(pipeline: Pipeline) -> None:
        async with pipeline.parallel() as checks:
            checks.start(passes)

    assert run(body) == ExitCode.TOOL_FAILED
    assert "belong to a stage, and none is running" in capsys.readouterr().out

    async def nested(pipeline: Pipeline) -> None:
        async with pipeline.stage("a"), pipeline.stage("b"):
            pass

    assert run(nested) == ExitCode.TOOL_FAILED
    assert "the stage b begins inside the stage a" in capsys.readouterr().out


def test_options_that_no_check_took_are_noted(project: Path) -> None:
    with (project / "pipeline.toml").open("a") as file:
        file.write("[checks.pases]\nlimit = 3\n")

    async def body(pipeline: Pipeline) -> None:
        async with pipeline.stage("commit"), pipeline.parallel() as checks:
            checks.start(passes)

    assert run(body) == 0
    (note,) = summary(project)["notes"]
    assert note.startswith("pipeline.toml:21: no check is called 'pases'")


PROGRAM = """
import sys
from contextlib import nullcontext
import anyio
from buildonce.errors import BuildonceError
from buildonce.pipeline import Pipeline

async def slow():
    print("running", flush=True)
    try:
        await anyio.sleep(60)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.3)
            print("put back", flush=True)

async def main():
    async with Pipeline.from_config("pipeline.toml", connect=nullcontext) as pipeline:
        async with pipeline.stage("commit"):
            async with pipeline.parallel() as checks:
                checks.start(slow)

anyio.run(main)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_puts_back_what_was_begun_and_ends_with_130(
    project: Path, number: signal.Signals, times: int
) -> None:
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "running\n"
        for _ in range(times):
            os.kill(process.pid, number)
            time.sleep(0.1)
        out, err = process.communicate(timeout=20)
    assert process.returncode == ExitCode.INTERRUPTED
    assert "put back" in out
    assert f"interrupted by {number.name}" in out
    assert "Traceback" not in out + err
    found = {event.kind: event.data for event in events(project)}
    assert found["check.finished"]["result"] == "cancelled"
    assert found["stage.finished"]["result"] == "cancelled"
    assert found["run.finished"]["result"] == "interrupted"


def test_a_folder_for_reports_that_cannot_be_is_told(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def body(pipeline: Pipeline) -> None:
        raise AssertionError("not reached")

    (project / "out").write_text("a file")
    assert run(body) == ExitCode.TOOL_FAILED
    shown = capsys.readouterr().out
    assert "out: File exists" in "".join(shown.split("\n")).replace(" " * 2, " ")
    assert "move away what is there" in shown
    assert "Traceback" not in shown


def test_reports_that_cannot_be_written_are_told_and_the_run_is_kept(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def body(pipeline: Pipeline) -> None:
        shutil.rmtree(project / "out")
        (project / "out").write_text("a file")

    assert run(body) == ExitCode.TOOL_FAILED
    shown = capsys.readouterr().out
    assert "Not a directory" in shown
    assert "Traceback" not in shown
    assert events(project)[-1].data["result"] == "passed"


def test_signals_are_heard_before_the_ledger_has_the_run(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[str, bool]] = []
    append = Ledger.append

    async def watched(self: Ledger, kind: str, **rest: Any) -> Event:
        event = await append(self, kind, **rest)
        heard.append((kind, signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL))
        return event

    async def body(pipeline: Pipeline) -> None:
        pass

    monkeypatch.setattr(Ledger, "append", watched)
    assert run(body) == ExitCode.PASSED
    assert heard[0] == ("run.started", True)
