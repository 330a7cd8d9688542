"""Folders and files that are there whole or not at all.

with whole_folder(cache / "bin" / key) as making:
    (making / "tool").write_bytes(...)      # an interruption leaves nothing at the target
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = ".making-"


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that becomes `target` when the block ends well.

    The caller holds the lock of `target`: what a killed predecessor left beside it is removed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(f"{_PREFIX}{target.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    making = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{target.name}-", dir=target.parent))
    try:
        yield making
        making.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        making.rename(target)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def write_whole(target: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Replace the file `target` at once, so that no reader sees a half."""
    target.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    descriptor, name = tempfile.mkstemp(prefix=f"{_PREFIX}{target.name}-", dir=target.parent)
    making = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        making.chmod(mode)
        making.replace(target)
    finally:
        making.unlink(missing_ok=True)
