"""What tests of several parts deploy."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from buildonce.release import Image, Release


def release(version: str, repository: str = "127.0.0.1:5080/service") -> Release:
    """A release whose commit and digest follow from its version."""

    def hexes(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    return Release(
        version=version,
        revision=hexes(version)[:40],
        image=Image(repository, f"sha256:{hexes(version)}"),
        created=datetime(2026, 1, 2, tzinfo=UTC),
        configuration=f"sha256:{hexes('configuration')}",
    )
