"""`[[environments.X.windows]]`: when an environment may be deployed to, and when not.

[[environments.production.windows]]
name = "weekend"
kind = "deny"
start = 2026-01-03T00:00:00               # the first one, local time of `timezone`
rrule = "FREQ=WEEKLY;BYDAY=SA"
duration = "48h"
timezone = "Europe/Berlin"
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, ValidationInfo, field_validator

from buildonce.config.base import Duration, Table

_FREQUENCIES = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")


class WindowConfig(Table):
    """A time that comes once, or again and again.

    Attributes:
        name: what messages call it.
        kind: "allow" or "deny". Deny wins; where there is an "allow", the time outside all of them
            is closed.
        start: of the first (or only) one; local time of `timezone`.
        duration: how long each is; whole days are days of the calendar (24h over a change of the
            clocks lasts 23 or 25), the rest is exact.
        rrule: when it comes again (RFC 5545, without DTSTART); None means once.
        timezone: an IANA name.
    """

    name: Annotated[str, Field(min_length=1)]
    kind: Literal["allow", "deny"]
    timezone: str = "UTC"
    start: datetime
    duration: Duration
    rrule: str | None = None

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (OSError, ValueError) as error:  # ZoneInfoNotFoundError is a KeyError
            raise ValueError(f"no time zone {name!r}: {error}") from None
        except KeyError:
            raise ValueError(f'there is no time zone {name!r}; such as "Europe/Berlin"') from None
        return name

    @field_validator("start")
    @classmethod
    def _local(cls, start: datetime) -> datetime:
        if start.tzinfo is not None:
            raise ValueError("give a local time without an offset; the zone is `timezone`")
        return start

    @field_validator("duration")
    @classmethod
    def _not_endless(cls, duration: timedelta) -> timedelta:
        if duration > timedelta(days=366):
            raise ValueError("at most 366 days")
        return duration

    @field_validator("rrule")
    @classmethod
    def _readable(cls, rule: str | None, info: ValidationInfo) -> str | None:
        if rule is None:
            return None
        # Only who has windows pays for the import.
        from dateutil.rrule import rrulestr

        try:
            frequency = re.search(r"(?:^|;)FREQ=([A-Z]+)(?:;|$)", rule.upper())
            if frequency is None or frequency.group(1) not in _FREQUENCIES:
                raise ValueError(f"FREQ must be one of {', '.join(_FREQUENCIES)}")
            if "DTSTART" in rule.upper() or "\n" in rule:
                raise ValueError("DTSTART is `start`, and there is one rule")
            rrulestr(rule, dtstart=info.data.get("start"))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"not a recurrence rule of RFC 5545: {error}") from None
        return rule
