"""`[advisories]`: where the database of known vulnerabilities is, and how old it may be."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from buildonce.config.base import Duration, Table


class AdvisoriesConfig(Table):
    """The advisory database.

    Attributes:
        database: a folder, or an address (`https://…`, `file:///…`) that
            `buildonce advisories update` gets it from; without it only the sample that comes
            along is used, which finds a few well-known flaws and proves nothing.
        max_age: how old its newest record may be.
        ecosystems: which parts `buildonce advisories update` gets.
    """

    database: Annotated[str, Field(min_length=1)] | None = None
    max_age: Duration = timedelta(days=7)
    ecosystems: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9. -]{0,40}$")], ...] = (
        "PyPI",
        "Debian",
    )
