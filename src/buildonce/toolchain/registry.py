"""The loopback registry: where this machine's images live when no other registry is configured.

    registry = LoopbackRegistry.configured()
    await registry.up(progress=print)       # nothing when it runs already
    registry.status().running

It is Debian's `docker-registry` (or any `registry` of the distribution project), listening on
127.0.0.1 only, in a session of its own: it lives on after the command that started it. Where there
is none but docker works, it is a `registry:2` container.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import anyio

from buildonce import places
from buildonce.errors import BuildonceError
from buildonce.toolchain import binaries
from buildonce.toolchain.locks import locked
from buildonce.toolchain.processes import Progress, silent
from buildonce.toolchain.whole import write_whole

DEFAULT_PORT = 5080
PORT_VARIABLE = "BUILDONCE_REGISTRY_PORT"
IMAGE_VARIABLE = "BUILDONCE_REGISTRY_IMAGE"
_DEFAULT_IMAGE = "registry:2"
_START_SECONDS = 15.0
_STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Status:
    """What there is at the registry's address.

    Args:
        running: a registry that this home's `up` started answers.
        address: "127.0.0.1:5080".
        data: where the images are kept.
        log: the file it writes its log to.
        pid: its process; None when it does not run or is a container.
        problem: why it does not run although something is there; "" else.
    """

    running: bool
    address: str
    data: Path
    log: Path
    pid: int | None = None
    problem: str = ""

    def to_json(self) -> dict[str, object]:
        return {
            key: str(value) if isinstance(value, Path) else value
            for key, value in asdict(self).items()
        }


@dataclass(frozen=True)
class LoopbackRegistry:
    """The registry of one home (`places.home()`) at one port of 127.0.0.1."""

    port: int
    folder: Path

    @classmethod
    def configured(cls) -> LoopbackRegistry:
        """The registry at `BUILDONCE_REGISTRY_PORT` (5080), its data below `places.home()`."""
        value = os.environ.get(PORT_VARIABLE, str(DEFAULT_PORT))
        if not (value.isdecimal() and 0 < int(value) < 65536):
            raise BuildonceError(
                f"{PORT_VARIABLE}={value} is not a port",
                remedy=f"set {PORT_VARIABLE} to a number from 1 to 65535, or unset it",
            )
        return cls(int(value), places.home() / "registry")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "registry.log"

    def status(self) -> Status:
        """What runs there now; a few milliseconds, starts nothing."""
        owner = self._owner()
        answers = speaks_registry(self.port)
        status = Status(False, self.address, self.data, self.log)
        if answers and owner is not None:
            pid = owner.pid if owner.container is None else None
            return Status(True, self.address, self.data, self.log, pid=pid)
        if answers or _listens(self.port):
            what = "another registry" if answers else "another program"
            return Status(
                False,
                self.address,
                self.data,
                self.log,
                problem=f"{what}, not started from {self.folder}, has port {self.port}",
            )
        return status

    async def up(self, *, progress: Progress = silent) -> Status:
        """Start the registry unless it runs.

        Raises:
            BuildonceError: its port is taken, there is no registry program, or it does not start.
        """
        status = self.status()
        if status.running:
            return status
        async with locked(self.folder / "lock", waiting=progress):
            status = self.status()
            if status.running:
                return status
            if status.problem:
                raise BuildonceError(
                    f"the loopback registry cannot start: {status.problem}",
                    remedy=f"stop what listens there (`ss -ltnp 'sport = :{self.port}'` names it), "
                    f"or set {PORT_VARIABLE} to a free port and the addresses in "
                    "ci/pipeline.toml with it",
                )
            self.data.mkdir(parents=True, exist_ok=True)
            if program := binaries.find("docker-registry"):
                progress(f"starting {program.path.name} at {self.address}")
                await self._start_program(program.path)
            elif docker := shutil.which("docker"):
                progress(f"starting a registry container at {self.address}")
                await self._start_container(docker)
            else:
                raise BuildonceError(
                    "there is no registry program: neither docker-registry nor docker",
                    remedy="sudo apt-get install --no-install-recommends docker-registry",
                )
        return self.status()

    async def down(self) -> bool:
        """Stop the registry; whether there was one to stop. The data stays."""
        async with locked(self.folder / "lock"):
            owner = self._owner()
            if owner is None:
                return False
            if owner.container is not None:
                await _docker("rm", "--force", owner.container)
            else:
                await _stop(owner)
            self._pid_file.unlink(missing_ok=True)
            return True

    @property
    def _pid_file(self) -> Path:
        return self.folder / "registry.pid"

    def _owner(self) -> _Owner | None:
        """The process or container that `up` started, if it still is that one."""
        try:
            owner = _Owner(**json.loads(self._pid_file.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        if owner.port != self.port:
            return None
        if owner.container is not None:
            return owner
        return owner if _start_time(owner.pid) == owner.started else None

    async def _start_program(self, program: Path) -> None:
        configuration = self.folder / "config.yml"
        write_whole(configuration, _configuration(self.address, self.data))
        process = _spawn([str(program), "serve", str(configuration)], self.log)
        owner = _Owner(process.pid, _start_time(process.pid) or "", self.port)
        with anyio.move_on_after(_START_SECONDS):
            while process.poll() is None:
                if speaks_registry(self.port):
                    write_whole(self._pid_file, json.dumps(asdict(owner)))
                    # It lives on; nobody is to wait for it when this object goes.
                    process.returncode = 0
                    return
                await anyio.sleep(0.05)
        if process.poll() is None:
            process.kill()
            process.wait()
        raise BuildonceError(
            f"{program.name} did not start: {_last_line(self.log)}",
            remedy=f"read {self.log}, then type `buildonce registry up`",
        )

    async def _start_container(self, docker: str) -> None:
        name = f"buildonce-registry-{self.port}"
        image = os.environ.get(IMAGE_VARIABLE, _DEFAULT_IMAGE)
        await _docker("rm", "--force", name)
        answer = await _docker(
            *("run", "--detach", "--name", name, "--restart", "unless-stopped"),
            *("--publish", f"{self.address}:5000", "--volume", f"{self.data}:/var/lib/registry"),
            *("--env", "REGISTRY_STORAGE_DELETE_ENABLED=true", image),
            docker=docker,
        )
        if answer.returncode == 0:
            with anyio.move_on_after(_START_SECONDS):
                await _until_it_answers(self.port)
                owner = _Owner(0, "", self.port, container=name)
                write_whole(self._pid_file, json.dumps(asdict(owner)))
                return
        raise BuildonceError(
            f"the registry container does not start: {answer.stderr.strip()[-300:]}",
            remedy=f"make the image {image} available (or set {IMAGE_VARIABLE}), or install "
            "the program: sudo apt-get install --no-install-recommends docker-registry",
        )


@dataclass(frozen=True)
class _Owner:
    """Which process `up` started. A pid alone may be another program's after a while."""

    pid: int
    started: str
    port: int
    container: str | None = None


