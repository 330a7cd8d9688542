"""`buildonce prune`: delete what the engine's daemon keeps, as far as nothing uses it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from buildonce.engine import daemons
from buildonce.engine.buildkit import Client
from buildonce.engine.options import EngineOptions
from buildonce.errors import BuildonceError, ExitCode

_TELL_EVERY = 3.0  # seconds
_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class BadAmount(BuildonceError):
    """A size that cannot be read."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was deleted and what is left; sizes in bytes."""

    records: int
    freed: int
    left: int

    def __str__(self) -> str:
        freed, left = self.freed >> 20, self.left >> 20
        return f"deleted {self.records} results, {freed} MiB; {left} MiB are left"


async def prune(
    options: EngineOptions, *, keep: int = 0, on_progress: Callable[[Pruned], None] | None = None
) -> Pruned:
    """Delete the results that no run uses now; cache volumes too.

    Args:
        keep: stop when no more than this is left, the oldest first; in bytes.
        on_progress: told how far it is, every few seconds.

    Raises:
        BuildonceError: there is no daemon and none could be started.
    """
    async with (
        daemons.find_or_start(options) as daemon,
        Client.connect(daemon.address, tls=daemon.tls) as client,
    ):
        so_far = Pruned(0, 0, sum(record.size for record in await client.disk_usage()))
        told = time.monotonic()
        async for record in client.prune(all=True, keep_bytes=keep):
            so_far = Pruned(
                so_far.records + 1, so_far.freed + record.size, so_far.left - record.size
            )
            if on_progress is not None and time.monotonic() - told >= _TELL_EVERY:
                told = time.monotonic()
                on_progress(so_far)
        left = await client.disk_usage()
    return replace(so_far, left=sum(record.size for record in left))


def size(text: str) -> int:
    """`10g` in bytes.

    Raises:
        BadAmount: it is no size.
    """
    found = re.fullmatch(r"(\d+)([kmgt]?)b?", text.strip().lower())
    if found is None:
        raise BadAmount(f"{text!r} is not a size", remedy="write it as 500m or 10g")
    return int(found[1]) * _SIZES[found[2]]
