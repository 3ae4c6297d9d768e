"""A time of the day in which pipelines may redo: over midnight, and on the days on which the clocks are changed."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccat_ops_db.plan.windows import Window, is_open, opens_at

MINUTE = timedelta(minutes=1)
CHANGES = {
    "Europe/Berlin": ["2026-03-29", "2026-10-25"],
    "America/Santiago": ["2026-04-05", "2026-09-06"],  # at midnight
    "Australia/Lord_Howe": ["2026-04-05", "2026-10-04"],  # by half an hour
    "UTC": ["2026-01-01"],
}
"""Zones, and days on which their clocks are changed."""


def window(start: str, end: str, time_zone: str = "UTC") -> Window:
    return Window.model_validate({"from": start, "to": end, "time_zone": time_zone})


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def minutes(day: date) -> Iterator[datetime]:
    """Every minute from two days before a day to two days after it."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(days=2)
    return (start + number * MINUTE for number in range(5 * 24 * 60))


def crossings(day: date, time: str, zone: ZoneInfo) -> list[datetime]:
    """When the clocks come to a time of the day, or past it, for the first time on each date."""
    seen: set[date] = set()
    found = []
    for moment in minutes(day):
        local = moment.astimezone(zone)
        if f"{local:%H:%M}" >= time and local.date() not in seen:
            seen.add(local.date())
            found.append(moment)
    return found


@settings(max_examples=200)
@given(
    place=st.sampled_from([(zone, day) for zone, days in CHANGES.items() for day in days]),
    times=st.lists(st.tuples(st.integers(0, 23), st.sampled_from([0, 15, 30])), min_size=2, max_size=2, unique=True),
    later=st.integers(0, 48 * 60),
)
def test_it_is_open_from_the_first_time_the_clocks_come_to_its_beginning(
    place: tuple[str, str], times: list[tuple[int, int]], later: int
) -> None:
    (zone, day), (start, end) = place, (f"{hour:02}:{minute:02}" for hour, minute in times)
    one, on = window(start, end, zone), date.fromisoformat(day)
    now = datetime(on.year, on.month, on.day, tzinfo=UTC) - timedelta(days=1) + later * MINUTE
    begun = [moment for moment in crossings(on, start, ZoneInfo(zone)) if moment <= now]
    ended = [moment for moment in crossings(on, end, ZoneInfo(zone)) if moment <= now]
    assert is_open(one, now) == (begun[-1] > ended[-1])
    opening = opens_at(one, now)
    assert opening == next(moment for moment in crossings(on, start, ZoneInfo(zone)) if moment > now)
    if ended[-1] != begun[-1] and opening not in crossings(on, end, ZoneInfo(zone)):
        assert is_open(one, opening)


@pytest.mark.parametrize(
    ("moment", "state"),
    [
        ("2026-11-24 21:59", "closed"),
        ("2026-11-24 22:00", "open"),
        ("2026-11-25 00:00", "open"),
        ("2026-11-25 05:59", "open"),
        ("2026-11-25 06:00", "closed"),
    ],
)
def test_over_midnight(moment: str, state: str) -> None:
    assert is_open(window("22:00", "06:00"), at(moment)) == (state == "open")


def test_it_is_told_when_it_opens_on_the_clocks_of_its_zone() -> None:
    evening = window("18:00", "20:00", "America/Santiago")
    assert opens_at(evening, at("2026-12-01 12:00")) == at("2026-12-01 21:00")
    assert opens_at(evening, at("2026-07-01 12:00")) == at("2026-07-01 22:00")
