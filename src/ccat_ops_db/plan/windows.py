"""A time of the day, read on the clocks of a time zone, on every day of the year.

It begins and ends as the fixed times of a schedule do: what the clocks skip comes right after the gap, and what they
show twice comes the first time only.
"""

import re
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ccat_ops_db.plan.schedule import Schedule, TimeZone, last_tick, next_tick

_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")


def _time_of_day(text: str) -> str:
    if not _TIME.fullmatch(text):
        raise ValueError(f'`{text}` is no time of the day: "00:00" to "23:59"')
    return text


def _no_number(written: Any) -> Any:
    """Refuse the bare hour, with what it may mean."""
    if not isinstance(written, int) or isinstance(written, bool):
        return written
    hour = written if 0 <= written < 24 else 22  # noqa: PLR2004 - of a day; any hour is an example
    raise ValueError(
        f'{written!s:.40} is no time of the day; write it with minutes and in quotes, such as "{hour:02}:00"'
    )


TimeOfDay = Annotated[str, BeforeValidator(_no_number), AfterValidator(_time_of_day)]


class Window(BaseModel):
    """From one time of the day to another, over midnight where that is the earlier one."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)

    from_: TimeOfDay = Field(alias="from")
    to: TimeOfDay
    time_zone: TimeZone = "UTC"

    @model_validator(mode="after")
    def _is_not_empty(self) -> "Window":
        if self.from_ == self.to:
            raise ValueError("`from` and `to` are the same; leave the window out where any time will do")
        return self

    def __str__(self) -> str:
        return f"from {self.from_} to {self.to} ({self.time_zone})"


def is_open(window: Window, now: datetime) -> bool:
    """Whether an aware moment is within the window; its end is not."""
    return last_tick(_daily(window.from_, window.time_zone), now) > last_tick(_daily(window.to, window.time_zone), now)


def opens_at(window: Window, now: datetime) -> datetime:
    """When the window opens next after an aware moment, in UTC."""
    return next_tick(_daily(window.from_, window.time_zone), now)


@cache
def _daily(time: str, time_zone: str) -> Schedule:
    hour, minute = time.split(":")
    return Schedule(cron=f"{minute} {hour} * * *", time_zone=time_zone)
