"""An environment's proxy: one HAProxy process on loopback, with two slots for containers.

    proxy = Proxy(folder, name="buildonce dashboard/staging", port=8102, health_path="/healthz")
    await proxy.ensure({"a": Slot(20001, weight=100), "b": Slot(None)})   # running, and as said
    await proxy.apply({"a": Slot(20001, weight=0), "b": Slot(20002, weight=100)})
    await proxy.drained("a", within=10)

The process is a daemon and outlives this one: it is the environment. What it is told through its
socket is also written to its configuration file, so that a restart begins with the same.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE

import anyio
import anyio.to_thread

from buildonce.delivery.errors import TargetFailed
from buildonce.delivery.proxy_configuration import (
    BACKEND,
    FRONTEND,
    SLOTS,
    Slot,
    render,
    servers_of,
    weights_of,
)

_ERRORS = ("hrsp_5xx", "eresp")
_ANSWERS = ("hrsp_1xx", "hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_other", *_ERRORS)
_MAX_SOCKET_PATH = 90  # of 108 bytes: HAProxy first binds a longer, temporary name


@dataclass(frozen=True)
class ServerState:
    """What HAProxy says of a slot: `status` "UP", "DOWN", "MAINT" …; `sessions` open now.

    The rest is of the slot itself, without what stood in for it, since the proxy was started:
    `answers` were given, `errors` of these were 5xx or broken off; `milliseconds` is the mean time
    until an answer began, over the last 1024. `served` also counts what it answered as a stand-in.
    """

    status: str
    weight: int
    sessions: int
    requests: int
    answers: int = 0
    errors: int = 0
    milliseconds: float = 0.0
    served: int = 0

    @property
    def up(self) -> bool:
        """Whether HAProxy would send it requests."""
        return self.status.startswith("UP")


class Proxy:
    """The HAProxy of one environment.

    Args:
        folder: where its configuration is kept.
        name: for people who look at it ("dashboard/staging").
        port: where it listens on 127.0.0.1.
        health_path: what it asks of each container, every half second.
        binary: the haproxy executable; found when None.
    """

    def __init__(
        self, folder: Path, *, name: str, port: int, health_path: str, binary: str | None = None
    ) -> None:
        self.folder = folder
        self.name = name
        self.port = port
        self.health_path = health_path
        self._binary = binary
        self._configuration = folder / "haproxy.cfg"
        self.socket = _socket_path(folder)

    async def ensure(self, slots: Mapping[str, Slot]) -> bool:
        """Have it running with this configuration and these slots; True when it had to be started.

        Raises:
            TargetFailed: it cannot be started: no binary, or the port is taken.
        """
        description = await self._running_description()
        if description == self._description():
            await self.apply(slots)
            return False
        await self._write(slots)
        await self._start(replace=description is not None)
        return description is None

    async def apply(self, slots: Mapping[str, Slot]) -> None:
        """Tell the running proxy; takes effect with the next request."""
        await self._write(slots)
        weights = weights_of(slots)
        # Those who get traffic first, so that at no time there is nobody.
        for name, slot in sorted(slots.items(), key=lambda item: -item[1].weight):
            own, *others = servers_of(name)
            if slot.port is not None:
                commands = [
                    f"addr {server} 127.0.0.1 port {slot.port}" for server in (own, *others)
                ]
                commands += [f"state {own} ready", f"weight {own} {weights[name]}"]
            else:
                commands = [f"state {own} maint"]
            helps = slot.port is not None and slot.standby
            commands += [f"state {server} {'ready' if helps else 'maint'}" for server in others]
            for setting, server, value in (command.split(" ", 2) for command in commands):
                command = f"set server {BACKEND}/{server} {setting} {value}"
                answer = (await self._ask(command)).strip()
                if answer and "no need to change" not in answer and "changed from" not in answer:
                    raise TargetFailed(f"the proxy of {self.name} refused {command!r}: {answer}")

    async def states(self) -> dict[str, ServerState]:
        """What each slot does now; empty when the proxy does not run."""
        servers = await self._statistics(BACKEND)
        return {
            name: ServerState(
                status=servers[name]["status"],
                weight=int(servers[name]["weight"] or 0),
                sessions=sum(int(servers[n]["scur"] or 0) for n in servers_of(name)),
                requests=sum(int(servers[n]["stot"] or 0) for n in servers_of(name)),
                answers=sum(_count(servers[name], key) for key in _ANSWERS),
                errors=sum(_count(servers[name], key) for key in _ERRORS),
                milliseconds=float(_count(servers[name], "rtime")),
                served=sum(_count(servers[n], key) for n in servers_of(name) for key in _ANSWERS),
            )
            for name in SLOTS
            if name in servers
        }

    async def failed(self) -> int:
        """How many requests were answered with 5xx since it was started, by whomever."""
        rows = await self._statistics(FRONTEND)
        return sum(_count(row, "hrsp_5xx") for row in rows.values())

    async def up(self, name: str, *, within: float) -> bool:
        """Wait until the slot's health check has succeeded; False after `within` seconds."""

        async def checked() -> bool:
            state = (await self.states()).get(name)
            # After maintenance it is "UP 1/3" on trust; plain "UP" once a check has succeeded.
            return state is not None and state.status == "UP"

        return await _until(checked, within=within)

    async def drained(self, name: str, *, within: float) -> bool:
        """Wait until the slot serves nobody any more; False after `within` seconds."""

        async def idle() -> bool:
            state = (await self.states()).get(name)
            return state is None or state.sessions == 0

        return await _until(idle, within=within)

    async def running(self) -> bool:
        """Whether it answers on its socket."""
        return await self._running_description() is not None

    async def stop(self) -> None:
        """End it at once; nothing to do is no failure."""
        with contextlib.suppress(TargetFailed):
            match = re.search(r"^Pid: (\d+)$", await self._ask("show info"), re.MULTILINE)
            if match:
                pid = int(match.group(1))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
                if not await _until(self._silent, within=5):
                    os.kill(pid, signal.SIGKILL)
        self.socket.unlink(missing_ok=True)
        self._configuration.unlink(missing_ok=True)

    def _render(self, slots: Mapping[str, Slot], description: str) -> str:
        return render(
            slots,
            description=description,
            socket=self.socket,
            port=self.port,
            health_path=self.health_path,
        )

    def _description(self) -> str:
        """Names the environment and the part of the configuration that no command can change."""
        fixed = hashlib.sha256(self._render({}, "").encode()).hexdigest()[:16]
        return f"buildonce {self.name} {fixed}"

    async def _write(self, slots: Mapping[str, Slot]) -> None:
        text = self._render(slots, self._description())

        def write() -> None:
            self.folder.mkdir(parents=True, exist_ok=True)
            scratch = self._configuration.with_suffix(".new")
            scratch.write_text(text)
            scratch.replace(self._configuration)

        await anyio.to_thread.run_sync(write)

    async def _start(self, *, replace: bool) -> None:
        self._make_socket_folder()
        command = [self._executable(), "-D", "-f", str(self._configuration)]
        if replace:
            # The listening socket is handed over: no connection is refused in between.
            match = re.search(r"^Pid: (\d+)$", await self._ask("show info"), re.MULTILINE)
            if match:
                command += ["-x", str(self.socket), "-sf", match.group(1)]
        done = await anyio.run_process(
            command,
            check=False,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,
        )
        if done.returncode != 0:
            raise self._cannot_start((done.stdout + done.stderr).decode(errors="replace"))

        async def ours() -> bool:
            return await self._running_description() == self._description()

        if not await _until(ours, within=5):
            raise TargetFailed(
                f"the proxy of {self.name} started but does not answer on {self.socket}",
                remedy=f"{command[0]} -d -f {self._configuration}",
            )

    def _make_socket_folder(self) -> None:
        folder = self.socket.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():  # the folder for temporary files is everybody's
            raise TargetFailed(
                f"{folder}, where the proxy's socket goes, belongs to another user",
                remedy="set BUILDONCE_HOME to a shorter path, or TMPDIR to another folder",
            )

    def _cannot_start(self, output: str) -> TargetFailed:
        if "Address already in use" in output or "cannot bind socket" in output:
            return TargetFailed(
                f"port {self.port} of environment {self.name} is taken by another program",
                remedy=f"ss -ltnp 'sport = :{self.port}' shows it; end it, or give the environment "
                "another `port` in pipeline.toml",
            )
        alerts = [line for line in output.splitlines() if "ALERT" in line] or output.splitlines()
        return TargetFailed(
            f"the proxy of {self.name} cannot be started: {alerts[0] if alerts else 'no message'}",
            remedy=f"{self._executable()} -c -f {self._configuration}",
        )

    def _executable(self) -> str:
        if self._binary:
            return self._binary
        # The PATH of an ordinary user often lacks the sbin folders, where Debian puts it.
        path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"])
        found = shutil.which("haproxy", path=path)
        if found is None:
            raise TargetFailed("haproxy is not installed", remedy="apt-get install haproxy")
        return found

    async def _statistics(self, section: str) -> dict[str, dict[str, str]]:
        """Its counters by server; none while it does not run."""
        try:
            text = await self._ask("show stat")
        except TargetFailed:
            return {}
        rows = csv.DictReader(text.removeprefix("# ").splitlines())
        return {row["svname"]: row for row in rows if row["pxname"] == section}

    async def _silent(self) -> bool:
        return not await self.running()

    async def _running_description(self) -> str | None:
        try:
            text = await self._ask("show info")
        except TargetFailed:
            return None
        match = re.search(r"^description: (.*)$", text, re.MULTILINE)
        return match.group(1) if match else ""

    async def _ask(self, command: str) -> str:
        try:
            with anyio.fail_after(10):
                async with await anyio.connect_unix(str(self.socket)) as stream:
                    await stream.send(f"{command}\n".encode())
                    chunks = [chunk async for chunk in stream]
        except (OSError, TimeoutError, anyio.BrokenResourceError) as error:
            raise TargetFailed(
                f"the proxy of {self.name} does not answer: {error or type(error).__name__}",
                remedy="buildonce status",
            ) from error
        return b"".join(chunks).decode(errors="replace")


async def _until(condition: Callable[[], Awaitable[bool]], *, within: float) -> bool:
    """Whether the condition came to hold; looked at 20 times a second, at least once."""
    end = anyio.current_time() + within
    while not await condition():
        if anyio.current_time() >= end:
            return False
        await anyio.sleep(0.05)
    return True


def _count(row: Mapping[str, str], key: str) -> int:
    return int(row.get(key) or 0)


def _socket_path(folder: Path) -> Path:
    """Within `folder`, or, where that makes a path too long for a socket, a short one."""
    path = folder / "haproxy.sock"
    if len(os.fsencode(path)) <= _MAX_SOCKET_PATH:
        return path
    short = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"buildonce-{os.getuid()}" / f"{short}.sock"
