"""One rollout at a time: a lock on an environment that dies with the process that holds it.

    async with environment_lock(folder, run=run):
        ...

The lock is the kernel's (`flock`), so a crash or kill -9 releases it; what is written into the file
only says who holds it.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import anyio

from buildonce.delivery.errors import EnvironmentBusy

_FILE = "lock"
_LOOK_AGAIN = 0.2  # seconds


@asynccontextmanager
async def environment_lock(
    folder: Path,
    *,
    run: str,
    wait: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[None]:
    """Hold the lock of the environment whose state is in `folder`.

    Args:
        folder: made when missing.
        run: id of the run that wants it, for those who find it taken.
        wait: wait for the holder instead of failing.
        say: told once whom it waits for.

    Raises:
        EnvironmentBusy: it is taken and `wait` is false.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _FILE
    # Closed on exec (Python's default): a proxy or container started meanwhile must not inherit it.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        told = False
        while not await _acquire(descriptor):
            who = holder(folder) or "another process"
            message = f"environment {folder.name} is being deployed to by {who}"
            if not wait:
                raise EnvironmentBusy(
                    message, remedy="wait for it to end, or give --wait to wait in this command"
                )
            if not told:
                say(f"{message}; waiting")
                told = True
            await anyio.sleep(_LOOK_AGAIN)
        _write(descriptor, run)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


async def _acquire(descriptor: int) -> bool:
    # `holder` takes the lock for a moment to see whether it is free: that is not a deployment.
    for _ in range(5):
        if _try(descriptor):
            return True
        await anyio.sleep(0.01)
    return False


def holder(folder: Path) -> str | None:
    """Who holds the lock: "run … (process …, since …)"; None when it is free."""
    path = folder / _FILE
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        if _try(descriptor):
            return None
        try:
            who = json.loads(path.read_text())
            return f"run {who['run']} (process {who['pid']}, since {who['since']})"
        except (ValueError, KeyError, TypeError):
            return "another process"
    finally:
        os.close(descriptor)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(descriptor: int, run: str) -> None:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps({"run": run, "pid": os.getpid(), "since": since}).encode(), 0)
