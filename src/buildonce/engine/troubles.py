"""Failures that lie with the machine, not with the program: what a user is told of them.

The daemon is lost, a disk is full, a registry wants a login: whichever query meets it, and wherever
it surfaces, it gets the same sentence and what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from buildonce.engine.buildkit import DaemonGone, DaemonRefused, Unauthorized
from buildonce.engine.errors import ExecFailed, NotServed, QueryFailed
from buildonce.errors import BuildonceError

if TYPE_CHECKING:
    from buildonce.engine.daemons import Found

_FULL = "no space left on device"


def told(error: BaseException, daemon: Found) -> QueryFailed | None:
    """What to answer instead of `error`; None: what it says itself."""
    if isinstance(error, ExecFailed | NotServed):
        return None
    chain = list(_chain(error))
    if any(isinstance(cause, DaemonGone | DaemonRefused) for cause in chain):
        return QueryFailed(str(lost(daemon)))
    if isinstance(error, OSError) and error.strerror:
        what = f"{error.filename}: " if error.filename else ""
        error = QueryFailed(f"{what}{error.strerror}")
    text = str(error)
    remedy = ""
    if _FULL in text.lower():
        remedy = full(daemon)
    elif any(isinstance(cause, Unauthorized) for cause in chain):
        remedy = 'give a login: .with_registry_auth("HOST", "USER", dag.set_secret(…))'
    if remedy and "\n  try: " not in text:
        return QueryFailed(str(BuildonceError(text, remedy=remedy)))
    return error if isinstance(error, QueryFailed) else None


def lost(daemon: Found) -> BuildonceError:
    """The daemon went away while the session was open."""
    if daemon.folder is None:
        return BuildonceError(
            f"buildkitd at {daemon.address} went away in the middle of the session",
            remedy="look at its log for the reason, then run the command again",
        )
    return BuildonceError(
        "buildkitd, which runs the session's containers, went away in the middle of it; its log, "
        f"{daemon.log}, may say why",
        remedy="run the command again: it starts a new one, and what was done is in its cache",
    )


def full(daemon: Found) -> str:
    """How to make room where the daemon keeps its state."""
    if daemon.folder is None:
        return f"make room at the daemon: buildctl --addr {daemon.address} prune"
    return (
        f"make room on the disk of {daemon.folder} ({_free(daemon.folder)} are left); the folder "
        "is a cache, and may be removed when nothing runs. BUILDONCE_CACHE puts it elsewhere"
    )


def _free(folder: Path) -> str:
    import shutil

    try:
        return f"{shutil.disk_usage(folder).free >> 20} MiB"
    except OSError:
        return "it is not known how many MiB"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and all that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
