"""`buildonce prune`: delete what the engine's daemon keeps, as far as nothing uses it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from buildonce.engine import daemons
from buildonce.engine.buildkit import Client
from buildonce.engine.options import EngineOptions
from buildonce.errors import BuildonceError, ExitCode

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


async def prune(options: EngineOptions, *, keep: int = 0) -> Pruned:
    """Delete the results that no run uses now; cache volumes too.

    Args:
        keep: stop when no more than this is left, the oldest first; in bytes.

    Raises:
        BuildonceError: there is no daemon and none could be started.
    """
    async with (
        daemons.find_or_start(options) as daemon,
        Client.connect(daemon.address, tls=daemon.tls) as client,
    ):
        deleted = await client.prune(all=True, keep_bytes=keep)
        left = await client.disk_usage()
    return Pruned(len(deleted), sum(d.size for d in deleted), sum(record.size for record in left))


def size(text: str) -> int:
    """`10g` in bytes.

    Raises:
        BadAmount: it is no size.
    """
    found = re.fullmatch(r"(\d+)([kmgt]?)b?", text.strip().lower())
    if found is None:
        raise BadAmount(f"{text!r} is not a size", remedy="write it as 500m or 10g")
    return int(found[1]) * _SIZES[found[2]]
