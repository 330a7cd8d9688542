"""The ledger in one SQLite file, shared by writing processes and read-only readers.

The journal mode is DELETE, not WAL: a reader in a container sees the file through a read-only
mount, where WAL's shared memory cannot be made. The price is that a writer which died within a
transaction leaves a journal that only a process allowed to write can undo; a reader then waits a
moment for one and otherwise says so.

Triggers refuse UPDATE and DELETE, and INSERT of an id that is not the newest (REPLACE would delete
without firing a trigger), so that not even a wrong statement in this project changes the past.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from buildonce.ledger.errors import LedgerCorrupt, LedgerError, LedgerLocked, LedgerMissing
from buildonce.ledger.events import Event
from buildonce.ledger.store import Query

APPLICATION_ID = 0x624F4C31  # "bOL1": tells a ledger from any other SQLite file
SCHEMA_VERSION = 1
WRITE_PATIENCE = 30.0
READ_PATIENCE = 3.0
"""Seconds to wait for a lock: a writer must not lose a fact, a reader can be asked again."""

_SCHEMA = """
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    run TEXT NOT NULL,
    kind TEXT NOT NULL,
    data TEXT NOT NULL CHECK (json_valid(data)),
    environment TEXT GENERATED ALWAYS AS (json_extract(data, '$.environment')) VIRTUAL,
    rollout TEXT GENERATED ALWAYS AS (json_extract(data, '$.rollout')) VIRTUAL
) STRICT;
CREATE INDEX events_by_run ON events (run, id);
CREATE INDEX events_by_kind ON events (kind, environment, id);
CREATE INDEX events_by_rollout ON events (rollout, id) WHERE rollout IS NOT NULL;
CREATE TRIGGER events_no_update BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: no UPDATE'); END;
CREATE TRIGGER events_no_delete BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: no DELETE'); END;
CREATE TRIGGER events_no_rewrite BEFORE INSERT ON events
    WHEN NEW.id <> -1 AND NEW.id <= (SELECT coalesce(max(id), 0) FROM events)
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: an event goes at the end'); END;
"""

T = TypeVar("T")


class SqliteStore:
    """A `Store` in the file `path`.

    Args:
        path: the file; with `read_only` false it and its folder are made when missing (0644, 0755).
        read_only: open without any right to write, as through a read-only mount.
        patience: seconds to wait for other processes before LedgerLocked.
        clock: the time it is, UTC.

    Raises:
        LedgerMissing, LedgerLocked, LedgerCorrupt, LedgerError
    """

    def __init__(
        self,
        path: Path,
        *,
        read_only: bool = False,
        patience: float | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.path = path
        self.read_only = read_only
        self._patience = patience or (READ_PATIENCE if read_only else WRITE_PATIENCE)
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._ready = False
        with self._lock:
            self._attempt(self._open)

    def append(self, *, run: str, kind: str, data: dict[str, Any]) -> Event:
        text = json.dumps(data, allow_nan=False, separators=(",", ":"))

        def write(connection: sqlite3.Connection) -> Event:
            with _transaction(connection):
                # Read the clock while holding the write lock: ids and times then grow together.
                at = self._clock()
                row = connection.execute(
                    "INSERT INTO events (at, run, kind, data) VALUES (?, ?, ?, ?) RETURNING id",
                    (at.isoformat(timespec="microseconds"), run, kind, text),
                ).fetchone()
            return Event(row[0], at, run, kind, json.loads(text))

        if self.read_only:
            raise LedgerError(
                f"the ledger {self.path} was opened read-only", remedy="open it without read_only"
            )
        return self._with_connection(write)

    def select(self, query: Query) -> list[Event]:
        where: list[str] = []
        values: list[object] = []
        for clause, wanted in (
            ("run IN (SELECT value FROM json_each(?))", query.run),
            ("kind IN (SELECT value FROM json_each(?))", query.kind),
            ("rollout IN (SELECT value FROM json_each(?))", query.rollout),
        ):
            if wanted is not None:
                where.append(clause)
                values.append(json.dumps(list(wanted)))
        if query.environment is not None:
            where.append("environment = ?")
            values.append(query.environment)
        condition = f"WHERE {' AND '.join(where)}" if where else ""
        statement = (
            # Only the clauses above are put together here; values are bound.
            f"SELECT id, at, run, kind, data FROM events {condition} "  # noqa: S608
            "ORDER BY id DESC LIMIT ? OFFSET ?"
        )
        values += [-1 if query.limit is None else query.limit, query.offset]

        def read(connection: sqlite3.Connection) -> list[Event]:
            if not self._ready and not self._has_schema(connection):
                return []  # made a moment ago, its writer has not come to the schema yet
            rows = connection.execute(statement, values).fetchall()
            return [_event(row) for row in reversed(rows)]

        return self._with_connection(read)

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _open(self) -> None:
        if self.read_only:
            self._find_file()
        else:
            self._make_file()
        mode = "ro" if self.read_only else "rw"
        connection = sqlite3.connect(
            f"file:{quote(str(self.path.absolute()))}?mode={mode}",
            uri=True,
            timeout=self._patience,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            if not self._has_schema(connection) and not self.read_only:
                with _transaction(connection):  # of several first writers, one makes the schema
                    if not self._has_schema(connection):
                        for statement in _statements(_SCHEMA):
                            connection.execute(statement)
                        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                self._ready = True
            if not self.read_only:
                connection.execute("PRAGMA journal_mode = DELETE").fetchone()
                connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _find_file(self) -> None:
        try:
            self.path.stat()
        except FileNotFoundError as error:
            raise LedgerMissing(
                f"there is no ledger at {self.path}",
                remedy="run `make pipeline`, which starts one",
            ) from error
        except OSError as error:
            raise self._unusable(error) from error

    def _make_file(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            if not self.path.exists():
                # Only a new file is opened here: closing a descriptor of a file that this process
                # already uses through SQLite would drop SQLite's POSIX locks on it.
                with contextlib.suppress(FileExistsError):
                    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
                    os.close(os.open(self.path, flags, 0o644))
            with contextlib.suppress(PermissionError):  # another owner's file keeps its mode
                self.path.chmod(0o644)  # whatever the umask: a container's user reads it
        except OSError as error:
            raise self._unusable(error) from error

    def _has_schema(self, connection: sqlite3.Connection) -> bool:
        application, version, tables = _header(connection)
        if application == version == tables == 0:
            return False
        if application != APPLICATION_ID:
            raise LedgerCorrupt(
                f"{self.path} is an SQLite file, but not a ledger of buildonce",
                remedy=f"name another file as the ledger, or move this one: {self._move_away()}",
            )
        if version > SCHEMA_VERSION:
            raise LedgerError(
                f"the ledger {self.path} has schema {version}; this buildonce knows up to "
                f"{SCHEMA_VERSION}",
                remedy="upgrade buildonce: pip install --upgrade buildonce",
            )
        self._ready = True
        return True

    def _with_connection(self, action: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            connection = self._connection
            if connection is None:
                raise LedgerError(f"the ledger {self.path} is closed", remedy="open it again")
            return self._attempt(lambda: action(connection))

    def _attempt(self, action: Callable[[], T]) -> T:
        """Do it; wait out a dead writer's journal; name every SQLite failure."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return action()
            except sqlite3.Error as error:
                if self._awaits_recovery(error) and time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                raise self._explained(error) from error
            except (ValueError, TypeError) as error:
                raise self._damaged(str(error)) from error

    def _awaits_recovery(self, error: sqlite3.Error) -> bool:
        """Whether a dead writer's journal stands in the way of a reader that may not undo it."""
        code = getattr(error, "sqlite_errorname", "") or ""
        refused = code.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN"))
        return self.read_only and refused and Path(f"{self.path}-journal").exists()

    def _explained(self, error: sqlite3.Error) -> LedgerError:
        code = getattr(error, "sqlite_errorname", "") or ""
        if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return LedgerLocked(
                f"the ledger {self.path} was locked by another process for {self._patience:g} s",
                remedy=f"fuser -v {self.path}",
            )
        if self._awaits_recovery(error):
            return LedgerLocked(
                f"the ledger {self.path} has the journal of a writer that died, and this reader "
                "may not undo it",
                remedy="run `buildonce status` on the machine that owns the file; it repairs it",
            )
        if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT")):
            return self._damaged(str(error))
        return LedgerError(
            f"the ledger {self.path} failed: {error} ({code or type(error).__name__})",
            remedy=f"ls -ld {self.path} {self.path.parent}; df -h {self.path.parent}",
        )

    def _unusable(self, error: OSError) -> LedgerError:
        return LedgerError(
            f"the ledger {self.path} cannot be used: {error.strerror}",
            remedy=f"ls -ld {self.path} {self.path.parent}",
        )

    def _damaged(self, why: str) -> LedgerCorrupt:
        return LedgerCorrupt(
            f"the ledger {self.path} is damaged or not a ledger: {why}",
            remedy=f"keep it for inspection and start afresh: {self._move_away()}",
        )

    def _move_away(self) -> str:
        return f"mv {self.path} {self.path}.damaged"


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _header(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """Whose file it is, its schema's version, and how many tables and the like it has.

    All of one moment: between two statements another process may make the schema.
    """
    alone = not connection.in_transaction
    if alone:
        connection.execute("BEGIN")
    try:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    finally:
        if alone and connection.in_transaction:
            connection.execute("ROLLBACK")
    return application, version, tables


def _statements(script: str) -> list[str]:
    """The statements of a script, one by one: executescript would commit the transaction."""
    statements, pending = [], ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements


def _event(row: tuple[int, str, str, str, str]) -> Event:
    id_, at, run, kind, data = row
    return Event(id_, datetime.fromisoformat(at), run, kind, json.loads(data))
