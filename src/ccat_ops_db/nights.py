from datetime import UTC, date, datetime, timedelta

_HALF_A_DAY = timedelta(hours=12)


def observing_night(moment: datetime, longitude_deg: float) -> date:
    """Local date at whose noon the observing night of `moment` began.

    A night lasts from noon to noon of local mean solar time. `moment` is aware; `longitude_deg` is east-positive.
    """
    offset = timedelta(hours=longitude_deg / 15)
    return (moment.astimezone(UTC) + offset - _HALF_A_DAY).date()
