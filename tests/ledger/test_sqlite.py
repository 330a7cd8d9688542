"""The file: append-only, shared between processes, and honest about damage."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from buildonce.ledger import (
    Ledger,
    LedgerCorrupt,
    LedgerError,
    LedgerLocked,
    LedgerMissing,
    new_run_id,
    sqlite,
)
from buildonce.ledger.store import Query

STAGE = {"stage": "commit"}


def append(path: Path, count: int = 1) -> None:
    async def main() -> None:
        async with Ledger.open(path) as ledger:
            for _ in range(count):
                await ledger.append("stage.started", run=new_run_id(), data=STAGE)

    anyio.run(main)


def count(path: Path) -> int:
    async def main() -> int:
        async with Ledger.open(path, read_only=True) as ledger:
            return len(await ledger.events())

    return anyio.run(main)


def test_a_new_ledger_is_readable_by_a_containers_user(path: Path) -> None:
    old = os.umask(0o077)
    try:
        append(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    connection.close()


class Slow:
    """A connection during whose first question another process makes the ledger."""

    def __init__(self, connection: sqlite3.Connection, writer: threading.Thread) -> None:
        self._connection = connection
        self._writer = writer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str) -> sqlite3.Cursor:
        answer = self._connection.execute(statement)
        if "application_id" in statement:
            self._writer.start()
            self._writer.join(0.5)  # or it waits for us
        return answer


def test_a_ledger_that_is_made_while_it_is_looked_at(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    store = sqlite.SqliteStore(path, read_only=True)
    writer = threading.Thread(target=append, args=(path,))
    header = sqlite._header

    def slowly(connection: sqlite3.Connection) -> tuple[int, int, int]:
        if writer.ident is None:
            connection = cast(Any, Slow(connection, writer))
        return header(connection)

    monkeypatch.setattr(sqlite, "_header", slowly)
    assert store.select(Query()) == []
    monkeypatch.undo()
    writer.join()
    assert len(store.select(Query())) == 1
    store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET kind = 'x'",
        "UPDATE events SET id = id + 100",
        "DELETE FROM events",
        "INSERT OR REPLACE INTO events (id, at, run, kind, data) VALUES (1, '', '', '', '{}')",
        "INSERT INTO events (id, at, run, kind, data) VALUES (-5, '', '', '', '{}')",
        "INSERT INTO events (at, run, kind, data) VALUES ('', '', '', 'not json')",
    ],
)
def test_the_past_cannot_be_changed(path: Path, statement: str) -> None:
    append(path, 3)
    before = path.read_bytes()
    with sqlite3.connect(path) as connection, pytest.raises(sqlite3.Error):
        connection.execute(statement)
    connection.close()
    assert path.read_bytes() == before


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(batches=st.lists(st.lists(st.text(min_size=1, max_size=20), max_size=5), max_size=4))
def test_reading_after_appending_is_the_old_list_and_the_new_one(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[str]]
) -> None:
    path = tmp_path_factory.mktemp("law") / "ledger.sqlite"

    async def main() -> None:
        so_far = []
        for batch in batches:
            async with Ledger.open(path) as ledger:  # opened anew: nothing lives in memory only
                for stage in batch:
                    data = {"stage": stage}
                    so_far.append(await ledger.append("stage.started", run="r", data=data))
                events = await ledger.events()
                assert events == so_far
                for limit in range(len(events) + 2):
                    newest = events[len(events) - min(limit, len(events)) :]
                    assert await ledger.events(limit=limit) == newest
        ids = [event.id for event in so_far]
        assert ids == sorted(set(ids))

    anyio.run(main)


WRITER = """
import sys, anyio
from buildonce.ledger import Ledger, new_run_id
async def main():
    async with Ledger.open(sys.argv[1]) as ledger:
        run = new_run_id()
        for n in range(40):
            await ledger.append("stage.started", run=run, data={"stage": str(n)})
