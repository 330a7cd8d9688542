"""The program that a session is served to: started, signalled, waited for, never left behind.

    child = await Child.start(["python", "main.py"], environment, display)
    with child.signals():
        code = await child.wait()

Signals for `buildonce` are signals for the program: the first is handed on and gives it ten
seconds, a second one ends it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import struct
import sys
import termios
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from buildonce.errors import BuildonceError

GRACE = 10.0  # seconds between a signal and SIGKILL
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PRCTL, _PR_SET_PDEATHSIG = ctypes.CDLL(None).prctl, 1
_DRAIN = 0.3  # seconds for output that background processes of the program still hold open
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as shells have it

Output: TypeAlias = Callable[[bytes], Awaitable[None]]


class CommandNotStarted(BuildonceError):
    """The command is not there, or is not a program.

    Attributes:
        status: the exit status that shells use for it.
    """

    def __init__(self, message: str, *, remedy: str, status: int) -> None:
        super().__init__(message, remedy=remedy)
        self.status = status


class Child:
    """A running program; made by `start`."""

    def __init__(
        self, process: asyncio.subprocess.Process, *, own_group: bool, screen: _Screen | None
    ) -> None:
        self._process = process
        self._own_group = own_group
        self._screen = screen
        self._signalled = 0
        self._cleaner: asyncio.Task[object] | None = None
        self._grace: asyncio.TimerHandle | None = None
        self.interrupted = False

    @classmethod
    async def start(
        cls, command: Sequence[str], environment: Mapping[str, str], output: Output | None
    ) -> Child:
        """Start `command` with this process' terminal or pipes.

        Args:
            output: where its output on the terminal goes, through a terminal of its own; output
                that is not to the terminal stays as it is. None: nothing is changed.

        Raises:
            CommandNotStarted: says why.
        """
        # A program that shares our terminal for input must stay in the terminal's foreground
        # group, which is ours: Ctrl-C then reaches it without us. Any other gets a group of its
        # own, so that its own children can be signalled with it.
        own_group = not _has_terminal()
        screen = _Screen.open() if output else None
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                env=dict(environment),
                stdout=screen.slave if screen and sys.stdout.isatty() else None,
                stderr=screen.slave if screen else None,
                process_group=0 if own_group else None,
                preexec_fn=_die_with_us,
            )
        except OSError as error:
            if screen:
                screen.close()
            raise not_started(command[0], error) from None
        if screen and output:
            screen.pump(output)
        return cls(process, own_group=own_group, screen=screen)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> int:
        """Wait for its end; the exit status as shells have it (128 + signal)."""
        code = await self._process.wait()
        if self._grace:
            self._grace.cancel()
        if self.interrupted:
            self._kill_group()  # what it started and did not take with it
        if self._screen:
            await self._screen.drain()
        return code if code >= 0 else 128 - code

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Hand signals on to the program inside the block.

        One that comes when the program has ended cancels the task that is in the block.
        """
        loop = asyncio.get_running_loop()
        self._cleaner = asyncio.current_task()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._signal, number)
        loop.add_signal_handler(signal.SIGWINCH, self._resized)
        try:
            yield
        finally:
            for number in (*_SIGNALS, signal.SIGWINCH):
                loop.remove_signal_handler(number)

    def _signal(self, number: signal.Signals) -> None:
        self.interrupted = True
        self._signalled += 1
        if self._process.returncode is not None:
            if self._cleaner:
                self._cleaner.cancel()
            return
        if self._signalled > 1:
            self.kill()
            return
        # From a terminal, Ctrl-C has reached a program in our group already.
        if self._own_group or number != signal.SIGINT:
            self._send(number)
        loop = asyncio.get_running_loop()
        self._grace = loop.call_later(GRACE, self.kill)

    def _send(self, number: signal.Signals) -> None:
        # Never through `Process.send_signal`: it reaps a program that has just ended, and its exit
        # status is lost to the loop that waits for it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._own_group:
                os.killpg(self.pid, number)
            elif self._process.returncode is None:
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it and all that it started, at once."""
        self.interrupted = True
        for pid in descendants(self.pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        self._send(signal.SIGKILL)

    def _kill_group(self) -> None:
        if self._own_group:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def _resized(self) -> None:
        if self._screen:
            self._screen.resize()


def _die_with_us() -> None:
    # However we end, a program without its session must not stay.
    _PRCTL(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


class _Screen:
    """A terminal of the program's own, whose output we read."""

    def __init__(self, master: int, slave: int) -> None:
        self._master = master
        self.slave = slave
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def open(cls) -> _Screen:
        master, slave = os.openpty()
        with contextlib.suppress(termios.error):
            termios.tcsetattr(slave, termios.TCSANOW, termios.tcgetattr(2))
        os.set_blocking(master, False)
        screen = cls(master, slave)
        screen.resize()
        return screen

    def resize(self) -> None:
        """Make it as large as the real one."""
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(2)
            packed = struct.pack("HHHH", size.lines, size.columns, 0, 0)
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, packed)

    def pump(self, output: Output) -> None:
        """Read until the program has closed it."""
        os.close(self.slave)
        self.slave = -1
        self._task = asyncio.create_task(self._pump(output))

    async def _pump(self, output: Output) -> None:
        loop = asyncio.get_running_loop()
        while True:
            readable = loop.create_future()
            loop.add_reader(self._master, _done, readable)
            try:
                await readable
            finally:
                loop.remove_reader(self._master)
            try:
                data = os.read(self._master, 64 << 10)
            except BlockingIOError:
                continue
            except OSError:  # EIO: nobody has the other end any more
                return
            if not data:
                return
            await output(data)

    async def drain(self) -> None:
        """Take what is left, and close."""
        if self._task:
            await asyncio.wait([self._task], timeout=_DRAIN)
            self._task.cancel()
            await asyncio.wait([self._task])
        self.close()

    def close(self) -> None:
        for descriptor in (self._master, self.slave):
            if descriptor >= 0:
                os.close(descriptor)
        self._master = self.slave = -1


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _has_terminal() -> bool:
    """Whether standard input is a terminal whose foreground group is ours."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    return False


def descendants(pid: int) -> list[int]:
    """The processes that `pid` started, and they in turn; those that left its group as well."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError, ValueError, IndexError):
                # The second field is the name, in parentheses, and may hold anything.
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = []
    pending = [pid]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += below
    return found


def not_started(name: str, error: OSError) -> CommandNotStarted:
    """The reason why a program could not be run, as a user has it."""
    anywhere = "/" in name or shutil.which(name, mode=os.F_OK)
    if isinstance(error, PermissionError) and not anywhere:
        error = FileNotFoundError()  # a folder of the PATH that nobody may look into says so too
    match error:
        case FileNotFoundError() if "/" in name and Path(name).exists():
            return CommandNotStarted(
                f"{name}: its interpreter (first line, after #!) is not there",
                remedy=f"head -1 {name}",
                status=NOT_FOUND,
            )
        case FileNotFoundError() | NotADirectoryError():
            return CommandNotStarted(
                f"{name}: command not found",
                remedy="check the spelling, or activate the environment that has it",
                status=NOT_FOUND,
            )
        case PermissionError():
            return CommandNotStarted(
                f"{name}: not executable", remedy=f"chmod +x {name}", status=NOT_EXECUTABLE
            )
    return CommandNotStarted(
        f"{name}: cannot be run: {error.strerror}",
        remedy=f"file {name}",
        status=NOT_EXECUTABLE,
    )
