"""When a schedule comes due: a cron expression, read on the clocks of a time zone.

The fields mean what they mean to Debian's cron, with `L` and `#` besides (see the documentation of CronSim). So do the
two days of a year on which the clocks are changed:

- An expression whose minute and hour both begin without `*` names *fixed times*. One that the clocks skip comes right
  after the gap, as one tick however many were skipped; one that they show twice comes the first time only.
- Any other expression comes at every real minute at which the clocks show what matches: not at all within a gap, and
  in both hours that bear the same name.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import dropwhile
from typing import Annotated, Final
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from ccat_ops_db.naming import closest

_FIELDS: Final = {
    "minute": ("0 to 59", 60),
    "hour": ("0 to 23", 24),
    "day of the month": ("1 to 31, `L`, `LW`", 31),
    "month": ("1 to 12, `JAN` to `DEC`", 12),
    "day of the week": ("0 to 7, `SUN` to `SAT`, `5L`, `MON#2`", 7),
}
"""The fields of an expression in their order, what each takes, and how many values it goes through."""
_LAST: Final = frozenset({"L", "LW"})
"""Days of which there is one in a month, so that nothing can step over them."""
_MINUTE: Final = timedelta(minutes=1)
_YEARS: Final = 50
"""Ticks further apart count as none; the rarest, a certain weekday on 29 February, are 40 years apart."""
_LATER: Final = datetime(2100, 1, 1)  # noqa: DTZ001 - what clocks show, wherever they hang
"""Here only the lasting rules of the time zones are in force."""


def _expression(cron: str) -> str:
    fields = cron.split()
    if len(fields) != len(_FIELDS):
        made_of = f"{len(_FIELDS)} fields make one ({', '.join(_FIELDS)})"
        raise ValueError(f"`{cron}` is no cron expression: {made_of}, such as `30 18 * * *`")
    for index, (name, (taken, most)) in enumerate(_FIELDS.items()):
        alone = ["*"] * index + [fields[index]] + ["*"] * (len(_FIELDS) - index - 1)
        if not _is_readable(" ".join(alone)) or _oversteps(fields[index], most):
            raise ValueError(
                f"`{fields[index]}` is no {name} of a cron expression: it takes `*`, {taken}, "
                f"ranges `a-b`, steps `*/n` of 1 to {most}, and lists `a,b`"
            )
    return cron


def _oversteps(field: str, most: int) -> bool:
    """Whether a step leaves nothing but where it begins, as does `*/100` of minutes, which comes every hour."""
    steps = [term.partition("/") for term in field.upper().split(",") if "/" in term]
    return any(start in _LAST or int(step) > most for start, _, step in steps)


def _is_readable(cron: str) -> bool:
    try:
        CronSim(cron, _LATER)
    except (CronSimError, ValueError):  # ValueError: more digits than Python reads
        return False
    return True


@cache
def _time_zones() -> frozenset[str]:
    return frozenset(available_timezones() - {"Factory", "localtime"})  # each machine means another one by these


def _time_zone(name: str) -> str:
    if name not in _time_zones():
        places = [one for one in _time_zones() if one == "UTC" or ("/" in one and not one.startswith("Etc/"))]
        close = closest(name, places)  # of abbreviations the nearest is another one: EST of CEST
        hint = (
            f"Did you mean `{close}`?"
            if close
            else "Name the place whose clocks are meant, such as `America/Santiago`, or `UTC`."
        )
        raise ValueError(f"there is no time zone `{name}`. {hint}")
    return name


TimeZone = Annotated[str, AfterValidator(_time_zone)]


class Schedule(BaseModel):
    """A cron expression of five fields, and the IANA time zone whose clocks it is read on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cron: Annotated[str, AfterValidator(_expression)]
    time_zone: TimeZone = "UTC"

    @model_validator(mode="after")
    def _comes_true(self) -> "Schedule":
        if not _is_readable(self.cron) or not any(_ticks(self, _LATER, fold=0)):
            raise ValueError(f"`{self.cron}` never comes true on the clocks of {self.time_zone}")
        return self


def next_tick(schedule: Schedule, after: datetime) -> datetime:
    """The first tick later than an aware moment, in UTC."""
    clock = _clock(schedule, after, fold=1)
    readings = [_ticks(schedule, clock, fold=fold) for fold in _folds(schedule)]
    return min(next(dropwhile(lambda tick: tick <= after, ticks)) for ticks in readings)


def last_tick(schedule: Schedule, until: datetime) -> datetime:
    """The newest tick that is not later than an aware moment, in UTC."""
    clock = _clock(schedule, until, fold=0) + _MINUTE
    readings = [_ticks(schedule, clock, fold=fold, reverse=True) for fold in _folds(schedule)]
    return max(next(dropwhile(lambda tick: tick > until, ticks)) for ticks in readings)


def due(schedule: Schedule, *, last: datetime, now: datetime) -> datetime | None:
    """The newest tick after `last` that has come by `now`; None where none has.

    However many were missed, the newest stands for them all. It is looked for from `now` backwards, so it costs the
    same after a minute and after ten years.
    """
    newest = last_tick(schedule, now)
    return newest if newest > last else None


def _is_fixed(schedule: Schedule) -> bool:
    minute, hour, *_ = schedule.cron.split()
    return not minute.startswith("*") and not hour.startswith("*")


def _folds(schedule: Schedule) -> tuple[int, ...]:
    """Which of the two moments are meant, where the clocks show the same twice."""
    return (0,) if _is_fixed(schedule) else (0, 1)


def _clock(schedule: Schedule, moment: datetime, *, fold: int) -> datetime:
    """What the clocks show to the minute; where they show it twice, by the clocks before (0) or after the change (1).

    Reckoned so, every tick after the moment is ahead of the clocks after the change, and every tick before it is
    behind the clocks before the change.
    """
    local = moment.astimezone(ZoneInfo(schedule.time_zone)).replace(fold=fold)
    shown = moment.astimezone(UTC) + (local.utcoffset() or timedelta())
    return shown.replace(tzinfo=None, second=0, microsecond=0)


def _ticks(schedule: Schedule, clock: datetime, *, fold: int, reverse: bool = False) -> Iterator[datetime]:
    """Ticks from what the clocks show, exclusively, each no earlier (`reverse`: no later) than the one before."""
    zone = ZoneInfo(schedule.time_zone)
    # CronSim is not told the zone: it loses minutes where the change is half an hour, and shows midnights that are not.
    for shown in CronSim(schedule.cron, clock, reverse=reverse):
        if abs(shown.year - clock.year) > _YEARS:
            return
        tick = shown.replace(tzinfo=zone, fold=fold)
        while _is_fixed(schedule) and _is_skipped(tick):
            tick += _MINUTE
        if not _is_skipped(tick):
            yield tick.astimezone(UTC)


def _is_skipped(local: datetime) -> bool:
    return local.astimezone(UTC).astimezone(local.tzinfo) != local
