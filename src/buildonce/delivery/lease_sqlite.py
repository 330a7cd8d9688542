"""Leases on this machine, in one SQLite file; a holder that was killed is noticed at once.

    leases = SqliteLeases(places.home() / "dashboard")
    async with leases.hold("production", run=run) as lease:
        await lease.check()

Beside its row each holder keeps a file locked with the kernel's `flock`, which dies with the
process: so after kill -9 nobody waits for the lease to expire, and a holder that lives but has
stopped (a suspended machine, a debugger) loses the environment when its time is over.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread

from buildonce.delivery.clock import SYSTEM_CLOCK, Clock
from buildonce.delivery.lease_holding import TERM, Busy, StoredLeases, lost

_T = TypeVar("_T")

_LOOK_AGAIN = 0.2  # seconds
_BUSY = 10.0

_TABLE = """
CREATE TABLE IF NOT EXISTS lease (
    environment TEXT PRIMARY KEY,
    token INTEGER NOT NULL,
    run TEXT,                 -- NULL while it is free
    pid INTEGER, host TEXT, since TEXT,
    expires REAL NOT NULL
) STRICT
"""


@dataclass(frozen=True)
class _Row:
    token: int
    run: str | None
    pid: int
    host: str
    since: str
    expires: float

    def __str__(self) -> str:
        return f"run {self.run} (process {self.pid}, since {self.since})"


class SqliteLeases(StoredLeases):
    """`Leases` in the file `leases.sqlite` of a folder.

    Args:
        folder: made when missing; one for all environments of a project.
        term: how long a lease lasts without renewal.
        clock: the time.
    """

    def __init__(
        self, folder: Path, *, term: timedelta = TERM, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.path = folder / "leases.sqlite"
        super().__init__(term=term, clock=clock, every=_LOOK_AGAIN)

    async def holder(self, environment: str) -> str | None:
        """As `Leases.holder`."""
        return await self._sync(self._holder, environment)

    async def take(self, environment: str, run: str) -> _SqliteLease | Busy:
        """Take it, or say who has it; a single attempt."""
        return await self._sync(self._take, environment, run)

    async def _sync(self, work: Callable[..., _T], *args: object) -> _T:
        return await anyio.to_thread.run_sync(lambda: work(*args))

    def _take(self, environment: str, run: str) -> _SqliteLease | Busy:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _transaction(self.path) as database:
            database.execute(_TABLE)
            row = _read(database, environment)
            if row is not None and self._alive(environment, row):
                return Busy(str(row))
            token = (row.token if row else 0) + 1
            proof = self._proof(environment, token)
            proof.parent.mkdir(exist_ok=True)
            # Closed on exec (Python's default): what is started meanwhile must not inherit it.
            descriptor = os.open(proof, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            since = self.clock.now().isoformat(timespec="seconds")
            values = (environment, token, run, os.getpid(), socket.gethostname(), since)
            expires = self._expiry()
            database.execute("REPLACE INTO lease VALUES (?,?,?,?,?,?,?)", (*values, expires))
            if row is not None:
                self._proof(environment, row.token).unlink(missing_ok=True)
        return _SqliteLease(self, environment, token, expires, descriptor)

    def _holder(self, environment: str) -> str | None:
        if not self.path.exists():
            return None
        with _transaction(self.path, begin="BEGIN") as database:
            row = _read(database, environment)
        return str(row) if row is not None and self._alive(environment, row) else None

    def _alive(self, environment: str, row: _Row) -> bool:
        if row.run is None or row.expires <= self.clock.now().timestamp():
            return False
        if row.host != socket.gethostname():
            return True
        try:
            descriptor = os.open(self._proof(environment, row.token), os.O_RDWR)
        except OSError:
            return False
        try:  # shared: two who look do not take each other for the holder
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _expiry(self) -> float:
        return (self.clock.now() + self.term).timestamp()

    def _proof(self, environment: str, token: int) -> Path:
        return self.path.parent / "leases" / f"{environment}.{token}"


class _SqliteLease:
    """A lease that this process took."""

    def __init__(
        self, leases: SqliteLeases, environment: str, token: int, expires: float, descriptor: int
    ) -> None:
        self._leases = leases
        self._environment = environment
        self._token = token
        self._expires = expires
        self._descriptor = descriptor

    @property
    def token(self) -> int:
        return self._token

    async def check(self) -> None:
        await anyio.to_thread.run_sync(self._check)

    def _check(self) -> None:
        expires = self._leases._expiry()
        try:
            with _transaction(self._leases.path) as database:
                # Nobody took it while the token is the same, also when its time is over.
                kept = database.execute(
                    "UPDATE lease SET expires = ? WHERE environment = ? AND token = ?"
                    " AND run IS NOT NULL",
                    (expires, self._environment, self._token),
                ).rowcount
                other = _read(database, self._environment)
        except sqlite3.Error as error:
            now = self._leases.clock.now()
            if now.timestamp() < self._expires:
                return
            raise lost(
                self._environment, f"not renewed since {_time(self._expires)}: {error}"
            ) from error
        if not kept:
            raise lost(
                self._environment, f"{other} has it" if other and other.run else "it was released"
            )
        self._expires = expires

    async def release(self) -> None:
        await anyio.to_thread.run_sync(self._release)

    def _release(self) -> None:
        with suppress(sqlite3.Error), _transaction(self._leases.path) as database:
            database.execute(
                "UPDATE lease SET run = NULL WHERE environment = ? AND token = ?",
                (self._environment, self._token),
            )
        self._leases._proof(self._environment, self._token).unlink(missing_ok=True)
        os.close(self._descriptor)


@contextmanager
def _transaction(path: Path, *, begin: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
    database = sqlite3.connect(path, timeout=_BUSY, isolation_level=None)
    try:
        # A lease need not survive a power failure: nobody who holds one does.
        database.execute("PRAGMA synchronous = OFF")
        database.execute(begin)
        yield database
        database.execute("COMMIT")
    finally:
        database.close()  # without a COMMIT that undoes it


def _read(database: sqlite3.Connection, environment: str) -> _Row | None:
    try:
        found = database.execute(
            "SELECT token, run, pid, host, since, expires FROM lease WHERE environment = ?",
            (environment,),
        ).fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise
    return _Row(*found) if found else None


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")
