"""The shim's own tests, and what only shows in a real process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import buildonce.engine.buildkit
from buildonce.engine.buildkit import ExecSpec, Relay
from buildonce.engine.buildkit.shim import parse_read

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]
SOURCE = Path(buildonce.engine.buildkit.__file__).parents[1] / "shim"


def run(shim: Path, out: Path, *args: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    env = options.pop("env", {})
    out.mkdir(exist_ok=True)
    spec = ExecSpec(args=args, out=str(out), **options)
    return subprocess.run(
        [str(shim)],
        env={"PATH": os.environ["PATH"], **env, "_BUILDONCE_EXEC": spec.to_json()},
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_its_own_tests(go_cache: Path) -> None:
    go = shutil.which("go")
    if go is None:
        pytest.skip("no Go toolchain on the PATH")
    env = {**os.environ, "GOFLAGS": "-mod=mod", "GOCACHE": str(go_cache)}
    result = subprocess.run(
        [go, "test", "-count=1", "./..."],
        cwd=SOURCE,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_streams_go_to_files_and_on(shim_path: Path, tmp_path: Path) -> None:
    result = run(shim_path, tmp_path / "o", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (result.returncode, result.stdout, result.stderr) == (3, b"out\n", b"err\n")
    files = {p.name: p.read_bytes() for p in (tmp_path / "o").iterdir()}
    assert files["stdout"] == b"out\n"
    assert files["stderr"] == b"err\n"
    assert files["exit"] == b"3"
    assert sorted(files["combined"].splitlines()) == [b"err", b"out"]


def test_the_specification_is_not_passed_on(shim_path: Path, tmp_path: Path) -> None:
    result = run(shim_path, tmp_path / "o", "env", env={"A": "1"})
    assert b"A=1\n" in result.stdout
    assert b"_BUILDONCE_EXEC" not in result.stdout


def test_the_host_s_settings_are_defaults(shim_path: Path, tmp_path: Path) -> None:
    host = json.dumps({"env": {"A": "host", "B": "host"}})
    env = {"A": "own", "_BUILDONCE_HOST": host}
    result = run(shim_path, tmp_path / "o", "sh", "-c", "echo $A $B; env", env=env)
    assert result.stdout.startswith(b"own host\n")
    assert b"_BUILDONCE_HOST" not in result.stdout


def test_redirects_get_a_copy(shim_path: Path, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("input")
    result = run(
        shim_path,
        tmp_path / "o",
        "sh",
        "-c",
        "cat; echo $TOKEN",
        env={"TOKEN": "hunter2"},
        stdin=str(tmp_path / "in"),
        redirect_stdout=str(tmp_path / "copy"),
        secret_env=["TOKEN"],
    )
    assert result.stdout == b"input***\n"
    assert (tmp_path / "copy").read_bytes() == b"input***\n"


def test_signals_are_forwarded(shim_path: Path, tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    script = "trap 'echo got it; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    spec = ExecSpec(args=["sh", "-c", script], out=str(tmp_path / "o"))
    process = subprocess.Popen(
        [str(shim_path)],
        env={"PATH": os.environ["PATH"], "_BUILDONCE_EXEC": spec.to_json()},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.read() == b"got it\n"
    assert process.wait(60) == 9


def test_a_child_that_keeps_the_output_open_is_not_waited_for(
    shim_path: Path, tmp_path: Path
) -> None:
    # Here the shim is not process 1, so it cannot end what the command leaves behind.
    result = run(shim_path, tmp_path / "o", "sh", "-c", "sleep 300 & echo $!")  # run waits 60 s
    assert result.returncode == 0
    os.kill(int((tmp_path / "o/stdout").read_bytes()), signal.SIGKILL)


def test_binary_output(shim_path: Path, tmp_path: Path) -> None:
    script = f"import sys; sys.stdout.buffer.write(bytes(range(256)) * 4096)  # {time.time()}"
    result = run(shim_path, tmp_path / "o", sys.executable, "-c", script)
    assert result.stdout == (tmp_path / "o/stdout").read_bytes() == bytes(range(256)) * 4096


def test_a_broken_specification(shim_path: Path) -> None:
    for text in ("", "{", '{"args": []}', "[]"):
        result = subprocess.run(
            [str(shim_path)], env={"_BUILDONCE_EXEC": text}, capture_output=True, check=False
        )
        assert result.returncode == 125
        assert result.stderr.startswith(b"buildonce: ")


def test_reading_files(shim_path: Path, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\n12\nabc")
    (tmp_path / "empty").write_bytes(b"")
    names = ["a", "none", "empty", "a/below", "."]
    result = subprocess.run(
        [str(shim_path), "read", *names], cwd=tmp_path, capture_output=True, check=True
    )
    assert parse_read(result.stdout, names) == {"a": b"\n12\nabc", "empty": b""}


def test_a_specification_is_the_same_text_for_the_same_meaning() -> None:
    one = ExecSpec(args=["a"], relays=[Relay("127.0.0.1:1", "/s")], secret_env=["B"])
    assert one.to_json() == (
        '{"args":["a"],"expect":"success",'
        '"relays":[{"listen":"127.0.0.1:1","socket":"/s"}],"secret_env":["B"]}'
    )
