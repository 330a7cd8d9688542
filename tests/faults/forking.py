"""Work in a process of its own, which may be killed or stopped, without the price of a new Python.

    child = Child(work)              # forked: `work` is an async function, its result is JSON
    child.wait()                     # Ended("done", result), ("failed", "Error: why"), ("killed")

Whoever forks runs no thread and no event loop: each piece of work has its own, in its child.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio


@dataclass(frozen=True)
class Ended:
    """How a child ended: "done", "failed", "killed" or "stopped"."""

    how: str
    result: Any = None

    @property
    def word(self) -> str:
        """For the table."""
        return str(self.result).partition(":")[0] if self.how == "failed" else self.how


class Child:
    """A forked process at work."""

    def __init__(self, work: Callable[[], Awaitable[Any]]) -> None:
        self._reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._reading)
            os._exit(_work(work, writing))
        os.close(writing)

    def wait(self) -> Ended:
        """Until it has ended, or was stopped by SIGSTOP."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            return Ended("stopped")
        with os.fdopen(self._reading, "rb") as file:
            said = file.read()
        if os.WIFSIGNALED(status):
            return Ended("killed")
        return Ended(**json.loads(said))

    def go_on(self) -> None:
        """After it was stopped."""
        os.kill(self.pid, signal.SIGCONT)


def done(work: Callable[[], Awaitable[Any]]) -> Ended:
    """Do it in a child, to its end."""
    return Child(work).wait()


def result_of(work: Callable[[], Awaitable[Any]]) -> Any:
    """What it gives; it must go well."""
    ended = done(work)
    if ended.how != "done":
        raise RuntimeError(f"{ended.how}: {ended.result}")
    return ended.result


def _work(work: Callable[[], Awaitable[Any]], writing: int) -> int:
    try:
        ended = {"how": "done", "result": anyio.run(work)}
    except BaseException as error:
        ended = {"how": "failed", "result": f"{type(error).__name__}: {error}"}
    # Smaller than what a pipe holds: whoever reads begins when this process has ended.
    os.write(writing, json.dumps(ended).encode()[:60_000])
    return 0
