"""How times, durations and rates read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildonce.dashboard import formatting
from buildonce.dashboard.settings import Settings, SettingsError

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (0.4, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7800, "2 h 10 min"),
        (86399, "1 day 0 h"),
        (4 * 86400 + 3 * 3600, "4 days 3 h"),
        (None, "\N{EN DASH}"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert formatting.duration(seconds) == text


@given(st.floats(0, 1e8))
def test_a_duration_never_shows_sixty(seconds: float) -> None:
    assert "60" not in formatting.duration(seconds).split(" days")[-1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3, "just now"),
        (-3, "just now"),
        (-600, "in the future"),
        (60, "1 min ago"),
        (3 * 3600, "3 h ago"),
        (3 * 86400, "3 days ago"),
        (90 * 86400, "3 months ago"),
    ],
)
def test_ago(seconds: float, text: str) -> None:
    assert formatting.ago(NOW - timedelta(seconds=seconds), NOW) == text


def test_times_are_shown_in_utc() -> None:
    there = NOW.astimezone(timezone(timedelta(hours=9)))
    assert formatting.absolute(there.isoformat()) == "2026-03-04 05:06:07 UTC"
    assert formatting.machine(there) == "2026-03-04T05:06:07+00:00"
    assert formatting.brief(there) == "4 Mar 05:06"


@pytest.mark.parametrize(
    ("per_day", "text"),
    [(1.4, "1.4 a day"), (0.3, "2.1 a week"), (0.02, "0.6 a month"), (None, "\N{EN DASH}")],
)
def test_rates(per_day: float | None, text: str) -> None:
    assert formatting.rate(per_day) == text


@pytest.mark.parametrize("port", ["x", "-1", "65536", "8080 ", "٣"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(SettingsError, match="PORT") as refused:
        Settings.from_environment({"PORT": port})
    assert refused.value.exit_code == 2


def test_settings_without_variables() -> None:
    assert Settings.from_environment({}) == Settings()
