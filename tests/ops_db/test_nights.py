from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccat_ops_db.nights import observing_night

CHAJNANTOR = -67.7403

LONGITUDES = st.floats(-180, 180)
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2099, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - Hypothesis adds the zone itself


def noon_before(moment: datetime, longitude_deg: float) -> datetime:
    """The last local mean solar noon, to the microsecond."""
    offset = timedelta(hours=longitude_deg / 15)
    local = moment + offset
    noon = local.replace(hour=12, minute=0, second=0, microsecond=0)
    return (noon if noon <= local else noon - timedelta(days=1)) - offset


@pytest.mark.parametrize(
    ("moment", "night"),
    [
        ("2026-04-05T23:59:59+00:00", "2026-04-05"),  # evening at the telescope
        ("2026-04-06T04:31:00+00:00", "2026-04-05"),  # local midnight
        ("2026-04-06T10:00:00+00:00", "2026-04-05"),  # morning
        ("2026-04-06T16:30:57+00:00", "2026-04-05"),  # a second before local noon, 4 h 30 min 57.672 s behind UTC
        ("2026-04-06T16:30:58+00:00", "2026-04-06"),  # just after
        ("2026-04-06T13:30:58-03:00", "2026-04-06"),  # the same, said in Chilean summer time
    ],
)
def test_a_night_on_chajnantor_lasts_from_noon_to_noon(moment: str, night: str) -> None:
    assert observing_night(datetime.fromisoformat(moment), CHAJNANTOR) == date.fromisoformat(night)


@pytest.mark.parametrize(
    ("longitude_deg", "night"), [(-180, "2026-04-04"), (-155.47, "2026-04-05"), (0, "2026-04-05"), (180, "2026-04-05")]
)
def test_the_date_line_is_where_the_date_changes(longitude_deg: float, night: str) -> None:
    moment = datetime(2026, 4, 5, 23, 0, tzinfo=UTC)
    assert observing_night(moment, longitude_deg) == date.fromisoformat(night)


@given(MOMENTS, LONGITUDES, st.timedeltas(timedelta(0), timedelta(days=1) - timedelta(microseconds=1)))
def test_the_night_stays_from_noon_until_the_next(moment: datetime, longitude_deg: float, later: timedelta) -> None:
    noon = noon_before(moment, longitude_deg)
    assert observing_night(noon + later, longitude_deg) == observing_night(moment, longitude_deg)


@given(MOMENTS, LONGITUDES)
def test_the_night_changes_exactly_at_noon(moment: datetime, longitude_deg: float) -> None:
    noon = noon_before(moment, longitude_deg)
    before = observing_night(noon - timedelta(microseconds=1), longitude_deg)
    assert observing_night(noon, longitude_deg) - before == timedelta(days=1)


@given(MOMENTS, LONGITUDES, st.integers(-12, 14))
def test_the_zone_in_which_a_moment_is_said_does_not_matter(moment: datetime, longitude_deg: float, hours: int) -> None:
    said = moment.astimezone(timezone(timedelta(hours=hours)))
    assert observing_night(said, longitude_deg) == observing_night(moment, longitude_deg)
