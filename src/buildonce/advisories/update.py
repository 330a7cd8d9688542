"""Bringing the database up to date: fetched whole, checked, and only then put in place.

    report = await update(place, ["PyPI", "Debian"], origin="https://…", say=print)

Each ecosystem is one zip file, as OSV publishes them: <address>/<ecosystem>/all.zip. Whatever goes
wrong (no answer, half an answer, no zip file, records that are none, far fewer than before), what
was there stays as it was.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import anyio
import httpx

from buildonce.advisories.database import (
    ARCHIVE,
    INDEX,
    LAYOUT,
    BadDatabase,
    Ecosystem,
    inspect,
    known,
    read_index,
)
from buildonce.errors import BuildonceError

Say = Callable[[str], None]

MAX_DOWNLOAD = 2 << 30
_SAY_EVERY = 8 << 20
_TIMEOUT = httpx.Timeout(30.0)


class UpdateFailed(BuildonceError):
    """An ecosystem could not be brought up to date; the one before is still there."""


@dataclass(frozen=True)
class Updated:
    """What became of one ecosystem.

    Args:
        name: "PyPI".
        now: what is in place; None: nothing is.
        before: how many advisories there were; None: it was not there, or not readable.
        problem: why it was not replaced; None: it was, or is the same.
        remedy: what to do about the problem.
    """

    name: str
    now: Ecosystem | None
    before: int | None
    problem: str | None = None
    remedy: str | None = None


async def update(
    folder: Path, ecosystems: Sequence[str], *, origin: str, say: Say, max_bytes: int = MAX_DOWNLOAD
) -> list[Updated]:
    """Get each ecosystem from `origin` into `folder`.

    Args:
        folder: the database.
        ecosystems: their names, as OSV writes them.
        origin: an address (http or https), or a folder of the same layout.
        say: is told what happens, a line at a time.
        max_bytes: the largest archive that is accepted.

    Returns:
        One for each ecosystem; those with a `problem` are as they were.

    Raises:
        BuildonceError: the folder cannot be written to.
    """
    from buildonce.toolchain.locks import locked

    layout = folder / LAYOUT
    try:
        layout.mkdir(parents=True, exist_ok=True)
        _sweep(layout)
    except OSError as error:
        raise BuildonceError(
            f"the advisory database {folder} cannot be written to: {error.strerror}",
            remedy="name a folder of your own as `database` under [advisories]",
        ) from error
    results = []
    async with (
        locked(layout / ".lock", waiting=say),
        httpx.AsyncClient(timeout=_TIMEOUT, follow_redirects=True, max_redirects=5) as client,
    ):
        for name in ecosystems:
            results.append(await _one(layout, name, origin, client, say, max_bytes))
    return results


async def _one(
    layout: Path, name: str, origin: str, client: httpx.AsyncClient, say: Say, max_bytes: int
) -> Updated:
    present = layout / name / ARCHIVE
    now = datetime.now(UTC)
    old = await anyio.to_thread.run_sync(_present, layout, present, now)
    before = old.count if old else None
    work = Path(tempfile.mkdtemp(dir=layout, prefix=".new-"))
    try:
        # The archive stands in a folder of its ecosystem's name, as it will.
        fetched = work / name / ARCHIVE
        fetched.parent.mkdir()
        where = await _get(origin, name, fetched, client, say, max_bytes)
        say(f"{name}: checking every record")
        try:
            new = await anyio.to_thread.run_sync(lambda: inspect(fetched, now=now))
        except BadDatabase as error:
            cause = error.message.replace(f"the advisory database {fetched}", "it")
            raise UpdateFailed(
                f"what {where} gave is no advisory database: {cause}",
                remedy="look at that address; what was there before is still used",
            ) from None
        if old and new.count * 2 < old.count:
            raise UpdateFailed(
                f"{where} has {new.count} advisories and there were {old.count}: more than half "
                "have gone, which is not believed",
                remedy=f"look at that address; if it is right, delete {present} and update again",
            )
        await anyio.to_thread.run_sync(_put, layout, fetched, present, new)
    except UpdateFailed as error:
        return Updated(name, old, before, error.message, error.remedy)
    except OSError as error:
        return Updated(name, old, before, f"{present} cannot be written: {error}", "make room")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    in_place = Ecosystem(name, present, new.digest, new.count, new.newest)
    return Updated(name, in_place, before)


def _sweep(layout: Path) -> None:
    """Take away what a killed update left a day ago or longer; a younger one may be at work."""
    yesterday = datetime.now(UTC).timestamp() - 86_400
    for left in layout.glob(".new-*"):
        if left.stat().st_mtime < yesterday:
            shutil.rmtree(left, ignore_errors=True)


def _present(layout: Path, archive: Path, now: datetime) -> Ecosystem | None:
    """What is there already, if it can be read."""
    if not archive.is_file():
        return None
    try:
        return known(read_index(layout.parent), archive) or inspect(archive, now=now)
    except BadDatabase:
        return None


async def _get(
    origin: str, name: str, into: Path, client: httpx.AsyncClient, say: Say, max_bytes: int
) -> str:
    """Fetch one archive; the address or path that it came from."""
    if not origin.startswith(("http://", "https://")):
        return await anyio.to_thread.run_sync(_copy, Path(origin), name, into)
    where = f"{origin.rstrip('/')}/{quote(name)}/{ARCHIVE}"
    say(f"{name}: {where}")
    try:
        async with client.stream("GET", where) as answer:
            if answer.status_code != httpx.codes.OK:
                raise UpdateFailed(
                    f"{where} answered {answer.status_code} {answer.reason_phrase}".rstrip(),
                    remedy="correct `database` or `ecosystems` under [advisories], or try later",
                )
            await _save(answer, name, into, say, max_bytes, where)
    except httpx.HTTPError as error:
        cause = str(error) or type(error).__name__
        raise UpdateFailed(
            f"{where} did not give the whole file: {cause}",
            remedy="try again; behind a proxy, set HTTPS_PROXY",
        ) from error
    return where


async def _save(
    answer: httpx.Response, name: str, into: Path, say: Say, max_bytes: int, where: str
) -> None:
    length = answer.headers.get("content-length", "")
    total = f" of {int(length) / 1e6:.1f}" if length.isdigit() else ""
    got = told = 0
    async with await anyio.open_file(into, "wb") as file:
        async for chunk in answer.aiter_bytes():
            got += len(chunk)
            if got > max_bytes:
                raise UpdateFailed(
                    f"{where} gives more than {max_bytes / 1e9:.1f} GB, which no database has",
                    remedy="look at that address",
                )
            await file.write(chunk)
            if got - told >= _SAY_EVERY:
                told = got
                say(f"{name}: {got / 1e6:.1f}{total} MB")
    say(f"{name}: {got / 1e6:.1f} MB")


def _copy(origin: Path, name: str, into: Path) -> str:
    known = [origin / LAYOUT / name / ARCHIVE, origin / name / ARCHIVE]
    file = next((path for path in known if path.is_file()), None)
    if file is None:
        raise UpdateFailed(
            f"{origin} has no {name}/{ARCHIVE}",
            remedy="name a folder that has one folder an ecosystem, as OSV publishes them",
        )
    shutil.copyfile(file, into)
    return str(file)


def _put(layout: Path, fetched: Path, present: Path, new: Ecosystem) -> None:
    """Put the archive in place of the old one: a reader sees the one or the other, whole."""
    present.parent.mkdir(exist_ok=True)
    with fetched.open("rb+") as file:
        os.fsync(file.fileno())
    fetched.replace(present)
    index = {
        **read_index(layout.parent),
        new.name: {"digest": new.digest, "count": new.count, "newest": new.newest.isoformat()},
    }
    temporary = layout / f".{INDEX}.{os.getpid()}"
    temporary.write_text(json.dumps(index, indent=1, sort_keys=True) + "\n", "utf-8")
    temporary.replace(layout / INDEX)