def speaks_registry(port: int, *, timeout: float = 2.0) -> bool:
    """Whether an OCI registry answers at 127.0.0.1:`port`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", "/v2/")
        answer = connection.getresponse()
        marked = answer.getheader("Docker-Distribution-Api-Version", "").startswith("registry/2")
        return marked and answer.status in (200, 401)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _listens(port: int) -> bool:
    # Loopback only, where a successful connect does prove that somebody listens.
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _configuration(address: str, data: Path) -> str:
    # JSON is YAML: no value can be misread, whatever the path looks like.
    return json.dumps(
        {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(data)},
                "delete": {"enabled": True},
            },
            "http": {
                "addr": address,
                "headers": {"X-Content-Type-Options": ["nosniff"]},
            },
        },
        indent=1,
    )


def _start_time(pid: int) -> str | None:
    """When the process started (clock ticks since boot, and which boot); None when it is gone."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
    except OSError:
        return None
    if after_name[0] == "Z":
        return None
    return f"{after_name[19]}@{boot}"


def _spawn(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a process that outlives this one: a session of its own, no terminal, a log file."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
            # The registry reads REGISTRY_* as configuration: only our file is to count.
            env={k: v for k, v in os.environ.items() if not k.startswith("REGISTRY_")},
        )


async def _until_it_answers(port: int) -> None:
    while not speaks_registry(port):  # noqa: ASYNC110 - another program's state has no event
        await anyio.sleep(0.1)


def _lives(owner: _Owner) -> bool:
    with suppress(ChildProcessError):  # reap it where it is our own child
        os.waitpid(owner.pid, os.WNOHANG)
    return _start_time(owner.pid) == owner.started


async def _stop(owner: _Owner) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(owner.pid, number)
        with anyio.move_on_after(_STOP_SECONDS):
            while _lives(owner):  # noqa: ASYNC110 - a foreign process has no event
                await anyio.sleep(0.05)
            return


async def _docker(*arguments: str, docker: str = "docker") -> subprocess.CompletedProcess[str]:
    def call() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [docker, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )

    return await anyio.to_thread.run_sync(call)


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").strip().splitlines() if log.is_file() else []
    return lines[-1] if lines else "it wrote nothing"
