"""A buildkitd of our own, shared by all who use the same folder.

    async with daemon.start(buildkitd, cache / "buildkit", config=config) as running:
        async with Client.connect(running.address) as client:
            ...

The first to come starts it, later ones find it, the last to leave stops it and waits until it is
gone. A user that is killed leaves too: `watcher` says how.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from buildonce.engine.buildkit import watcher
from buildonce.engine.buildkit.client import Client
from buildonce.engine.buildkit.daemon_setup import (
    CannotStart,
    DaemonConfig,
    Place,
    make_folder,
    specify,
    try_exclusive,
)
from buildonce.engine.buildkit.errors import BuildkitError

START = 30.0  # seconds until a new daemon must answer
STOP = 30.0  # seconds until the last user stops waiting for the daemon to be gone
ANSWER = 10.0  # seconds for one answer, which a busy machine may take
POLL = 0.02
SPECIFICATION = "watcher.json"
ROOM = 16 << 20  # bytes free that a daemon needs to start and to tidy up


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running daemon.

    Attributes:
        address: for `Client.connect`.
        network: "bridge": containers have networks of their own; "host": they share this one's.
        network_reason: why it is "host"; "" for "bridge".
        routed: this machine reaches the addresses of its containers.
        subnet: of the bridge, with this machine at `gateway`; "" for "host".
        started: whether this user started it.
        note: what the user should know of its start; "" when all is well.
    """

    address: str
    pid: int
    network: str
    network_reason: str
    routed: bool
    subnet: str
    gateway: str
    log: Path
    started: bool
    note: str = ""


@asynccontextmanager
async def start(
    buildkitd: Path,
    folder: Path,
    *,
    config: DaemonConfig | None = None,
    log: Path | None = None,
) -> AsyncIterator[Daemon]:
    """Use the daemon of `folder` until the block ends; it is started if it does not run.

    Args:
        log: where a new daemon writes its messages; `folder`/buildkitd.log when None.

    Raises:
        CannotStart: says why, with the end of the daemon's log.
    """
    config = config or DaemonConfig()
    await anyio.to_thread.run_sync(make_folder, folder)
    place = Place(folder.resolve(), log)
    users = await _hold(place.users)
    process: subprocess.Popen[bytes] | None = None
    note = ""
    try:
        starting = await _hold(place.lock, exclusive=True)
        try:
            about = await _running(place)
            if about is None:
                await anyio.to_thread.run_sync(_clean, place)
                note = await anyio.to_thread.run_sync(_make_room, place)
                process, about = await _launch(buildkitd, place, config)
            elif about["config"] != config.digest:
                raise CannotStart(
                    f"another run uses the daemon of {folder} with another configuration",
                    remedy="wait until that run has ended, or give this one another cache "
                    "with BUILDONCE_CACHE=/another/folder",
                )
        finally:
            os.close(starting)
        yield Daemon(
            address=about["address"],
            pid=about["pid"],
            network=about["network"],
            network_reason=about["reason"],
            routed=about["routed"],
            subnet=about["subnet"],
            gateway=about["gateway"],
            log=place.log,
            started=process is not None,
            note=note,
        )
    finally:
        with anyio.CancelScope(shield=True):
            last = await anyio.to_thread.run_sync(try_exclusive, users)
            os.close(users)
            if last:
                await _gone(place, process)


async def _hold(path: Path, *, exclusive: bool = False) -> int:
    """A locked file; closing the number that is returned unlocks it."""
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        while True:
            # Not in a thread: one that waits for a lock cannot be cancelled.
            try:
                fcntl.flock(number, kind | fcntl.LOCK_NB)
                return number
            except BlockingIOError:
                await anyio.sleep(POLL)
    except BaseException:
        os.close(number)
        raise


async def _running(place: Place) -> dict[str, Any] | None:
    """What the daemon's watcher says about it; None when there is no daemon.

    Raises:
        CannotStart: there is one, but it does not answer.
    """
    deadline = time.monotonic() + START
    while await anyio.to_thread.run_sync(place.is_watched):
        state = await anyio.to_thread.run_sync(place.read_state)
        if state is not None and "address" in state and await _answers(state["address"]):
            return state
        if time.monotonic() > deadline:
            raise CannotStart(
                f"the daemon of {place.folder} runs, but does not answer",
                remedy=f"end it (its process is in {place.state}), then run the command again",
            )
        await anyio.sleep(POLL)
    return None