anyio.run(main)
"""


def test_processes_write_at_once_and_lose_nothing(path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path)]) for _ in range(4)]
    seen = 0
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            now = count(path)
            assert now >= seen
            seen = now
        time.sleep(0.01)
    assert [writer.returncode for writer in writers] == [0] * 4
    assert count(path) == 160


@pytest.mark.anyio
async def test_tasks_and_ledgers_of_one_process_write_at_once(path: Path) -> None:
    async with Ledger.open(path) as one, Ledger.open(path) as two:

        async def write(ledger: Ledger) -> None:
            await ledger.append("stage.started", run="r", data=STAGE)

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(write, one)
                group.start_soon(write, two)
        assert len(await one.events()) == 40


@pytest.mark.anyio
async def test_an_event_is_recorded_while_its_task_is_being_cancelled(ledger: Ledger) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await ledger.append("run.finished", run="r", data={"result": "interrupted", "seconds": 1})
    assert [event.kind for event in await ledger.events()] == ["run.finished"]


def test_a_read_only_ledger_is_not_written(path: Path) -> None:
    append(path)

    async def main() -> None:
        async with Ledger.open(path, read_only=True) as ledger:
            await ledger.append("stage.started", run="r", data=STAGE)

    with pytest.raises(LedgerError, match="read-only"):
        anyio.run(main)
    assert count(path) == 1


def test_no_file_is_missing_and_is_not_made(path: Path) -> None:
    with pytest.raises(LedgerMissing) as missing:
        Ledger.open(path, read_only=True)
    assert missing.value.remedy
    assert not path.parent.exists()


def test_a_file_that_its_writer_has_just_made_reads_as_empty(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    assert count(path) == 0


@pytest.mark.anyio
async def test_a_reader_that_came_before_the_schema_sees_what_follows(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    async with Ledger.open(path, read_only=True) as reader:
        assert await reader.events() == []
        async with Ledger.open(path) as writer:
            await writer.append("stage.started", run="r", data=STAGE)
        assert len(await reader.events()) == 1


@pytest.mark.parametrize("read_only", [True, False])
def test_a_file_that_is_no_database_is_left_alone(path: Path, read_only: bool) -> None:
    path.parent.mkdir()
    path.write_bytes(b"these are the minutes of the meeting " * 100)
    before = path.read_bytes()
    with pytest.raises(LedgerCorrupt) as corrupt:
        Ledger.open(path, read_only=read_only)
    assert str(path) in corrupt.value.message
    assert str(corrupt.value.remedy).endswith(f"mv {path} {path}.damaged")
    assert path.read_bytes() == before


@pytest.mark.parametrize("read_only", [True, False])
def test_someone_elses_database_is_left_alone(path: Path, read_only: bool) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs (name)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(LedgerCorrupt, match="not a ledger"):
        Ledger.open(path, read_only=read_only)
    assert path.read_bytes() == before


def test_a_damaged_page_is_named(path: Path) -> None:
    append(path, 200)
    content = bytearray(path.read_bytes())
    content[4096:12288] = b"\x55" * 8192
    path.write_bytes(content)
    with pytest.raises(LedgerCorrupt, match=str(path)):
        count(path)


def test_a_newer_schema_asks_for_an_upgrade(path: Path) -> None:
    append(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(LedgerError, match="schema 99") as newer:
        Ledger.open(path)
    assert "upgrade" in str(newer.value.remedy)


@pytest.mark.anyio
async def test_data_that_buildonce_did_not_write_is_named(path: Path, ledger: Ledger) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO events (at, run, kind, data) "
            "VALUES ('2026-01-01T00:00:00+00:00', 'r', 'run.started', '{}')"
        )
    connection.close()
    with pytest.raises(LedgerCorrupt, match="did not write"):
        await ledger.runs()


def test_a_folder_in_place_of_the_file_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(LedgerError) as error:
        Ledger.open(tmp_path)
    assert error.value.remedy


def test_a_lock_that_is_kept_is_named_after_the_patience(path: Path) -> None:
    append(path)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(LedgerLocked, match=r"locked by another process for 0\.2 s"):
            Ledger.open(path, read_only=True, patience=0.2)
    finally:
        holder.close()


def test_a_lock_that_is_let_go_is_waited_for(path: Path) -> None:
    append(path)
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    threading.Timer(0.3, holder.close).start()
    assert count(path) == 1


DYING_WRITER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")  # changed pages reach the file before the commit
connection.execute("BEGIN")
for n in range(500):
    connection.execute("INSERT INTO events (at, run, kind, data) VALUES ('x', 'x', 'x', '{}')")
print("in the middle", flush=True)
time.sleep(60)
"""


def die_in_the_middle(path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", DYING_WRITER, str(path)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"in the middle\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert Path(f"{path}-journal").stat().st_size > 0


READER = """
import sys, anyio
from buildonce.ledger import Ledger, LedgerLocked
async def main():
    async with Ledger.open(sys.argv[1], read_only=True, patience=0.2) as ledger:
        print(len(await ledger.events()))
try:
    anyio.run(main)
except LedgerLocked as error:
    print(error.message)
"""


def read_through_a_read_only_mount(path: Path) -> str:
    script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$2" -c "$3" "$4"'
    arguments = [str(path.parent), sys.executable, READER, str(path)]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"a read-only mount cannot be made here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_ledger_is_read_through_a_read_only_mount(path: Path) -> None:
    append(path, 3)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")  # a writer at work does not hinder
    assert read_through_a_read_only_mount(path) == "3"
    holder.close()


def test_a_dead_writers_journal_is_named_through_a_read_only_mount(path: Path) -> None:
    append(path, 3)
    die_in_the_middle(path)
    assert "a writer that died" in read_through_a_read_only_mount(path)


def test_a_dead_writers_journal_is_undone_by_the_next_writer(path: Path) -> None:
    append(path, 3)
    die_in_the_middle(path)
    append(path)
    assert count(path) == 4


def test_a_reader_says_that_it_may_not_undo_a_dead_writers_journal(path: Path) -> None:
    append(path, 3)
    die_in_the_middle(path)
    with pytest.raises(LedgerLocked, match="a writer that died") as locked:
        Ledger.open(path, read_only=True, patience=0.2)
    assert "buildonce status" in str(locked.value.remedy)


def test_a_reader_waits_for_a_writer_to_undo_the_journal(path: Path) -> None:
    append(path, 3)
    die_in_the_middle(path)
    repair = threading.Timer(0.3, lambda: append(path))
    repair.start()
    assert count(path) in (3, 4)
    repair.join()
    assert count(path) == 4
