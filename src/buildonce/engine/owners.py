"""Owners of files: numbers, or names that a root file system's own tables give numbers to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from buildonce.engine.errors import QueryFailed
from buildonce.engine.llb import Output

if TYPE_CHECKING:
    from buildonce.engine.engine import Engine

MAX_TABLE = 1 << 20  # bytes


async def numeric(engine: Engine, rootfs: Output | None, owner: str) -> str:
    """`user[:group]` as `uid:gid`; a user alone is also the group's number, as in Dagger.

    Raises:
        QueryFailed: there is no such user or group.
    """
    if not owner:
        return ""
    await engine.reference(rootfs)
    user, _, group = owner.partition(":")
    uid = await _number(engine, rootfs, owner, user or "0", "/etc/passwd", "uid", "user")
    gid = await _number(engine, rootfs, owner, group or uid, "/etc/group", "gid", "group")
    return f"{uid}:{gid}"


async def _number(
    engine: Engine,
    rootfs: Output | None,
    owner: str,
    name: str,
    table: str,
    number: str,
    kind: str,
) -> str:
    if name.isdecimal():
        return name
    try:
        text = (await engine.read(rootfs, table, limit=MAX_TABLE)).decode(errors="replace")
    except QueryFailed as error:
        raise QueryFailed(
            f"failed to parse ownership {owner}: open {table}: no such file or directory"
        ) from error
    for line in text.splitlines():
        row = line.split(":")
        if row[0] == name and len(row) > 2:
            return row[2]
    raise QueryFailed(f"failed to parse ownership {owner}: find {number}: no such {kind}: {name}")
