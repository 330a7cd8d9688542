"""The database that `[advisories]` of the configuration means."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from buildonce import places
from buildonce.advisories.database import BadDatabase, Database
from buildonce.config.advisories import AdvisoriesConfig


@dataclass(frozen=True)
class Place:
    """Where a database is kept, and where it comes from.

    Args:
        folder: where scans read it.
        address: where `update` gets it; None: somebody else brings the folder up to date.
        source: what people call it: the address or folder as configured.
    """

    folder: Path
    address: str | None
    source: str


def place(settings: AdvisoriesConfig, *, near: Path) -> Place | None:
    """Where the configured database is; None when none is configured.

    Args:
        settings: the table.
        near: the configuration file; a relative folder starts beside it.

    Raises:
        BadDatabase: the address is of no kind that can be read.
    """
    if (configured := settings.database) is None:
        return None
    if "://" not in configured:
        folder = (near.parent / Path(configured).expanduser()).resolve()
        return Place(folder, None, configured)
    address = urlsplit(configured)
    if address.scheme == "file" and address.netloc in ("", "localhost"):
        return Place(Path(url2pathname(address.path)), None, configured)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise BadDatabase(
            f"[advisories] database = {configured!r} is neither a folder nor an address that "
            "begins with http://, https:// or file:///",
            remedy=f"correct it in {near}",
        )
    name = hashlib.sha256(configured.rstrip("/").encode()).hexdigest()[:16]
    return Place(places.cache() / "advisories" / name, configured.rstrip("/"), configured)


def open_database(
    settings: AdvisoriesConfig, *, near: Path, now: datetime | None = None
) -> Database:
    """The configured database, checked; without one, the sample.

    Raises:
        BadDatabase: it is missing, empty, broken or too old.
    """
    configured = place(settings, near=near)
    if configured is None:
        from buildonce.advisories.sample import sample_database

        return sample_database()
    return Database.open(
        configured.folder, source=configured.source, max_age=settings.max_age, now=now
    )
