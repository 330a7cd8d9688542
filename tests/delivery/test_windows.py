"""When an environment may be deployed to: calendars, changes of the clocks, deny before allow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buildonce.config.windows import WindowConfig
from buildonce.delivery.windows import closed, occurrences, within

MINUTE = timedelta(minutes=1)
WEEKEND = WindowConfig.model_validate(
    {
        "name": "weekend",
        "kind": "deny",
        "start": datetime(2026, 1, 3),
        "rrule": "FREQ=WEEKLY;BYDAY=SA",
        "duration": "48h",
        "timezone": "Europe/Berlin",
    }
)


@pytest.mark.parametrize("saturday", ["2026-03-28", "2026-10-24", "2026-11-21"])
def test_a_weekend_ends_at_midnight_also_when_the_clocks_change(saturday: str) -> None:
    zone = ZoneInfo("Europe/Berlin")
    begins = datetime.fromisoformat(saturday).replace(tzinfo=zone)
    ends = (begins.replace(tzinfo=None) + timedelta(days=2)).replace(tzinfo=zone)
    assert within(WEEKEND, begins.astimezone(UTC))
    assert within(WEEKEND, ends.astimezone(UTC) - MINUTE)
    assert not within(WEEKEND, ends.astimezone(UTC))
    assert not within(WEEKEND, begins.astimezone(UTC) - MINUTE)
    closure = closed([WEEKEND], begins.astimezone(UTC))
    assert closure is not None
    assert closure.until == ends.astimezone(UTC)
    assert '"weekend"' in str(closure)


ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]
RULES = ["FREQ=DAILY", "FREQ=DAILY;INTERVAL=3", "FREQ=WEEKLY;BYDAY=MO,FR", "FREQ=MONTHLY", None]


@st.composite
def windows(draw: st.DrawFn) -> WindowConfig:
    return WindowConfig(
        name=draw(st.sampled_from(["night", "freeze", "office"])),
        kind=draw(st.sampled_from(["allow", "deny"])),
        timezone=draw(st.sampled_from(ZONES)),
        start=datetime(2026, 3, 20) + timedelta(hours=draw(st.integers(0, 24 * 12))),
        duration=timedelta(hours=draw(st.integers(1, 50))),
        rrule=draw(st.sampled_from(RULES)),
    )


MOMENTS = st.integers(0, 60 * 24 * 20).map(
    lambda minutes: datetime(2026, 3, 20, tzinfo=UTC) + minutes * MINUTE
)


@settings(max_examples=30, deadline=None)
@given(st.lists(windows(), max_size=4), MOMENTS)
def test_deny_wins_and_outside_of_all_allows_it_is_closed(
    configured: list[WindowConfig], moment: datetime
) -> None:
    denied = any(one.kind == "deny" and within(one, moment) for one in configured)
    allows = [one for one in configured if one.kind == "allow"]
    outside = bool(allows) and not any(within(one, moment) for one in allows)
    closure = closed(configured, moment)
    assert (closure is not None) == (denied or outside)
    if closure is not None:
        assert closure.denied == denied


@settings(max_examples=20, deadline=None)
@given(st.lists(windows(), min_size=1, max_size=3), MOMENTS, st.data())
def test_it_is_closed_until_the_moment_that_is_named_and_open_then(
    configured: list[WindowConfig], moment: datetime, data: st.DataObject
) -> None:
    closure = closed(configured, moment)
    if closure is None or closure.until is None:
        return
    assert closed(configured, closure.until) is None
    minutes = (closure.until - moment) // MINUTE
    between = moment + data.draw(st.integers(0, max(0, minutes - 1))) * MINUTE
    if between < closure.until:
        assert closed(configured, between) is not None


@settings(max_examples=50, deadline=None)
@given(windows(), MOMENTS)
def test_within_is_what_the_occurrences_say(window: WindowConfig, moment: datetime) -> None:
    year = timedelta(days=366)
    held = [
        (start, end)
        for start, end in occurrences(window, moment - year, moment + year)
        if start <= moment < end
    ]
    assert within(window, moment) == bool(held)
    for start, _ in held:
        local = start.astimezone(ZoneInfo(window.timezone))
        skipped = (
            local.utcoffset()
            != (start - timedelta(hours=2)).astimezone(ZoneInfo(window.timezone)).utcoffset()
        )
        assert skipped or (local.hour, local.minute) == (window.start.hour, window.start.minute)
