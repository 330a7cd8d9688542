"""`buildonce run` and `buildonce session` as processes, with the real client on a fake engine."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from buildonce.engine.child import not_started
from tests.interrupting import interrupted_at
from tests.oldest import oldest_client

CONFTEST = Path(__file__).with_name("conftest.py")
# The command line of buildonce, with the fake engine of conftest.py in the place of the real one.
LAUNCHER = f"""#!{sys.executable}
from buildonce import __main__, interrupts
interrupts.leave_quietly()
import contextlib, importlib.util, os, sys, time
from buildonce.engine import child, launching
from buildonce.engine.events import VertexEvent
from buildonce.errors import BuildonceError

@contextlib.asynccontextmanager
async def open_engine(on_event):
    if os.environ.get("FAKE_ENGINE") == "broken":
        raise BuildonceError("there is no buildkitd", remedy="make setup")
    spec = importlib.util.spec_from_file_location("fake", {str(CONFTEST)!r})
    fake = importlib.util.module_from_spec(spec)
    sys.modules["fake"] = fake
    spec.loader.exec_module(fake)
    engine = fake.FakeEngine()

    class Session:
        async def execute(self, document, variables, operation, context):
            number, name = str(time.perf_counter()), os.environ.get("FAKE_NAME", "exec it")
            step = VertexEvent(number, context.parent_span, name, started=time.time())
            on_event(step)
            result = await engine.execute(document, variables, operation, context)
            error = "failed" if result.errors else None
            on_event(VertexEvent(number, context.parent_span, name, step.started,
                                 time.time(), error=error))
            return result

    yield Session()
    print("engine closed", file=sys.stderr)

launching.open_engine = open_engine
child.GRACE = float(os.environ.get("GRACE", child.GRACE))
__main__.main()
"""
PIPELINE = """
import sys, anyio, dagger
from dagger import dag
from dagger.telemetry import get_tracer

async def main():
    async with dagger.connection():
        tracer = get_tracer()
        with tracer.start_as_current_span("commit"), tracer.start_as_current_span("lint"):
            await dag.container().from_("alpine").with_exec(["true"]).stdout()
        try:
            with tracer.start_as_current_span("acceptance"):
                await dag.container().with_exec(["fail"]).stdout()
        except dagger.ExecError as error:
            print("exit code", error.exit_code)
            sys.exit(error.exit_code)

