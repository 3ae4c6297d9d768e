from datetime import UTC, date, datetime, time, timedelta

_HALF_A_DAY = timedelta(hours=12)


def observing_night(moment: datetime, longitude_deg: float) -> date:
    """Local date at whose noon the observing night of `moment` began.

    A night lasts from noon to noon of local mean solar time. `moment` is aware; `longitude_deg` is east-positive.
    """
    offset = timedelta(hours=longitude_deg / 15)
    return (moment.astimezone(UTC) + offset - _HALF_A_DAY).date()


def night_of(evening: date, longitude_deg: float) -> tuple[datetime, datetime]:
    """When the observing night of a local date begins and ends; its end is the beginning of the next one."""
    noon = datetime.combine(evening, time(12), UTC) - timedelta(hours=longitude_deg / 15)
    return noon, noon + 2 * _HALF_A_DAY
