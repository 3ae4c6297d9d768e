"""When a schedule comes due, also on the days on which the clocks are changed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import process_time
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ccat_ops_db.plan.schedule import Schedule, due, last_tick, next_tick

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def ticks(cron: str, time_zone: str, *, after: str, until: str) -> list[str]:
    """Everything that comes due in (after, until], on the clocks of UTC; each way gives the same."""
    schedule = Schedule(cron=cron, time_zone=time_zone)
    forwards, tick = [], next_tick(schedule, at(after))
    while tick <= at(until):
        forwards.append(tick)
        tick = next_tick(schedule, tick)
    backwards, tick = [], last_tick(schedule, at(until))
    while tick > at(after):
        backwards.append(tick)
        tick = last_tick(schedule, tick - timedelta(microseconds=1))
    assert forwards == backwards[::-1]
    return [f"{tick:%d %H:%M}" for tick in forwards]


def test_the_expression_is_read_on_the_clocks_of_its_time_zone() -> None:
    evening = Schedule(cron="30 18 * * *", time_zone="America/Santiago")
    assert next_tick(evening, at("2026-07-01")) == at("2026-07-01 22:30")
    assert next_tick(evening, at("2026-12-01")) == at("2026-12-01 21:30")
    assert next_tick(Schedule(cron="30 18 * * *"), at("2026-07-01")) == at("2026-07-01 18:30")


def test_a_moment_may_be_given_in_any_time_zone_and_a_tick_is_told_in_utc() -> None:
    moment = datetime(2026, 7, 1, 18, 30, tzinfo=ZoneInfo("America/Santiago"))
    evening = Schedule(cron="30 18 * * *", time_zone="America/Santiago")
    assert (last_tick(evening, moment), next_tick(evening, moment)) == (at("2026-07-01 22:30"), at("2026-07-02 22:30"))
    assert last_tick(evening, moment).tzinfo is UTC


BERLIN, SANTIAGO, LORD_HOWE = "Europe/Berlin", "America/Santiago", "Australia/Lord_Howe"


@pytest.mark.parametrize(
    ("cron", "time_zone", "after", "until", "due_at"),
    [
        # In Berlin the hour from 02:00 is skipped at 01:00 UTC …
        ("30 2 * * *", BERLIN, "2026-03-28 12:00", "2026-03-30 12:00", ["29 01:00", "30 00:30"]),
        ("0,20,40 2 * * *", BERLIN, "2026-03-28 12:00", "2026-03-29 12:00", ["29 01:00"]),
        ("30 * * * *", BERLIN, "2026-03-29 00:00", "2026-03-29 02:00", ["29 00:30", "29 01:30"]),
        ("*/30 2 * * *", BERLIN, "2026-03-28 12:00", "2026-03-29 12:00", []),
        # … and comes twice from 00:00 UTC.
        ("30 2 * * *", BERLIN, "2026-10-24 12:00", "2026-10-26 12:00", ["25 00:30", "26 01:30"]),
        ("30 * * * *", BERLIN, "2026-10-25 00:00", "2026-10-25 02:00", ["25 00:30", "25 01:30"]),
        ("*/30 2 * * *", BERLIN, "2026-10-25 00:00", "2026-10-25 12:00", ["25 00:30", "25 01:00", "25 01:30"]),
        # In Santiago the clocks are changed at midnight: a day without its first hour, and one with two last hours.
        ("0 0 * * *", SANTIAGO, "2026-09-05 12:00", "2026-09-07 12:00", ["06 04:00", "07 03:00"]),
        ("30 23 * * *", SANTIAGO, "2026-04-04 12:00", "2026-04-06 12:00", ["05 02:30", "06 03:30"]),
        # On Lord Howe Island it is half an hour.
        ("15 2 * * *", LORD_HOWE, "2026-10-03 00:00", "2026-10-05 00:00", ["03 15:30", "04 15:15"]),
        ("45 1 * * *", LORD_HOWE, "2026-04-04 00:00", "2026-04-06 00:00", ["04 14:45", "05 15:15"]),
        ("45 * * * *", LORD_HOWE, "2026-04-04 14:00", "2026-04-04 17:00", ["04 14:45", "04 15:15", "04 16:15"]),
    ],
)
def test_where_the_clocks_are_changed_it_is_as_with_debians_cron(
    cron: str, time_zone: str, after: str, until: str, due_at: list[str]
) -> None:
    assert ticks(cron, time_zone, after=after, until=until) == due_at


MINUTES: Mapping[str, set[int]] = {
    "*": set(range(60)),
    "*/20": {0, 20, 40},
    "0": {0},
    "30": {30},
    "5-7,45": {5, 6, 7, 45},
    "0-59": set(range(60)),
}
HOURS: Mapping[str, set[int]] = {
    "*": set(range(24)),
    "*/2": set(range(0, 24, 2)),
    "0": {0},
    "1": {1},
    "2": {2},
    "1-3": {1, 2, 3},
    "18,23": {18, 23},
    "0-23": set(range(24)),
}
DAYS: Mapping[str, set[int]] = {"*": set(range(1, 32)), "*/2": set(range(1, 32, 2)), "5,25,29": {5, 25, 29}}
WEEKDAYS: Mapping[str, set[int]] = {"*": set(range(7)), "SUN": {0}, "7": {0}, "1-5": {1, 2, 3, 4, 5}}

CHANGES = {
    "Europe/Berlin": ("2026-03-29 01:00", "2026-10-25 01:00"),
    "America/Santiago": ("2026-09-06 04:00", "2026-04-05 03:00"),
    "Australia/Lord_Howe": ("2026-10-03 15:30", "2026-04-04 15:00"),
    "Pacific/Apia": ("2011-12-30 10:00",),  # a whole day was skipped
    "UTC": ("2026-03-29 01:00",),
}


@dataclass(frozen=True)
class Cron:
    """A program that looks at the clocks every minute."""

    minute: str
    hour: str
    day: str
    weekday: str

    def __str__(self) -> str:
        return f"{self.minute} {self.hour} {self.day} * {self.weekday}"

    def matches(self, shown: datetime) -> bool:
        days = [shown.day in DAYS[self.day], (shown.weekday() + 1) % 7 in WEEKDAYS[self.weekday]]
        right_day = all(days) if "*" in {self.day[0], self.weekday[0]} else any(days)
        return shown.minute in MINUTES[self.minute] and shown.hour in HOURS[self.hour] and right_day

    def runs(self, zone: ZoneInfo, *, after: datetime, until: datetime) -> Iterator[datetime]:
        """Minutes at which it runs; fixed times are made up for as Debian's does, and not run again."""
        fixed = "*" not in {self.minute[0], self.hour[0]}
        newest = after.astimezone(zone).replace(tzinfo=None)
        moment = after
        while (moment := moment + MINUTE) <= until:
            shown = moment.astimezone(zone).replace(tzinfo=None)
            if any(map(self.matches, minutes(newest, shown))) if fixed else self.matches(shown):
                yield moment
            newest = max(newest, shown)


