"""A session's private folder, which a killed session does not leave for ever.

Whoever lives holds a lock on its folder, which the kernel takes away however it ends; the next
session of the same user removes the folders that nobody holds.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

_PREFIX = "buildonce-session-"
_YOUNG = 60.0  # seconds within which a folder may be about to be locked


class Scratch:
    """A folder that lives as long as its session."""

    def __init__(self) -> None:
        remove_abandoned(Path(tempfile.gettempdir()))
        self._path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    def folder(self) -> Path:
        """A new folder in it."""
        return Path(tempfile.mkdtemp(dir=self._path))

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self._path, ignore_errors=True)
        os.close(self._lock)


def remove_abandoned(parent: Path) -> None:
    """Remove this user's folders of sessions that were killed."""
    for path in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            about = path.lstat()
            if about.st_uid != os.geteuid() or time.time() - about.st_mtime < _YOUNG:
                continue
            number = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
            finally:
                os.close(number)