async def _answers(address: str) -> bool:
    try:
        async with Client.connect(address) as client:
            with anyio.fail_after(ANSWER):
                await client.info()
    except (BuildkitError, TimeoutError):
        return False
    return True


async def _launch(
    buildkitd: Path, place: Place, config: DaemonConfig
) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    specification = await anyio.to_thread.run_sync(specify, buildkitd, place, config)
    before = place.log.stat().st_size if place.log.exists() else 0
    process = await anyio.to_thread.run_sync(_spawn, place, specification)
    try:
        deadline = time.monotonic() + START
        while time.monotonic() < deadline and process.poll() is None:
            if place.socket.exists() and await _answers(place.address):
                state = await anyio.to_thread.run_sync(place.read_state)
                if state is not None and "address" in state:
                    return process, state
            await anyio.sleep(POLL)
        text = await anyio.to_thread.run_sync(_tail, place.log, before)
        raise CannotStart(
            f"buildkitd did not start; the end of {place.log}:\n{text}",
            remedy="run `buildonce doctor` to see what this machine lacks",
        )
    except BaseException:
        process.terminate()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(process.wait)
        raise


def _clean(place: Place) -> None:
    """Remove what an earlier daemon has left whose watcher could not."""
    try:
        earlier = json.loads((place.folder / SPECIFICATION).read_text())
    except (OSError, ValueError):
        return
    place.state.unlink(missing_ok=True)
    with suppress(KeyError):  # it was written by another version
        watcher.clean(earlier)


def _make_room(place: Place) -> str:
    """Drop the cache when the disk is full, and say so.

    BuildKit cannot do it: deleting anything needs room for writing down that it is deleted.

    Raises:
        CannotStart: there is no room even without the cache.
    """
    state = place.folder / "state"
    if shutil.disk_usage(place.folder).free >= ROOM:
        return ""
    if os.geteuid() == 0:
        shutil.rmtree(state, ignore_errors=True)
    else:  # much of it belongs to users of our user namespace
        subprocess.run(["rootlesskit", "rm", "-rf", str(state)], capture_output=True, check=False)
    free = shutil.disk_usage(place.folder).free >> 20
    if free < ROOM >> 20:
        raise CannotStart(
            f"no space left on device: buildkitd needs {ROOM >> 20} MiB of the disk of "
            f"{place.folder} to start, and {free} MiB are free",
            remedy=f"make room there (df -h {place.folder}), or set BUILDONCE_CACHE to a folder "
            "on another disk",
        )
    return f"the disk of {place.folder} was full; the cache there is dropped, {free} MiB are free"


def _spawn(place: Place, specification: dict[str, Any]) -> subprocess.Popen[bytes]:
    path = place.folder / SPECIFICATION
    path.write_text(json.dumps(specification))
    with place.log.open("ab", buffering=0) as log:
        # -I and -S: the user's Python settings and packages are no concern of the watcher's.
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(watcher.__file__)), str(path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=specification["environment"],
            start_new_session=True,
        )


def _tail(path: Path, start: int) -> str:
    try:
        with path.open("rb") as file:
            file.seek(start)
            lines = file.read().decode(errors="replace").splitlines()
    except OSError as error:
        return f"(no log: {error.strerror})"
    # A failure is one line and a trace of Go's stack, which tells nobody anything.
    causes = [line for line in lines if line.startswith("buildkitd: ")]
    return "\n".join(causes or lines[-15:]) or "(empty)"


async def _gone(place: Place, process: subprocess.Popen[bytes] | None) -> None:
    """Wait until the daemon that nobody uses is gone, or somebody uses it again."""
    deadline = time.monotonic() + STOP
    # Our own lock is free now, so the watcher has it within this time, or somebody else.
    grace = time.monotonic() + 2
    while time.monotonic() < deadline:
        if process is not None:
            process.poll()  # ends the zombie, if it is ours
        if not await anyio.to_thread.run_sync(place.is_watched):
            await _clean_after(place)
            return
        state = await anyio.to_thread.run_sync(place.read_state)
        if state is not None and "stopping" not in state and time.monotonic() > grace:
            return  # somebody came while we left
        await anyio.sleep(POLL)


async def _clean_after(place: Place) -> None:
    """Remove what a daemon has left whose watcher was killed."""
    starting = await _hold(place.lock, exclusive=True)
    try:
        if place.state.exists() and not await anyio.to_thread.run_sync(place.is_watched):
            await anyio.to_thread.run_sync(_clean, place)
    finally:
        os.close(starting)