def minutes(after: datetime, until: datetime) -> Iterator[datetime]:
    while (after := after + MINUTE) <= until:
        yield after


CRONS = st.builds(Cron, *map(st.sampled_from, (list(MINUTES), list(HOURS), list(DAYS), list(WEEKDAYS))))
A_CHANGE = st.sampled_from([(zone, at(change)) for zone, changes in CHANGES.items() for change in changes])
AWAY = st.timedeltas(-DAY, DAY) | st.timedeltas(-timedelta(hours=3), timedelta(hours=3)) | st.just(timedelta())


@settings(max_examples=250)
@given(cron=CRONS, zone_and_change=A_CHANGE, moments=st.lists(AWAY, min_size=2, max_size=6))
def test_it_comes_due_when_a_program_that_looks_every_minute_would_run(
    cron: Cron, zone_and_change: tuple[str, datetime], moments: list[timedelta]
) -> None:
    zone, change = zone_and_change
    schedule = Schedule(cron=str(cron), time_zone=zone)
    start, end = change - 2 * DAY, change + 2 * DAY
    runs = list(cron.runs(ZoneInfo(zone), after=start, until=end))
    for moment in (change + away for away in moments):
        following, before = next_tick(schedule, moment), last_tick(schedule, moment)
        assert (following if following <= end else None) == min((run for run in runs if run > moment), default=None)
        assert (before if before > start else None) == max((run for run in runs if run <= moment), default=None)
    last, now = change + min(moments), change + max(moments)
    assert due(schedule, last=last, now=now) == max((run for run in runs if last < run <= now), default=None)


def test_ticks_that_were_missed_come_due_once_and_the_newest_stands_for_them() -> None:
    hourly = Schedule(cron="0 * * * *")
    last, now = at("2026-04-05 01:00"), at("2026-04-05 04:20")
    newest = due(hourly, last=last, now=now)
    assert newest == at("2026-04-05 04:00")
    assert due(hourly, last=newest, now=now) is None
    assert due(hourly, last=newest, now=at("2026-04-05 05:00")) == at("2026-04-05 05:00")


@pytest.mark.parametrize("cron", ["* * * * *", "0 0 29 2 *"])
def test_ten_years_without_anybody_looking_cost_no_more_than_a_minute(cron: str) -> None:
    now = at("2026-04-05 04:20")
    schedule = Schedule(cron=cron, time_zone="America/Santiago")
    begun = process_time()
    for _ in range(100):
        assert due(schedule, last=now - 3653 * DAY, now=now)
    assert process_time() - begun < 1  # stepping through the minutes would take a hundred times that


@pytest.mark.parametrize(
    ("cron", "time_zone"),
    [
        ("0 0 30 2 *", "UTC"),
        ("0 0 31 4,6,9,11 *", "UTC"),
        ("* * */20 * 1L", "UTC"),  # a last Monday before the 22nd
        ("*/5 2 * 3 SUN#2", "America/New_York"),  # the hour that is skipped
    ],
)
def test_what_never_comes_true_is_refused(cron: str, time_zone: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Schedule(cron=cron, time_zone=time_zone)
    [error] = refused.value.errors()
    assert error["msg"] == f"Value error, `{cron}` never comes true on the clocks of {time_zone}"


@pytest.mark.parametrize(
    ("cron", "due_at"),
    [
        ("*/60 * * * *", ["01 01:00", "01 02:00"]),
        ("0,30/60 * * * *", ["01 00:30", "01 01:00", "01 01:30", "01 02:00"]),
        ("0 */24 * * *", []),
        ("0 1 */31 * *", ["01 01:00"]),
        ("0 1 1 */12 *", ["01 01:00"]),
        ("0 1 * * thu/7", ["01 01:00"]),
    ],
)
def test_a_step_over_all_values_leaves_the_first(cron: str, due_at: list[str]) -> None:
    assert ticks(cron, "UTC", after="2026-01-01 00:00", until="2026-01-01 02:00") == due_at


def test_what_comes_true_rarely_is_found() -> None:
    leap_monday = Schedule(cron="0 0 * 2 MON#5")
    assert next_tick(leap_monday, at("2072-03-01")) == at("2112-02-29")
    assert last_tick(leap_monday, at("2112-02-28")) == at("2072-02-29")
