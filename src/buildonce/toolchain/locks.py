"""One process at a time: a lock file that a crash releases by itself.

async with locked(places.cache() / "locks" / "go.lock", waiting=print):
    ...
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

_POLL_SECONDS = 0.1


@asynccontextmanager
async def locked(
    path: Path, *, waiting: Callable[[str], None] | None = None
) -> AsyncIterator[None]:
    """Hold the lock at `path`; wait for whoever holds it, saying so once.

    The file stays: removing it would let two processes hold locks on two files of one name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        told = False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if waiting and not told:
                    owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
                    waiting(f"waiting for process {owner or 'unknown'}, which does the same")
                    told = True
                await anyio.sleep(_POLL_SECONDS)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        yield
    finally:
        os.close(descriptor)  # releases the lock
