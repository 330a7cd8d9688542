"""Windows: when an environment may be deployed to. Deny wins; what says no says until when.

    closure = closed(production.windows, now)
    print(closure)         # 'the window "weekend" keeps it closed until Mon 2026-11-23 00:00 CET …'

Occurrences are computed in the window's own local time: 22:00 is 22:00 in summer and in winter. A
start that the clocks skip is that much later; one that they repeat is the first of the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from buildonce.config.windows import WindowConfig

_HORIZON = timedelta(days=400)
_DAY = timedelta(days=1)
_SLACK = timedelta(days=2)  # more than any offset from UTC and any change of the clocks


@dataclass(frozen=True)
class Closure:
    """Why not now.

    Attributes:
        window: the window's name.
        until: when deployments are possible again (UTC); None when not within a year.
        timezone: of the window.
        denied: by a "deny"; else it is outside of all "allow".
    """

    window: str
    until: datetime | None
    timezone: str
    denied: bool

    def __str__(self) -> str:
        zone = ZoneInfo(self.timezone)
        until = "for more than a year"
        if self.until is not None:
            until = f"until {self.until.astimezone(zone):%a %Y-%m-%d %H:%M %Z} ({self.timezone})"
        if self.denied:
            return f'the window "{self.window}" keeps it closed {until}'
        return f'it is outside the window "{self.window}", closed {until}'


def closed(windows: Sequence[WindowConfig], now: datetime) -> Closure | None:
    """Why the environment may not be deployed to at this moment; None when it may."""
    reason = _reason(windows, now)
    if reason is None:
        return None
    opens = _opens(windows, now)
    return Closure(reason.name, opens, reason.timezone, reason.kind == "deny")


def within(window: WindowConfig, moment: datetime) -> bool:
    """Whether an occurrence of the window holds the moment; its end is outside."""
    around = moment - window.duration - _SLACK, moment + _SLACK
    return any(start <= moment < end for start, end in occurrences(window, *around))


def occurrences(
    window: WindowConfig, after: datetime, before: datetime
) -> Iterator[tuple[datetime, datetime]]:
    """(start, end) in UTC of those that start between two moments, in order."""
    zone = ZoneInfo(window.timezone)
    low = after.astimezone(zone).replace(tzinfo=None) - _SLACK
    high = before.astimezone(zone).replace(tzinfo=None) + _SLACK
    for local in _starts(window, low, high):
        start = _utc(local, zone)
        if after <= start <= before:
            days = window.duration // _DAY
            # Whole days are the calendar's; the rest is time as it passes (RFC 5545, 3.3.6).
            end = _utc(local + days * _DAY, zone) + (window.duration - days * _DAY)
            yield start, end


def _starts(window: WindowConfig, low: datetime, high: datetime) -> Iterator[datetime]:
    if window.rrule is None:
        if low <= window.start <= high:
            yield window.start
        return
    from dateutil.rrule import rrulestr

    yield from rrulestr(window.rrule, dtstart=window.start).between(low, high, inc=True)


def _utc(local: datetime, zone: ZoneInfo) -> datetime:
    return local.replace(tzinfo=zone).astimezone(UTC)


def _reason(windows: Sequence[WindowConfig], moment: datetime) -> WindowConfig | None:
    for window in windows:
        if window.kind == "deny" and within(window, moment):
            return window
    allowing = [window for window in windows if window.kind == "allow"]
    if allowing and not any(within(window, moment) for window in allowing):
        return allowing[0]
    return None


def _opens(windows: Sequence[WindowConfig], now: datetime) -> datetime | None:
    """The first moment from now on at which nothing is in the way; it is where a window changes."""
    longest = max((window.duration for window in windows), default=_DAY)
    changes = {
        moment
        for window in windows
        for start, end in occurrences(window, now - longest - _SLACK, now + _HORIZON)
        for moment in (start, end)
        if moment > now
    }
    return next((moment for moment in sorted(changes) if _reason(windows, moment) is None), None)