anyio.run(main)
"""


@pytest.fixture
def buildonce(tmp_path: Path) -> list[str]:
    launcher = tmp_path / "buildonce"
    launcher.write_text(LAUNCHER)
    launcher.chmod(0o755)
    return [str(launcher)]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DAGGER_", "OTEL_", "_EXPERIMENTAL", "TRACEPARENT", "BUILDONCE_"))
    }
    return kept | {"BUILDONCE_CACHE": str(tmp_path / "cache"), "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], list[str]]:
    def write(source: str) -> list[str]:
        file = tmp_path / "program.py"
        file.write_text(textwrap.dedent(source))
        return [sys.executable, str(file)]

    return write


def call(command: list[str], environment: dict[str, str], **more: Any) -> Any:
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, **more
    )


def until(condition: Callable[[], Any], seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# -- run ----------------------------------------------------------------------------------------


def test_a_pipeline_runs_and_is_shown(
    buildonce: list[str], environment: dict[str, str], program: Any
) -> None:
    done = call([*buildonce, "run", *program(PIPELINE)], environment)
    assert done.returncode == 3, done.stderr
    assert done.stdout == "exit code 3\n"
    shown = done.stderr
    assert "commit: started" in shown
    assert "commit: done in" in shown
    assert "acceptance / exec it: failed after" in shown
    assert "acceptance: failed after" in shown
    assert "1 failed" in shown.splitlines()[-1]
    assert "engine closed" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -9 $$"], 137),
        (["sh", "-c", "sleep 0.1; exit 4"], 4),
    ],
)
def test_the_exit_status_is_the_programs(
    buildonce: list[str], environment: dict[str, str], command: list[str], status: int
) -> None:
    assert call([*buildonce, "run", *command], environment).returncode == status


def test_everything_after_the_command_is_its_own(
    buildonce: list[str], environment: dict[str, str]
) -> None:
    arguments = ["--progress", "x", "--", "-h", "--help", "a b", ""]
    show = [sys.executable, "-c", "import sys, json; print(json.dumps(sys.argv[1:]))"]
    for own in (["--progress", "quiet"], ["--progress=quiet", "--"]):
        done = call([*buildonce, "run", *own, *show, *arguments], environment)
        assert json.loads(done.stdout) == arguments
        assert done.stderr == "engine closed\n" or done.stderr == ""


def test_standard_input_is_the_programs(buildonce: list[str], environment: dict[str, str]) -> None:
    done = call([*buildonce, "run", "cat"], environment, input="some text")
    assert done.stdout == "some text"


def test_commands_that_cannot_be_run(
    buildonce: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("")
    (tmp_path / "script").write_text("#!/no/such/interpreter\n")
    (tmp_path / "script").chmod(0o755)
    for name, status, message in (
        ("no-such-command", 127, "command not found"),
        (str(tmp_path / "data"), 126, "not executable"),
        (str(tmp_path / "script"), 127, "interpreter"),
        (str(tmp_path), 126, "not executable"),
    ):
        done = call([*buildonce, "run", name], environment)
        assert done.returncode == status
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_a_folder_of_the_path_that_nobody_may_look_into(tmp_path: Path) -> None:
    """What the kernel says of a program that is in none of the others."""
    assert not_started("no-such-command", PermissionError()).status == 127
    assert not_started(str(tmp_path / "program"), PermissionError()).status == 126


def test_wrong_usage(buildonce: list[str], environment: dict[str, str]) -> None:
    for arguments in ([], ["--no-such-option", "true"], ["--progress", "loud", "true"]):
        done = call([*buildonce, "run", *arguments], environment)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_a_run_within_a_run_joins_it(buildonce: list[str], environment: dict[str, str]) -> None:
    inner = "echo $DAGGER_SESSION_PORT $DAGGER_SESSION_TOKEN"
    both = f"{inner}; {buildonce[0]} run sh -c '{inner}'"
    done = call([*buildonce, "run", "sh", "-c", both], environment)
    first, second = done.stdout.splitlines()
    assert first == second != ""
    assert "joining the session" in done.stderr


def test_an_engine_that_does_not_start_is_each_querys_answer(
    buildonce: list[str], environment: dict[str, str], program: Any
) -> None:
    source = """
    import anyio, dagger
    from dagger import dag
    async def main():
        async with dagger.connection():
            try:
                await dag.container().sync()
            except dagger.QueryError as error:
                print(error)
    anyio.run(main)
    """
    done = call([*buildonce, "run", *program(source)], environment | {"FAKE_ENGINE": "broken"})
    assert done.stdout == "there is no buildkitd\n  try: make setup\n"
    assert "the engine did not start: there is no buildkitd" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_the_programs_and_all_is_released(
    buildonce: list[str], environment: dict[str, str], number: signal.Signals
) -> None:
    script = (
        "trap 'echo caught; exit 9' INT TERM HUP; echo $DAGGER_SESSION_PORT;"
        "sleep 1000 & echo $!; wait"
    )
    running = subprocess.Popen(
        [*buildonce, "run", "sh", "-c", script],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout
    port, sleeping = int(running.stdout.readline()), int(running.stdout.readline())
    time.sleep(0.3)
    running.send_signal(number)
    out, err = running.communicate(timeout=20)
    assert "caught" in out
    assert running.returncode == 9
    assert "engine closed" in err
    until(lambda: not alive(sleeping))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 1)


def test_a_second_signal_kills_at_once(buildonce: list[str], environment: dict[str, str]) -> None:
    script = (
        "trap 'echo heard' INT; setsid sleep 1000 & echo $!;"
        "while true; do sleep 0.05 <&- >&- 2>&-; done"
    )
    running = subprocess.Popen(
        [*buildonce, "run", "sh", "-c", script],
        # Nothing but the second signal can end it: not the patience that the first one starts.
        env=environment | {"GRACE": "1000"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout
    sleeping = int(running.stdout.readline())
    time.sleep(0.3)
    running.send_signal(signal.SIGINT)
    assert running.stdout.readline() == "heard\n"
    assert running.poll() is None
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=40)
    assert running.returncode == 137
    until(lambda: not alive(sleeping))


@pytest.mark.parametrize(
    "module",
    [
        *("asyncio", "logging", "buildonce.engine.otlp", "buildonce.engine.launching"),
        *("buildonce.engine.progress.live", "graphql.language", "buildonce.engine.server"),
    ],
)
def test_a_signal_before_the_client_connects_is_no_matter(
    buildonce: list[str], environment: dict[str, str], tmp_path: Path, module: str
) -> None:
    command = [*buildonce, "run", "sleep", "1000"]
    code, said = interrupted_at(module, command, environment, tmp_path)
    assert code == 130, said
    assert "Traceback" not in said
    assert "KeyboardInterrupt" not in said


def on_terminal(
    command: list[str], environment: dict[str, str], answers: dict[bytes, bytes]
) -> tuple[int, str]:
    """Run `command` on a terminal; when a key of `answers` is printed, type its value."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.clear()
        os.environ.update(environment | {"TERM": "xterm"})
        os.execv(command[0], command)  # noqa: S606
    output = b""
    end = time.monotonic() + 40
    while time.monotonic() < end:
        if not select.select([terminal], [], [], 0.2)[0]:
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:
            break
        if not data:
            break
        output += data
        for question in [key for key in answers if key in output]:
            time.sleep(0.4)
            os.write(terminal, answers.pop(question))
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output.decode()


