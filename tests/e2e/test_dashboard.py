"""The dashboard as a process of its own: how it starts, stops, and looks to a browser.

To see it: BUILDONCE_SCREENSHOTS=FOLDER pytest tests/e2e/test_dashboard.py
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from tests.loopback import free_port

SAMPLE = Path(__file__).parents[1] / "dashboard" / "sample.py"
HEAVY = (
    "dagger",
    "grpc",
    "pydantic",
    "boto3",
    "graphql",
    "typer",
    "rich",
    "httpx",
    "opentelemetry",
)
DIGEST = "sha256:" + "d" * 64


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite"
    subprocess.run([sys.executable, str(SAMPLE), str(path)], check=True, timeout=60)
    return path


@contextlib.contextmanager
def serving(ledger: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = free_port()
    variables = {
        **os.environ,
        "PORT": str(port),
        "BUILDONCE_LEDGER": str(ledger),
        "BUILDONCE_ENVIRONMENT": "staging",
        "BUILDONCE_VERSION": "2026.1.1+gabcdef0",
        "BUILDONCE_DIGEST": DIGEST,
    }
    command = [sys.executable, "-m", "buildonce.dashboard"]
    process = subprocess.Popen(command, env=variables, stderr=subprocess.PIPE)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 20
        while True:
            assert process.poll() is None, process.stderr and process.stderr.read()
            try:
                get(f"{url}/healthz")
                break
            except OSError:
                assert time.monotonic() < deadline, "the dashboard did not start"
                time.sleep(0.05)
        yield url, process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310
        text: str = answer.read().decode()
        return text


def test_it_says_which_release_it_is(filled: Path) -> None:
    with serving(filled) as (url, _):
        health = json.loads(get(f"{url}/healthz"))
        assert (health["status"], health["digest"]) == ("ok", DIGEST)
        assert "2026.1.1+gabcdef0" in get(url)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_request_under_way_is_finished_before_it_exits(
    tmp_path: Path, filled: Path, stop: signal.Signals
) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(filled.read_bytes())
    with serving(path) as (url, process):
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")  # the request waits until this lock is gone
        pages: list[str] = []
        request = threading.Thread(target=lambda: pages.append(get(f"{url}/runs")))
        request.start()
        time.sleep(0.5)
        process.send_signal(stop)
        time.sleep(0.5)
        assert process.poll() is None
        holder.close()
        request.join(20)
        assert "<h1>Runs</h1>" in pages[0]
        assert process.wait(60) == 0


def test_sigterm_while_it_starts_ends_it(filled: Path) -> None:
    variables = {**os.environ, "PORT": str(free_port()), "BUILDONCE_LEDGER": str(filled)}
    command = [sys.executable, "-m", "buildonce.dashboard"]
    for delay in (0.1, 0.2, 0.3, 0.4):
        process = subprocess.Popen(command, env=variables, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        process.terminate()
        # Before Python has come to the handler, the signal itself ends it.
        assert process.wait(60) in (0, -signal.SIGTERM)


STOPPED_IN_A_CALLBACK = """
import os, signal, sys, weakref
from buildonce.dashboard.__main__ import main

class Thing:
    pass

class Finder:
    def find_spec(self, name, path, target=None):
        if name == "uvicorn":
            thing = Thing()
            kept.append(weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGTERM)))

kept = []
sys.meta_path.insert(0, Finder())
main()
"""


def test_sigterm_where_python_ignores_exceptions_ends_it_too(filled: Path) -> None:
    variables = {**os.environ, "PORT": str(free_port()), "BUILDONCE_LEDGER": str(filled)}
    process = subprocess.Popen([sys.executable, "-c", STOPPED_IN_A_CALLBACK], env=variables)
    try:
        assert process.wait(60) == 0
    finally:
        process.kill()


def test_requests_while_the_ledger_is_written_all_succeed(tmp_path: Path, filled: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(filled.read_bytes())
    from buildonce.ledger import Ledger

    async def write(stop: threading.Event) -> None:
        async with Ledger.open(path) as ledger:
            while not stop.is_set():
                await ledger.append("stage.started", run="busy", data={"stage": "commit"})
                await anyio.sleep(0.005)

    with serving(path) as (url, _):
        stop = threading.Event()
        writer = threading.Thread(target=lambda: anyio.run(write, stop))
        writer.start()
        try:
            for _ in range(100):
                get(f"{url}/healthz")
                get(f"{url}/api/environments")
        finally:
            stop.set()
            writer.join()


def test_a_wrong_port_is_wrong_usage_without_a_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "buildonce.dashboard"],
        env={**os.environ, "PORT": "http"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "PORT is 'http'" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_starts_without_what_only_the_pipeline_needs() -> None:
    script = (
        "import sys, buildonce.dashboard.app, uvicorn;"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def browse(folder: Path, *arguments: str) -> str:
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH: apt-get install chromium")
def test_a_browser_shows_the_pages(tmp_path: Path, filled: Path) -> None:
    with serving(filled) as (url, _):
        home = browse(tmp_path, "--dump-dom", url)
        assert len(re.findall(r'<section class="environment ', home)) == 2
        assert "Staging is 2 releases ahead" in home
        run = json.loads(get(f"{url}/api/runs"))["items"][2]["id"]
        assert run in browse(tmp_path, "--dump-dom", f"{url}/runs/{run}")

        folder = Path(os.environ.get("BUILDONCE_SCREENSHOTS", str(tmp_path)))
        for name, size in (("desktop", "1280,1400"), ("phone", "390,2400")):
            for scheme in ("light", "dark"):
                picture = folder / f"{name}-{scheme}.png"
                dark = 0 if scheme == "dark" else 1
                preference = f"--blink-settings=preferredColorScheme={dark}"
                browse(
                    tmp_path, f"--window-size={size}", preference, f"--screenshot={picture}", url
                )
                assert picture.read_bytes().startswith(b"\x89PNG")
                assert picture.stat().st_size > 30_000  # an unstyled or blank page is smaller
