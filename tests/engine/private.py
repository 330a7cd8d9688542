"""`buildonce run` on a cache of its own, and what it must not leave on the machine.

private = Private(tmp_path / "cache", rootfs)
running = private.start(PROGRAM)            # buildonce run python -c PROGRAM
answers = running.wait()                    # [{"answer": …}, {"error": "QueryError", …}]
assert private.leftovers() == []
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from buildonce.toolchain import find

BUILDONCE = Path(sys.executable).parent / "buildonce"
LIMIT = 120.0  # seconds that no run may take

# What every program begins with; `ask` prints one line of JSON, whatever the answer.
PRELUDE = """
import asyncio, json, sys, traceback
import dagger
from dagger import dag

def base():
    rootfs = dag.host().directory(sys.argv[1])
    return dag.container().with_rootfs(rootfs).with_env_variable("PATH", "/bin")

def sh(script):
    return base().with_exec(["sh", "-c", script])

def say(**what):
    print(json.dumps(what), flush=True)

async def ask(question):
    try:
        say(answer=await question)
    except dagger.DaggerError as error:
        told = [str(error), getattr(error, "stderr", "")]
        say(error=type(error).__name__, message=" ".join(filter(None, told)))

def run(main):
    async def connected():
        async with dagger.connection(dagger.Config(execute_timeout=None, retry=None)):
            await main()
    asyncio.run(connected())
"""
# One command, asked for without the client, which takes a second of the processor to load.
HELLO = """
import base64, json, os, sys, urllib.error, urllib.request

def ask(query):
    login = base64.b64encode(f"{os.environ['DAGGER_SESSION_TOKEN']}:".encode()).decode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{os.environ['DAGGER_SESSION_PORT']}/query",
        json.dumps({"query": query}).encode(),
        {"Content-Type": "application/json", "Authorization": f"Basic {login}"},
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        told = json.load(answer)
    for error in told.get("errors", []):
        print(json.dumps({"error": "QueryError", "message": error["message"]}))
        sys.exit()
    return told["data"]

rootfs = ask("{host{directory(path:%s){id}}}" % json.dumps(sys.argv[1]))["host"]["directory"]["id"]
hello = 'withEnvVariable(name:"PATH",value:"/bin"){withExec(args:["echo","hello"]){stdout}}'
told = ask("{container{withRootfs(directory:%s){%s}}}" % (json.dumps(rootfs), hello))
answer = told["container"]["withRootfs"]["withEnvVariable"]["withExec"]["stdout"]
print(json.dumps({"answer": answer}))
"""


class Private:
    """A cache that no other run uses, with the machine's programs.

    Args:
        cache: the folder, which need not be there.
        rootfs: for the programs' containers.
        environment: more variables.
    """

    def __init__(
        self, cache: Path, rootfs: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.cache = cache
        self.rootfs = rootfs
        self._runs: list[Run] = []
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("DAGGER_SESSION_")},
            "BUILDONCE_CACHE": str(cache),
            "BUILDONCE_PROGRESS": "plain",
            **{f"BUILDONCE_{name.upper()}": program(name) for name in ("buildkitd", "shim")},
            **(environment or {}),
        }

    def start(self, source: str, *args: str) -> Run:
        """`buildonce run python -c SOURCE ROOTFS ARGS…`."""
        command = [str(BUILDONCE), "run", sys.executable, "-c", source, str(self.rootfs), *args]
        self._runs.append(Run(command, self.environment))
        return self._runs[-1]

    def close(self) -> None:
        """End what a test that failed has left running."""
        for run in self._runs:
            if run.process.poll() is None:
                run.process.terminate()
                run.wait()

    def ask(self, source: str, *args: str) -> list[dict[str, Any]]:
        """What a program's questions are answered."""
        return self.start(source, *args).wait()

    @property
    def daemon(self) -> int:
        """The daemon's process."""
        return int(self._state()["pid"])

    @property
    def watcher(self) -> int:
        """The process that looks after the daemon."""
        return int(self._state()["watcher"])

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.cache / "buildkit/daemon.json").read_text())
        return state

    def leftovers(self) -> list[str]:
        """Processes, mounts, networks and locks that outlive the runs; waits a little for none."""
        for _ in range(1200):
            if not (found := list(self._left())):
                break
            time.sleep(0.05)
        return found

    def _left(self) -> Iterator[str]:
        mark = f"BUILDONCE_CACHE={self.cache}".encode()
        path = str(self.cache).encode()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes()
                environment = (folder / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if command and (mark in environment or path in command):
                yield f"process {folder.name}: {command.replace(bytes(1), b' ').decode()[:200]}"
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            point = line.split()[4]
            if point.startswith(f"{self.cache}/buildkit/"):
                yield f"mount {point}"
        specification = self.cache / "buildkit/watcher.json"
        if specification.exists():
            yield from self._left_by_daemon(json.loads(specification.read_text()))
        locks = Path("/proc/locks").read_text()
        for name in ("users", "alive", "lock"):
            file = self.cache / "buildkit" / name
            if not file.exists():
                continue
            found = file.stat()
            device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
            if f" {device}:{found.st_ino} " in locks:
                yield f"lock {file}"

    @staticmethod
    def _left_by_daemon(specification: dict[str, Any]) -> Iterator[str]:
        temporary = specification["temporary"]
        if Path(temporary).exists():
            yield f"folder {temporary}"
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            if f" {temporary}/" in line:
                yield f"mount {line.split()[4]}"
        for above, groups, _ in os.walk("/sys/fs/cgroup"):  # others come and go meanwhile
            if specification["cgroup"] in groups:
                yield f"control group {above}/{specification['cgroup']}"
        network = specification["network"]
        if network is None:
            return
        if Path("/sys/class/net", network["bridge"]).exists():
            yield f"bridge {network['bridge']}"
        for table in ("nat", "filter"):
            listing = [network["iptables"], "-w", "10", "-t", table, "-S"]
            rules = subprocess.run(listing, capture_output=True, text=True, check=False).stdout
            for rule in rules.splitlines():
                if network["bridge"] in rule or network["subnet"] in rule:
                    yield f"iptables -t {table} {rule}"


class Run:
    """A running `buildonce run`."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.output = self.errors = ""

    def wait(self, limit: float = LIMIT) -> list[dict[str, Any]]:
        """Wait for the end; the lines that the program said.

        Raises:
            AssertionError: it did not end in time.
        """
        try:
            self.output, self.errors = self.process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            _, errors = self.process.communicate()
            raise AssertionError(f"still running after {limit} s:\n{errors[-4000:]}") from None
        return [json.loads(line) for line in self.output.splitlines() if line.startswith("{")]

    @property
    def status(self) -> int | None:
        return self.process.returncode


def program(name: str) -> str:
    """The path of a program of the machine's."""
    found = find(name)
    if found is None:
        raise AssertionError(f"these tests need {name}: run `make setup`")
    return str(found.path)


def until(condition: Callable[[], Any], limit: float = 60.0) -> Any:
    """Wait until something is the case, and answer it."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not so within {limit} s")


def children(pid: int) -> list[int]:
    """The processes that `pid` has started, its daemon excepted."""
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (thread / "children").read_text().split()]
    return [one for one in found if b"watcher" not in Path(f"/proc/{one}/cmdline").read_bytes()]


def process_with(*words: str) -> int | None:
    """The process whose arguments end with `words`."""
    wanted = "".join(f"\0{word}" for word in words).encode() + b"\0"
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (b"\0" + (folder / "cmdline").read_bytes()).endswith(wanted):
                return int(folder.name)
        except OSError:
            continue
    return None
