"""Which release a person means: by version, commit, digest, or simply the latest.

await known_release("2026.11.21+g1a2b3c4", ledger=ledger)
await known_release("1a2b3c4", ledger=ledger)             # a commit, or a digest; 7 digits or more
"""

from __future__ import annotations

import re

from buildonce.config.mistakes import did_you_mean
from buildonce.delivery.errors import UnknownRelease
from buildonce.ledger import Ledger
from buildonce.ledger.views import Release as Recorded
from buildonce.release import Release

LATEST = "latest"
_ABBREVIATED = re.compile(r"(?:sha256:)?[0-9a-f]{7,64}")


async def known_release(name: str | None, *, ledger: Ledger) -> Release:
    """The release that is called so; with None or "latest", the newest.

    Raises:
        UnknownRelease: the ledger has none, or several.
    """
    if name is None or name == LATEST:
        found = next(iter(await ledger.releases(limit=1)), None)
        if found is None:
            raise UnknownRelease("the ledger has no release yet", remedy="make pipeline")
        return Release.from_json(dict(found))
    found = await ledger.release(name) or await _abbreviated(name, ledger)
    if found is None:
        versions = [release["version"] for release in await ledger.releases(limit=100)]
        raise UnknownRelease(
            f"the ledger knows no release {name!r}{did_you_mean(name, versions)}",
            remedy="buildonce release list",
        )
    return Release.from_json(dict(found))


async def _abbreviated(name: str, ledger: Ledger) -> Recorded | None:
    """The only release whose commit or digest begins so."""
    if not _ABBREVIATED.fullmatch(name):
        return None
    digits = name.removeprefix("sha256:")
    found = [
        release
        for release in await ledger.releases(limit=None)
        if release["digest"].removeprefix("sha256:").startswith(digits)
        or (digits == name and release["revision"].startswith(digits))
    ]
    if len(found) > 1:
        versions = ", ".join(release["version"] for release in found[:5])
        raise UnknownRelease(
            f"{name} is the beginning of several releases: {versions}",
            remedy="give one of these versions",
        )
    return found[0] if found else None
