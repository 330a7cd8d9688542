"""Times, durations and digests as a reader takes them in; used as filters by the templates."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

NOTHING = "\N{EN DASH}"


def absolute(moment: datetime | str | None) -> str:
    """`2026-01-02 03:04:05 UTC`; always UTC, for the server does not know the reader's zone."""
    time = as_time(moment)
    return f"{time:%Y-%m-%d %H:%M:%S} UTC" if time else NOTHING


def brief(moment: datetime | str | None) -> str:
    """`2 Jan 03:04`, where the year and the seconds would be noise."""
    time = as_time(moment)
    return f"{time.day} {time:%b %H:%M}" if time else NOTHING


def machine(moment: datetime | str | None) -> str:
    """The value of a `datetime` attribute."""
    time = as_time(moment)
    return time.isoformat(timespec="seconds") if time else ""


def ago(moment: datetime | str | None, now: datetime) -> str:
    """How long ago in one unit: `just now`, `5 min ago`, `3 h ago`, `12 days ago`."""
    time = as_time(moment)
    if time is None:
        return NOTHING
    seconds = (now - time).total_seconds()
    if seconds < -60:
        return "in the future"
    if seconds < 45:
        return "just now"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min ago"
    hours = round(seconds / 3600)
    if hours < 36:
        return f"{hours} h ago"
    days = round(seconds / 86400)
    return f"{days} days ago" if days < 60 else f"{round(days / 30.44)} months ago"


def duration(value: float | timedelta | None) -> str:
    """`0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`, `4 days 3 h`."""
    if value is None:
        return NOTHING
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    hours = round(seconds / 3600)
    days = "1 day" if hours // 24 == 1 else f"{hours // 24} days"
    return f"{days} {hours % 24} h"


def short(revision: str) -> str:
    """The first twelve characters of a revision."""
    return revision[:12]


def percent(share: float | None) -> str:
    """`12 %` of a share of 1."""
    return NOTHING if share is None else f"{share * 100:.0f} %"


def rate(per_day: float | None) -> str:
    """`1.4 a day`, `2.1 a week` or `0.8 a month`, whichever is not far below one."""
    if per_day is None:
        return NOTHING
    for days, unit in ((1, "day"), (7, "week")):
        if per_day * days >= 0.95:
            return f"{per_day * days:.1f} a {unit}"
    return f"{per_day * 30:.1f} a month"


def plain(value: object) -> str:
    """A value of a step's data as a reader writes it."""
    match value:
        case None:
            return NOTHING
        case bool():
            return "yes" if value else "no"
        case list() | dict():
            return json.dumps(value, ensure_ascii=False)
    return str(value)


def as_time(moment: datetime | str | None) -> datetime | None:
    """A time of a view (a datetime) or of a release (ISO text) as a datetime in UTC."""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    return moment.astimezone(UTC) if moment else None
