"""The advisory database: a folder in the layout that osv-scanner reads offline, and its checks.

    database = Database.open(folder, max_age=timedelta(days=7))
    database.ecosystems["PyPI"].count, database.newest

    FOLDER/osv-scanner/PyPI/all.zip       one OSV record a file, as OSV itself publishes them
    FOLDER/osv-scanner/Debian/all.zip

A scan against a database that is missing, empty, broken or old finds nothing, which looks like a
pass. So nothing gets a `Database` without these checks. The date is that of the newest record and
not that of the download: a mirror that stands still is old, however recently it was copied.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from buildonce.advisories.packages import normal_name
from buildonce.advisories.record import Advisory
from buildonce.errors import BuildonceError

LAYOUT: Final = "osv-scanner"
ARCHIVE: Final = "all.zip"
INDEX: Final = "buildonce.json"
UPDATE: Final = "buildonce advisories update"

# A record of the real databases is below 1 MB, all of Debian's below 1 GB unpacked.
_MAX_RECORD = 16 << 20
_MAX_TOTAL = 4 << 30
_MAX_RECORDS = 2_000_000
_CHUNK = 1 << 20
# Clocks differ; a record from further in the future would make an old database look new.
_TOMORROW = timedelta(days=1)


class BadDatabase(BuildonceError):
    """The advisory database cannot be relied upon; a scan against it would prove nothing."""


class NoAdvisories(BadDatabase):
    """The database is well, and has nothing about an ecosystem that is asked for."""


@dataclass(frozen=True)
class Ecosystem:
    """The advisories of one ecosystem.

    Args:
        name: "PyPI".
        archive: the zip file with its records.
        digest: "sha256:…" of that file.
        count: how many records it has.
        newest: when the newest of them was changed (UTC).
    """

    name: str
    archive: Path
    digest: str
    count: int
    newest: datetime


@dataclass(frozen=True)
class Database:
    """A database that was checked.

    Args:
        folder: what osv-scanner is given as its cache directory.
        source: where it came from, an address or a path; "sample" for the one that comes along.
        ecosystems: by name.
        sample: whether it is only the sample: finding nothing in it means little.
    """

    folder: Path
    source: str
    ecosystems: Mapping[str, Ecosystem]
    sample: bool = False

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        source: str | None = None,
        max_age: timedelta | None = None,
        now: datetime | None = None,
        sample: bool = False,
    ) -> Database:
        """Check a database, and be able to ask it.

        Args:
            folder: it, or the folder above its `osv-scanner`.
            source: where it came from; None: the folder.
            max_age: how old its newest record may be, in each ecosystem; None: any age.
            now: the time by which it is old; None: now.
            sample: it is the one that comes along with buildonce.

        Raises:
            BadDatabase: it is missing, empty, broken or too old; the message says which.
        """
        now = now or datetime.now(UTC)
        remedy = f"type `{UPDATE}`, or correct `database` under [advisories]"
        root = folder.parent if folder.name == LAYOUT else folder
        archives = sorted((root / LAYOUT).glob(f"*/{ARCHIVE}"))
        if not archives:
            what = "is empty" if root.is_dir() else "is missing"
            raise BadDatabase(
                f"the advisory database {folder} {what}: there is no "
                f"{LAYOUT}/<ecosystem>/{ARCHIVE} in it",
                remedy=remedy,
            )
        index = read_index(root)
        found = {}
        for archive in archives:
            ecosystem = known(index, archive) or inspect(archive, now=now, remedy=remedy)
            found[ecosystem.name] = ecosystem
            age = now - ecosystem.newest
            if max_age is not None and age > max_age:
                raise BadDatabase(
                    f"the advisories for {ecosystem.name} in {folder} are {_days(age)} old: the "
                    f"newest is of {ecosystem.newest:%Y-%m-%d}, and at most {_days(max_age)} are "
                    "allowed",
                    remedy=f"type `{UPDATE}`, or change `max_age` under [advisories]",
                )
        return cls(root, source or str(folder), found, sample)

    @property
    def count(self) -> int:
        """How many advisories it has."""
        return sum(ecosystem.count for ecosystem in self.ecosystems.values())

    @property
    def newest(self) -> datetime:
        """The date of the database: of the ecosystem that is furthest behind."""
        return min(ecosystem.newest for ecosystem in self.ecosystems.values())

    @property
    def digest(self) -> str:
        """`sha256:…` of all of it: the same advisories give the same digest."""
        lines = sorted(f"{entry.name} {entry.digest}\n" for entry in self.ecosystems.values())
        return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"

    def __str__(self) -> str:
        held = ", ".join(f"{entry.count} for {name}" for name, entry in self.ecosystems.items())
        kind = "only a SAMPLE of advisories" if self.sample else "advisories"
        return f"{kind} of {self.newest:%Y-%m-%d} ({held})"

    def require(self, ecosystems: Iterable[str]) -> None:
        """Refuse to answer for ecosystems that it has nothing about.

        Raises:
            NoAdvisories: there is one.
        """
        if missing := sorted(set(ecosystems) - self.ecosystems.keys()):
            raise NoAdvisories(
                f"the advisory database {self.source} has nothing about {', '.join(missing)}",
                remedy=f"add it to `ecosystems` under [advisories] and type `{UPDATE}`; or leave "
                "it out in the open: `ecosystems` under [checks.sca]",
            )

    def about(self, ecosystem: str, names: Collection[str]) -> Iterator[Advisory]:
        """The advisories of an ecosystem that may be about one of these packages.

        Raises:
            NoAdvisories: it has nothing about the ecosystem.
            BadDatabase: it broke since it was opened.
        """
        self.require([ecosystem])
        archive = self.ecosystems[ecosystem].archive
        wanted = set(names)
        for name, text in _records(archive, UPDATE):
            raw = _json(archive, name, text, UPDATE)
            about = raw.get("affected") if isinstance(raw, dict) else None
            if any(
                normal_name(ecosystem, str((entry.get("package") or {}).get("name", ""))) in wanted
                for entry in about or ()
                if isinstance(entry, dict)
            ):
                yield _advisory(archive, name, text, UPDATE)


def read_index(root: Path) -> Mapping[str, Any]:
    """What `update` noted of each archive when it checked it; empty when there is nothing."""
    try:
        found = json.loads((root / LAYOUT / INDEX).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def known(index: Mapping[str, Any], archive: Path) -> Ecosystem | None:
    """What an earlier check of exactly this archive found, which need not be made again."""
    name = archive.parent.name
    noted = index.get(name)
    if not isinstance(noted, dict):
        return None
    try:
        digest = digest_of(archive)
        if noted["digest"] != digest:
            return None
        newest = datetime.fromisoformat(noted["newest"])
        return Ecosystem(name, archive, digest, int(noted["count"]), newest.astimezone(UTC))
    except (OSError, KeyError, TypeError, ValueError):
        return None


def inspect(archive: Path, *, now: datetime, remedy: str = UPDATE) -> Ecosystem:
    """Read an archive from end to end.

    Raises:
        BadDatabase: it is no zip file, a record in it is none, or there is none.
    """
    count = 0
    newest: datetime | None = None
    latest = now + _TOMORROW
    for name, text in _records(archive, remedy):
        advisory = _advisory(archive, name, text, remedy)
        count += 1
        if advisory.modified <= latest and (newest is None or advisory.modified > newest):
            newest = advisory.modified
    if newest is None:
        what = "has no advisory in it" if not count else "has only advisories of the future"
        raise BadDatabase(f"the advisory database {archive} {what}", remedy=remedy)
    return Ecosystem(archive.parent.name, archive, digest_of(archive), count, newest)


def digest_of(file: Path) -> str:
    """`sha256:…` of a file."""
    with file.open("rb") as opened:
        return f"sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()}"


def _records(archive: Path, remedy: str) -> Iterator[tuple[str, bytes]]:
    """Name and text of each record; bounded, since archives are downloaded."""
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir()]
            if len(entries) > _MAX_RECORDS:
                raise _broken(archive, f"{len(entries)} files are too many", remedy)
            total = 0
            for entry in entries:
                with opened.open(entry) as file:
                    # What the directory says of sizes is the writer's claim: this much is read.
                    text = file.read(_MAX_RECORD + 1)
                total += len(text)
                if len(text) > _MAX_RECORD or total > _MAX_TOTAL:
                    raise _broken(archive, f"{entry.filename[:80]} unpacks to too much", remedy)
                yield entry.filename, text
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise _broken(archive, f"it is no whole zip file ({error})", remedy) from error
    except OSError as error:
        raise BadDatabase(
            f"the advisory database {archive} cannot be read: {error}", remedy=remedy
        ) from error


def _json(archive: Path, name: str, text: bytes, remedy: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _broken(archive, f"{name[:80]} is not JSON ({error})", remedy) from error


def _advisory(archive: Path, name: str, text: bytes, remedy: str) -> Advisory:
    try:
        return Advisory.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        cause = f"{name[:80]} is no OSV record ({where or 'it'}: {first['msg']})"
        raise _broken(archive, cause, remedy) from error


def _broken(archive: Path, cause: str, remedy: str) -> BadDatabase:
    return BadDatabase(f"the advisory database {archive} is corrupt: {cause}", remedy=remedy)


def _days(period: timedelta) -> str:
    days = period.days
    if days >= 1:
        return "1 day" if days == 1 else f"{days} days"
    return f"{period.total_seconds() / 3600:.0f} hours"
