"""Running other programs: their lines as progress, their end tied to ours."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT

import anyio
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

from buildonce.errors import BuildonceError

Progress = Callable[[str], None]

_TAIL_LINES = 20
_GRACE_SECONDS = 5.0


def silent(_line: str) -> None:
    """A `Progress` that says nothing."""


async def run(
    command: Sequence[str],
    *,
    what: str,
    remedy: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> str:
    """Run `command` to its end and return its output (stdout and stderr together).

    The command is a process group of its own, without a terminal or stdin; when this call is
    cancelled the whole group is ended.

    Args:
        command: program and arguments.
        what: what the command does, for the error: "building buildkitd".
        remedy: what a user can do when it fails.
        cwd: where it runs.
        env: variables added to this process's own.
        progress: called with each line of output.

    Raises:
        BuildonceError: the command cannot be started or ends with another code than 0; carries
            the last lines of its output.
    """
    try:
        process = await anyio.open_process(
            list(command),
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise BuildonceError(
            f"{what} failed: {command[0]}: {error.strerror}", remedy=remedy
        ) from error
    lines: list[str] = []
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    try:
        if process.stdout is None:  # never: a pipe was asked for
            raise RuntimeError("no pipe to the command's output")
        rest = ""
        async for chunk in TextReceiveStream(process.stdout, errors="replace"):
            *whole, rest = (rest + chunk).replace("\r", "\n").split("\n")
            for line in whole:
                lines.append(line)
                if line.strip():
                    tail.append(line)
                    progress(line)
        if rest.strip():
            lines.append(rest)
            tail.append(rest)
            progress(rest)
        code = await process.wait()
    finally:
        await end(process)
    if code != 0:
        shown = "\n".join(f"    {line}" for line in tail)
        raise BuildonceError(
            f"{what} failed: `{' '.join(command[:4])} …` ended with {code}\n{shown}", remedy=remedy
        )
    return "\n".join(lines)


async def end(process: Process) -> None:
    """End the process's whole group, gently and then not, and reap it."""
    with anyio.CancelScope(shield=True):
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with anyio.move_on_after(_GRACE_SECONDS):
                await process.wait()
        # Descendants may have outlived their leader.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        await process.aclose()
