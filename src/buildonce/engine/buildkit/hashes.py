"""Remembering the content hashes of files, so that unchanged ones are not read again.

A file is the same as before if its device, inode, size and both times are. One whose times are
younger than the file system may tell apart is never remembered: it could change once more without
showing it.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

YOUNG = 2 * 10**9  # nanoseconds
PART = 1 << 20
FORGET = 90 * 24 * 3600  # seconds without use

_SCHEMA = """
CREATE TABLE IF NOT EXISTS content (
    device INTEGER NOT NULL, inode INTEGER NOT NULL, size INTEGER NOT NULL,
    mtime INTEGER NOT NULL, ctime INTEGER NOT NULL, digest BLOB NOT NULL, used INTEGER NOT NULL,
    PRIMARY KEY (device, inode)
) WITHOUT ROWID
"""


class Identity(NamedTuple):
    """What makes a file the one that was hashed; times in nanoseconds."""

    device: int
    inode: int
    size: int
    mtime: int
    ctime: int


class Hashes:
    """The remembered hashes, in one SQLite file; used by one thread at a time."""

    def __init__(self, folder: Path | None) -> None:
        """
        Args:
            folder: where the file is; None remembers nothing.
        """
        self._database: sqlite3.Connection | None = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "hashes-1.sqlite"
        try:
            self._database = _open(path)
        except sqlite3.DatabaseError:
            # It only saves time, so a broken one is made anew.
            path.unlink(missing_ok=True)
            self._database = _open(path)

    def close(self) -> None:
        if self._database is not None:
            self._database.close()

    def known(self, files: Sequence[Identity]) -> dict[Identity, bytes]:
        """The hashes of those files that have not changed since they were remembered."""
        if self._database is None:
            return {}
        found: dict[Identity, bytes] = {}
        by_device: dict[int, list[int]] = {}
        for file in files:
            by_device.setdefault(file.device, []).append(file.inode)
        old: list[tuple[int, int]] = []
        before = int(time.time()) - 24 * 3600
        for device, inodes in by_device.items():
            rows = self._database.execute(
                "SELECT inode, size, mtime, ctime, digest, used FROM content "
                "WHERE device = ? AND inode IN (SELECT value FROM json_each(?))",
                [device, json.dumps(inodes)],
            )
            for inode, size, mtime, ctime, digest, used in rows:
                found[Identity(device, inode, size, mtime, ctime)] = digest
                if used < before:
                    old.append((device, inode))
        self._touch(old)
        return found

    def _touch(self, rows: Iterable[tuple[int, int]]) -> None:
        now = int(time.time())
        data = [(now, device, inode) for device, inode in rows]
        if data and self._database is not None:
            self._write("UPDATE content SET used = ? WHERE device = ? AND inode = ?", data)

    def remember(self, digests: Iterable[tuple[Identity, bytes]]) -> None:
        """Keep hashes of files that were read after `Identity` was taken."""
        if self._database is None:
            return
        now = time.time_ns()
        data = [
            (*file, digest, now // 10**9)
            for file, digest in digests
            if now - max(file.mtime, file.ctime) > YOUNG
        ]
        if data:
            self._write("INSERT OR REPLACE INTO content VALUES (?, ?, ?, ?, ?, ?, ?)", data)

    def _write(self, statement: str, data: Sequence[tuple[object, ...]]) -> None:
        database = self._database
        if database is None:
            return
        try:
            with database:
                database.executemany(statement, data)
                database.execute("DELETE FROM content WHERE used < ?", [int(time.time()) - FORGET])
        except sqlite3.OperationalError:
            return  # another process is writing, or the disk is full: hash again next time


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=2, check_same_thread=False)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = OFF")
    database.execute(_SCHEMA)
    return database


def hash_file(number: int) -> bytes:
    """The sha256 of an open file."""
    digest = hashlib.sha256()
    while part := os.read(number, PART):
        digest.update(part)
    return digest.digest()