def test_on_a_terminal_the_tree_is_live(
    buildonce: list[str], environment: dict[str, str], program: Any
) -> None:
    status, output = on_terminal([*buildonce, "run", *program(PIPELINE)], environment, {})
    assert status == 3
    last = output.rpartition("\x1b[J")[2]
    assert "✔ commit" in last
    assert "✘ acceptance" in last
    assert "exit code 3" in output
    assert "executed" in last.splitlines()[-1] or "engine closed" in last


def test_programs_may_ask_on_the_terminal(
    buildonce: list[str], environment: dict[str, str], program: Any
) -> None:
    source = """
    import os, sys
    print("terminals", sys.stdin.isatty(), sys.stdout.isatty(), sys.stderr.isatty())
    print("hello", input("who? "))
    """
    command = [*buildonce, "run", *program(source)]
    status, output = on_terminal(command, environment, {b"who? ": b"bob\n"})
    assert status == 0
    assert "terminals True True True" in output
    assert "hello bob" in output


def test_control_c_on_the_terminal(
    buildonce: list[str], environment: dict[str, str], program: Any
) -> None:
    source = """
    import time
    print("ready")
    try:
        time.sleep(1000)
    except KeyboardInterrupt:
        print("cleaned up")
        raise SystemExit(5)
    """
    command = [*buildonce, "run", *program(source)]
    status, output = on_terminal(command, environment, {b"ready": b"\x03"})
    assert status == 5
    assert "cleaned up" in output
    assert output.count("KeyboardInterrupt") == 0


# -- session ------------------------------------------------------------------------------------


def open_session(buildonce: list[str], environment: dict[str, str], *options: str) -> Any:
    return subprocess.Popen(
        [*buildonce, "session", "--label", "dagger.io/sdk.name:python", *options],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_session_serves_until_its_input_is_closed(
    buildonce: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    options = ["--label", "a:b", "--workdir", str(tmp_path), "--project", "x", "--unknown", "y"]
    running = open_session(buildonce, environment, *options)
    line = json.loads(running.stdout.readline())
    assert set(line) == {"port", "session_token"}
    socket.create_connection(("127.0.0.1", line["port"]), 5).close()
    out, err = running.communicate(timeout=20)
    assert running.returncode == 0
    assert out == ""
    assert "engine closed" in err
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", line["port"]), 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_session_ends_with_a_signal(
    buildonce: list[str], environment: dict[str, str], number: signal.Signals
) -> None:
    running = open_session(buildonce, environment)
    running.stdout.readline()
    running.send_signal(number)
    assert running.wait(20) == 0
    assert "engine closed" in running.stderr.read()


def test_a_session_without_an_engine_says_why(
    buildonce: list[str], environment: dict[str, str]
) -> None:
    running = open_session(buildonce, environment | {"FAKE_ENGINE": "broken"})
    out, err = running.communicate(timeout=20)
    assert running.returncode == 70
    assert out == ""
    assert "there is no buildkitd" in err


PROVISIONED = """
import sys, anyio, dagger
from dagger import dag

async def main():
    async with dagger.connection():
        for _ in range(int(sys.argv[1])):
            try:
                await dag.container().with_exec(["fail", "x" * 100]).stdout()
            except dagger.ExecError as error:
                code = error.exit_code
        print(dagger.__file__)
        print("exit code", code)

anyio.run(main)
"""


def provisioned(
    buildonce: list[str], environment: dict[str, str], command: list[str], queries: int
) -> Any:
    own = environment | {"_EXPERIMENTAL_DAGGER_CLI_BIN": buildonce[0]}
    return call([*command, str(queries)], own)


def test_the_client_starts_a_session_by_itself(
    buildonce: list[str], environment: dict[str, str], program: Any
) -> None:
    done = provisioned(buildonce, environment, program(PROVISIONED), 3)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("exit code 3\n")


@pytest.mark.e2e
def test_the_oldest_client_runs_and_starts_sessions(
    buildonce: list[str], environment: dict[str, str], program: Any
) -> None:
    environment["PYTHONPATH"] = str(oldest_client())
    done = call([*buildonce, "run", *program(PIPELINE)], environment)
    assert done.returncode == 3
    assert "acceptance: failed after" in done.stderr
    # It reads nothing of our standard error: 100 kB of progress must not stop the session.
    environment["FAKE_NAME"] = "exec it " + "x" * 1000
    done = provisioned(buildonce, environment, program(PROVISIONED), 100)
    assert done.returncode == 0, done.stderr
    assert str(oldest_client()) in done.stdout
    assert done.stdout.endswith("exit code 3\n")
