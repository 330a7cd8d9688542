"""An advisory in the OSV format (https://ossf.github.io/osv-schema/), as much of it as is used.

advisory = Advisory.model_validate_json(text)
advisory.id, advisory.names              # "PYSEC-2024-60", {"PYSEC-2024-60", "CVE-2024-3651"}
advisory.score                           # 7.5
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from buildonce.advisories.scores import Rated, from_word, score_of
from buildonce.severity import from_score

Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]
# Real records have aliases with blanks around them, or spelt as a URL.
Alias = Annotated[str, StringConstraints(strip_whitespace=True, max_length=256)]


def _utc(value: object) -> object:
    """Times of OSV are in UTC; some writers leave the zone out."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value.replace("Z", "+00:00"))
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value


Time = Annotated[datetime, BeforeValidator(_utc)]


class _Part(BaseModel):
    # Unknown fields are allowed: the format grows.
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class Rating(_Part):
    """One CVSS vector; `type` says which version it is."""

    type: str = ""
    score: str = ""


class Package(_Part):
    """A package as the database names it; Debian's are source packages."""

    ecosystem: str = ""
    name: str = ""


class Range(_Part):
    """Versions between events: {"introduced": "0"}, {"fixed": "1.2"}, …"""

    type: str = ""
    events: tuple[dict[str, str], ...] = ()


class Affected(_Part):
    """Which versions of one package have the flaw."""

    package: Package | None = None
    ranges: tuple[Range, ...] = ()
    versions: tuple[str, ...] = ()
    severity: tuple[Rating, ...] | None = ()
    ecosystem_specific: dict[str, Any] | None = None
    database_specific: dict[str, Any] | None = None


class Advisory(_Part):
    """One record of the database."""

    id: Identifier
    modified: Time
    withdrawn: Time | None = None
    aliases: tuple[Alias, ...] | None = ()
    upstream: tuple[Alias, ...] | None = ()
    summary: str = ""
    details: str = ""
    severity: tuple[Rating, ...] | None = ()
    affected: tuple[Affected, ...] = ()
    database_specific: dict[str, Any] | None = None

    @property
    def names(self) -> frozenset[str]:
        """Every name of this flaw.

        An advisory of a distribution names what it derives from as `upstream`; one that derives
        from several (a DSA) is no other name for any of them.
        """
        upstream = self.upstream or ()
        return frozenset(
            name
            for name in (self.id, *(self.aliases or ()), *(upstream if len(upstream) == 1 else ()))
            if name.isprintable() and name
        )

    @property
    def title(self) -> str:
        """One line about it."""
        text = self.summary.strip() or self.details.strip() or self.id
        line = " ".join(text.split())
        return line if len(line) <= 160 else line[:159].rstrip() + "…"

    @property
    def vectors(self) -> tuple[Rating, ...]:
        """All CVSS vectors, of the record and of the packages in it."""
        own = [rating for affected in self.affected for rating in affected.severity or ()]
        return tuple(r for r in (*(self.severity or ()), *own) if r.type.startswith("CVSS"))

    @property
    def score(self) -> float | None:
        """The highest of its CVSS base scores; None when it has none that can be read."""
        scores = [score_of(rating.score) for rating in self.vectors]
        return max((score for score in scores if score is not None), default=None)

    def severity_for(self, affected: Affected) -> Rated:
        """How bad it is for a package: "unknown" when the record does not say."""
        # Debian's own judgement that a flaw does no harm in Debian goes before a general score.
        urgency = (affected.ecosystem_specific or {}).get("urgency")
        if from_word(urgency) == "info":
            return "info"
        if (score := self.score) is not None:
            return from_score(score)
        words = [
            (affected.database_specific or {}).get("severity"),
            (affected.ecosystem_specific or {}).get("severity"),
            (self.database_specific or {}).get("severity"),
            urgency,
        ]
        return next((s for s in map(from_word, words) if s is not None), "unknown")
