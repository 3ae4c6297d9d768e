"""Who is in trouble where a copy cannot be had: the copy, or who wants it."""

from datetime import datetime, timedelta
from typing import Final

_BELIEVED: Final = timedelta(days=1)


def is_believed(read_at: datetime, *, since: datetime, now: datetime) -> bool:
    """Whether a copy is right that its location found so, though somebody cannot have it, first at `since`.

    Else it is read once more, as it may have become bad: after a day, two, four and so on.
    """
    return since < read_at and now - read_at < max(_BELIEVED, read_at - since)
