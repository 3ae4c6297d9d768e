"""Raw data that people know to be bad are kept out of what is made, and let in again; the data are never touched.

What an exclusion says of packages, of those that come later too, triggers of the database write down there.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.lookup import INSTRUMENT, MODULE, find
from ccat_ops_db.nights import night_of
from ccat_ops_db.queries.packages import UnknownPackage
from ccat_ops_db.verbs.reasons import require_reason

_Exclusion, _Package = models.Exclusion, models.RawDataPackage
_NOTHING = "Nothing was excluded."


class NothingNamed(CcatError):
    """Something was to be excluded, and it was not said what."""

    code = "nothing_named"

    def __init__(self) -> None:
        super().__init__(
            "Say of which instrument data are bad: `--instrument CHAI`, or `--module CHAI/LFA` for some of its "
            f"modules; `ccat package exclude` takes out one package. {_NOTHING}"
        )


class OtherInstrument(CcatError):
    """A module was named that is of another instrument than was named beside it."""

    code = "other_instrument"

    def __init__(self, module: str, instrument: str) -> None:
        super().__init__(f"Module {module} is not of instrument {instrument}; leave out `--instrument`. {_NOTHING}")


class NoTime(CcatError):
    """Something was to be excluded for all time."""

    code = "no_time"

    def __init__(self) -> None:
        super().__init__(
            "Say of which scans data are bad: `--from` and `--to`, one of which may be left out, or `--night`, such as "
            f"`--night 2026-04-01`. {_NOTHING}"
        )


class NightAndTime(CcatError):
    """An observing night was named, and another time beside it."""

    code = "night_and_time"

    def __init__(self) -> None:
        super().__init__(f"`--night` names a time already; leave out `--from` and `--to`, or `--night`. {_NOTHING}")


class EmptyTime(CcatError):
    """A time was named that ends before it begins."""

    code = "empty_time"

    def __init__(self, begins_at: datetime, ends_at: datetime) -> None:
        super().__init__(
            f"`--from {begins_at.isoformat()}` is not before `--to {ends_at.isoformat()}`: no scan was taken between "
            f"them. {_NOTHING}"
        )


class PixelWithoutName(CcatError):
    """A pixel was named by nothing."""

    code = "pixel_without_name"

    def __init__(self) -> None:
        super().__init__(f"`--pixel` is empty; name a pixel as its instrument does, such as `--pixel 7`. {_NOTHING}")


class UnknownExclusion(CcatError):
    """An exclusion was named that does not exist."""

    code = "unknown_exclusion"

    def __init__(self, number: int) -> None:
        super().__init__(f"There is no exclusion {number}; `ccat exclusions --all` lists them.")


@dataclass(frozen=True, kw_only=True)
class BadData:
    """Of which scans raw data are bad: from one moment until before another, either may be open, or of a night."""

    instrument: str | None = None
    modules: Collection[str] = ()
    """Each as `Instrument/Module`; all of the instrument if none is named."""
    begins_at: datetime | None = None
    ends_at: datetime | None = None
    night: date | None = None
    pixels: Collection[str] = ()
    """As the instrument calls them; all if none is named."""


def exclude(session: Session, bad: BadData, *, because: str, by: str) -> Sequence[models.Exclusion]:
    """Keep what is bad out of what is made, one exclusion for each module that is named; also what comes later.

    A scan is concerned if some of it was taken in that time. What is excluded in the same words already stays as it
    is. Raises ReasonMissing, UnknownName, and errors of this module.
    """
    require_reason(because, outcome=_NOTHING)
    pixels = _pixels(bad.pixels)
    said = [{**kind, **_time(bad, instrument), "pixels": pixels} for kind, instrument in _objects(session, bad)]
    rows = [_Exclusion(**one, because=because.strip(), by=by) for one in said if not _holds(session, one)]
    session.add_all(rows)
    session.flush()
    return rows


def exclude_package(
    session: Session, package_id: int, *, because: str, by: str, pixels: Collection[str] = ()
) -> models.Exclusion | None:
    """Take a package out of all groupings, or leave some of its pixels out; None where it was taken out already.

    Raises UnknownPackage, ReasonMissing and PixelWithoutName.
    """
    require_reason(because, outcome=_NOTHING)
    values = {
        "raw_data_package_id": package_id,
        "what": f"raw package {_name(session, package_id)}",
        "pixels": _pixels(pixels),
        "because": because.strip(),
        "by": by,
    }
    made = insert(_Exclusion).values(values).on_conflict_do_nothing().returning(_Exclusion)
    return session.scalars(made).one_or_none()


@dataclass(frozen=True)
class Lifted:
    """What lifting an exclusion did."""

    what: str
    held: bool
    """False where it was lifted before; then nothing changed."""


def lift(session: Session, number: int, *, because: str, now: datetime, by: str) -> Lifted:
    """Let in again what an exclusion kept out, unless another one does; raises UnknownExclusion and ReasonMissing."""
    require_reason(because, outcome="Nothing was lifted.")
    found = session.get(_Exclusion, number)
    if found is None:
        raise UnknownExclusion(number)
    return Lifted(found.what, bool(_lift(session, _Exclusion.id == number, because=because, now=now, by=by)))


def readmit_package(session: Session, package_id: int, *, because: str, now: datetime, by: str) -> Sequence[int]:
    """Lift all exclusions of this one package; those lifted. Others of its scan may hold. Raises UnknownPackage."""
    require_reason(because, outcome="Nothing was lifted.")
    _name(session, package_id)
    return _lift(session, _Exclusion.raw_data_package_id == package_id, because=because, now=now, by=by)


def _lift(session: Session, which: sa.ColumnElement[bool], *, because: str, now: datetime, by: str) -> Sequence[int]:
    lifted = {"lifted_at": now, "lifted_by": by, "lifted_because": because.strip()}
    holding = sa.update(_Exclusion).where(which, _Exclusion.lifted_at.is_(None)).values(lifted)
    return session.scalars(holding.returning(_Exclusion.id), execution_options={"synchronize_session": False}).all()


def _name(session: Session, package_id: int) -> str:
    name = session.scalar(sa.select(_Package.name).where(_Package.id == package_id))
    if name is None:
        raise UnknownPackage(package_id)
    return name


def _objects(session: Session, bad: BadData) -> list[tuple[dict[str, object], models.Instrument]]:
    """What is excluded, as columns of its row, each with its instrument."""
    whole = find(session, INSTRUMENT, bad.instrument) if bad.instrument is not None else None
    modules = {name: find(session, MODULE, name) for name in bad.modules}
    for name, module in modules.items():
        if whole is not None and module.instrument_id != whole.id:
            raise OtherInstrument(name, whole.name)
    if modules:
        return [({"instrument_module_id": one.id, "what": name}, one.instrument) for name, one in modules.items()]
    if whole is None:
        raise NothingNamed
    return [({"instrument_id": whole.id, "what": whole.name}, whole)]


def _holds(session: Session, said: Mapping[str, object]) -> bool:
    same = (getattr(_Exclusion, column).is_not_distinct_from(value) for column, value in said.items())
    return bool(session.scalar(sa.select(sa.exists().where(*same, _Exclusion.lifted_at.is_(None)))))


def _time(bad: BadData, instrument: models.Instrument) -> dict[str, datetime | None]:
    begins_at, ends_at = bad.begins_at, bad.ends_at
    if bad.night is not None:
        if begins_at or ends_at:
            raise NightAndTime
        begins_at, ends_at = night_of(bad.night, instrument.telescope.observatory.longitude_deg)
    if begins_at is None and ends_at is None:
        raise NoTime
    if begins_at and ends_at and begins_at >= ends_at:
        raise EmptyTime(begins_at, ends_at)
    return {"begins_at": begins_at, "ends_at": ends_at}


def _pixels(names: Collection[str]) -> list[str] | None:
    pixels = sorted({name.strip() for name in names})
    if "" in pixels:
        raise PixelWithoutName
    return pixels or None
