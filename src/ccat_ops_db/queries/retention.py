"""What may go, where, and what is in the way: facts about copies, for those who delete them and those who ask."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION
from ccat_ops_db.models.data import GOING, LOST
from ccat_ops_db.plan.digests import NOT_INPUTS
from ccat_ops_db.plan.retention import (
    AWAY_AFTER,
    INTERMEDIATE_DAYS,
    MAY_BE_BEHIND,
    SCRUBBED_AFTER,
    Group,
    Keeping,
    Kind,
    Obstacle,
    Space,
    Term,
    keeping,
    room_to_make,
)
from ccat_ops_db.queries.lost_packages import lost_packages
from ccat_ops_db.queries.pauses import held_because, is_held
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import DataProductType, LocationType, PhysicalCopyStatus, StorageType

USUAL_CLASS: Final = "raw"
"""Class of the data of instruments that name none."""
_Location = models.DataLocation
_Copy: Final = models.PhysicalCopy
_LIE: Final = ("present", "staged")
_DAMAGED: Final = ("corrupt", "missing")
_NOT_DELETED: Final = (*_LIE, "deletion_possible", "deletion_scheduled", "deletion_in_progress", "deletion_failed")
_FEW: Final = 500
"""Copies that are looked up one by one; of many more at a time the database plans nested loops that take minutes."""
_MANY: Final = 10 * _FEW
"""Copies of which all that are like them are asked about at once."""
_INPUTS: Final = sorted(set(DataProductType) - NOT_INPUTS)
_TYPES: Final[Mapping[str, sa.types.TypeEngine[Any]]] = {
    "locations": sa.ARRAY(sa.BigInteger),
    "days": sa.ARRAY(sa.BigInteger),
    "ids": sa.ARRAY(sa.BigInteger),
    "lost": sa.ARRAY(sa.BigInteger),
    "inputs": sa.ARRAY(sa.Text),
    "intermediate_days": sa.BigInteger(),
    "away": sa.Interval(),
    "scrubbed": sa.Interval(),
    "behind": sa.Interval(),
    "now": sa.TIMESTAMP(timezone=True),
    "room": sa.BigInteger(),
    "most": sa.BigInteger(),
}
_OF_PLACES: Final[Mapping[str, str]] = {
    "scope": "c.data_location_id = ANY(:locations)",
    "packages": "true",
    "products": "true",
    "paths": "c.data_location_id = ANY(:locations)",
}
_OF_SOME: Final[Mapping[str, str]] = {
    "scope": "c.id = ANY(:ids)",
    "packages": """a.raw_data_package_id IN (
        SELECT coalesce(c.raw_data_package_id, f.raw_data_package_id, crossed.id)
        FROM physical_copy c
        LEFT JOIN raw_data_file f ON f.id = c.raw_data_file_id
        LEFT JOIN raw_data_package crossed ON crossed.data_transfer_package_id = c.data_transfer_package_id
        WHERE c.id = ANY(:ids))""",
    "products": "a.data_product_id IN (SELECT c.data_product_id FROM physical_copy c WHERE c.id = ANY(:ids))",
    "paths": """(c.data_location_id, c.path) IN (
        SELECT o.data_location_id, o.path FROM physical_copy o WHERE o.id = ANY(:ids))""",
}
"""What of the facts is needed, and how it is found: all of them at once, or each by an index."""
_SOON: Final = """p.id IN (
    SELECT m.raw_data_package_id FROM sub_group g JOIN sub_group_package m ON m.sub_group_id = g.id
    WHERE g.verdict <> 'up_to_date')"""
_IS_OVER: Final = "due_at <= :now"
_GROUPS: Final = f"""
SELECT data_location_id, kind, obstacle,
    CASE WHEN due_at IS NULL THEN 'never' WHEN {_IS_OVER} THEN 'over' ELSE 'ahead' END AS term,
    count(*) AS copies, sum(size_bytes)::bigint AS bytes
FROM copy GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3 NULLS FIRST, 4
"""  # noqa: S608 - a condition of ours
_OVER: Final = f"""
SELECT id, kind FROM copy WHERE obstacle IS NULL AND {_IS_OVER} ORDER BY due_at, id LIMIT :most
"""  # noqa: S608 - a condition of ours
_IN_LINE: Final = f"""
SELECT id, kind, size_bytes, due_at, sum(size_bytes) OVER (ORDER BY is_needed_soon, since, id) - size_bytes AS before
FROM copy WHERE obstacle IS NULL AND kind NOT IN ('product', 'archived_product') AND ({_IS_OVER}) IS NOT TRUE
"""  # noqa: S608 - a condition of ours
_FOR_ROOM: Final = f"""
SELECT id, kind FROM ({_IN_LINE}) line WHERE before < :room ORDER BY before, id LIMIT :most
"""  # noqa: S608 - a statement of ours
_GROUPS_FOR_ROOM: Final = f"""
SELECT kind, NULL AS obstacle, CASE WHEN due_at IS NULL THEN 'never' ELSE 'ahead' END AS term,
    count(*) AS copies, sum(size_bytes)::bigint AS bytes
FROM ({_IN_LINE}) line WHERE before < :room GROUP BY 1, 3 ORDER BY 1, 3
"""  # noqa: S608 - a statement of ours
_FROM_DAMAGED: Final = ("FROM copy", "FROM damaged")
_GROUPS_DAMAGED: Final = _GROUPS.replace(*_FROM_DAMAGED)
_OVER_DAMAGED: Final = _OVER.replace(*_FROM_DAMAGED)
_FREE_DAMAGED: Final = "SELECT id FROM damaged WHERE obstacle IS NULL"
_IS_DAMAGED: Final = sa.text(f"physical_copy.{LOST}")
_OBSTACLES: Final = "SELECT id, obstacle FROM copy WHERE obstacle IS NOT NULL"
_PLANNED: Final = sa.text("""
SELECT set_config('work_mem', '64MB', true), set_config('enable_nestloop', :nested, true),
    set_config('random_page_cost', :random, true)
""")
"""How the rest of a transaction is planned."""
_SINGLY: Final[Mapping[str, str | None]] = {"nested": "on", "random": None}
"""As usual: what is asked about is looked up by indexes."""
_TOGETHER: Final = {"nested": "on", "random": "4"}
"""Of all copies at locations tables are read from end to end: in the order of UUIDs it takes twice as long."""
_FIRST: Final = {"nested": "off", "random": "4"}
"""Asked for the first of many, the database would look up each singly all the same."""
_GOING: Final = sa.text(f"""
SELECT c.data_location_id, status, count(*) AS copies, min(c.failure) AS failure,
    coalesce(sum(coalesce(c.size_bytes, f.size_bytes)), 0)::bigint AS bytes
FROM physical_copy c LEFT JOIN raw_data_file f ON f.id = c.raw_data_file_id
WHERE {GOING} GROUP BY c.data_location_id, status ORDER BY 1, 2
""")  # noqa: S608 - a condition of ours
_ANY_GOING: Final = sa.text(f"""
SELECT EXISTS (
    SELECT FROM physical_copy
    WHERE data_location_id = :location AND {GOING} AND status <> 'deletion_failed'
      AND (failure IS NULL OR not_before IS NULL OR not_before <= now()))  -- else the database keeps it
""")  # noqa: S608 - a condition of ours


@dataclass(frozen=True, kw_only=True)
class Place:
    """A location, and what is to be kept there."""

    id: int
    name: str
    """`site/location`."""
    type: LocationType
    storage: StorageType
    keeping: Keeping
    space: Space
    deleted_at: datetime | None
    paused: str | None
    """Why nothing goes there."""

    def room(self, now: datetime) -> int:
        """Bytes that have to go for want of space, as far as a worker saw it since the last copy went."""
        if self.deleted_at and self.space.checked_at and self.space.checked_at <= self.deleted_at:
            return 0
        return room_to_make(self.keeping, self.space, now=now)


@dataclass(frozen=True, kw_only=True)
class Going:
    """Copies at a location that are on their way to be deleted."""

    status: PhysicalCopyStatus
    copies: int
    bytes: int
    failure: str | None


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What would become of the copies at a location now."""

    place: Place
    room_bytes: int
    """What has to go for want of space."""
    groups: Sequence[Group]
    for_room: Sequence[Group]
    """Those of them that would go before their time."""
    going: Sequence[Going]
    damaged: Sequence[Group] = ()
    """Copies outside of archives that were found damaged or gone."""


def keeps_all() -> sa.ColumnElement[bool]:
    """Condition on a location: an archive of which nobody has said for how long it keeps copies."""
    is_archive = _Location.location_type == LocationType.LONG_TERM_ARCHIVE
    return sa.and_(is_archive, _Location.retention_days.is_(None), _Location.high_watermark.is_(None))


def is_paused() -> sa.ColumnElement[bool]:
    """Condition on a location: somebody said that nothing is to go there for now."""
    return sa.or_(_Location.retention_paused.is_not(None), is_held())


def places(session: Session, ids: Collection[int] | None = None) -> Sequence[Place]:
    """Locations where copies may go at all, or those that are given; by their names."""
    return _places(session, sa.not_(keeps_all()) if ids is None else _Location.id.in_(ids))


def _places(session: Session, which: sa.ColumnElement[bool]) -> Sequence[Place]:
    paused = sa.func.coalesce(_Location.retention_paused, held_because())
    rows = LOCATION.rows.add_columns(LOCATION.label, paused).where(which)
    return [_place(one, name, paused) for one, name, paused in session.execute(rows.order_by(LOCATION.label))]


def _place(one: _Location, name: str, paused: str | None) -> Place:
    return Place(
        id=one.id,
        name=name,
        type=one.location_type,
        storage=one.storage_type,
        keeping=keeping(one.location_type, days=one.retention_days, high=one.high_watermark, low=one.low_watermark),
        space=Space(free=one.free_bytes, total=one.total_bytes, checked_at=one.space_checked_at),
        deleted_at=one.deleted_at,
        paused=paused,
    )


def forecast(session: Session, of: Sequence[Place], *, now: datetime) -> Sequence[Forecast]:
    """What would become of the copies at locations now: what goes, what stays, and why."""
    told: dict[str, Any] = {"now": now, "lost": lost_packages(session)}
    groups, going = _groups(_rows(session, _GROUPS, of, **told)), _going(session)
    damaged = _groups(_of_damaged(session, _GROUPS_DAMAGED, of, **told))
    found = [_forecast(session, one, groups[one.id], going=going.get(one.id, ()), now=now) for one in of]
    return [replace(one, damaged=damaged[one.place.id]) for one in found]


def _groups(rows: Iterable[Mapping[str, Any]]) -> Mapping[int, Sequence[Group]]:
    alike: dict[tuple[int, Kind, Obstacle | None, Term], Group] = {}
    for row in rows:
        one = _group(row)
        key = (row["data_location_id"], one.kind, one.obstacle, one.term)
        before = alike.get(key)
        alike[key] = replace(one, copies=one.copies + before.copies, bytes=one.bytes + before.bytes) if before else one
    found = defaultdict[int, list[Group]](list)
    for (location_id, *_), one in alike.items():
        found[location_id].append(one)
    return found


def _group(row: Mapping[str, Any]) -> Group:
    return Group(
        kind=Kind(row["kind"]),
        obstacle=Obstacle(row["obstacle"]) if row["obstacle"] else None,
        term=Term(row["term"]),
        copies=row["copies"],
        bytes=row["bytes"],
    )


def _forecast(
    session: Session, place: Place, groups: Sequence[Group], *, going: Sequence[Going], now: datetime
) -> Forecast:
    room = place.room(now)
    over = sum(one.bytes for one in groups if one.may_go and one.term is Term.OVER)
    left = room - over - sum(one.bytes for one in going if one.status is not PhysicalCopyStatus.DELETION_FAILED)
    early = _rows(session, _GROUPS_FOR_ROOM, [place], now=now, room=left) if left > 0 else ()
    for_room = [_group(row) for row in early]
    return Forecast(place=place, room_bytes=room, groups=groups, for_room=for_room, going=going)


def _going(session: Session) -> Mapping[int, Sequence[Going]]:
    found: dict[int, list[Going]] = {}
    for row in session.execute(_GOING).mappings():
        told = {**row, "status": PhysicalCopyStatus(row["status"])}
        found.setdefault(told.pop("data_location_id"), []).append(Going(**told))
    return found


def copies_over(session: Session, place: Place, *, now: datetime, most: int) -> Mapping[int, Kind]:
    """Copies at a location whose time is over and that nothing hinders, the oldest first; at most so many."""
    if place.keeping.days is None and place.type is not LocationType.PROCESSING:  # of products their step says it
        return {}
    return _kinds(_rows(session, _OVER, [place], now=now, most=most))


def copies_for_room(session: Session, place: Place, *, now: datetime, most: int) -> Mapping[int, Kind]:
    """Copies at a location that go before their time, the least needed and oldest first; none where there is room.

    Until all that were found before are gone, and a worker has looked at the disk since, there are none either.
    """
    room = place.room(now)
    if not room or session.scalar(_ANY_GOING, {"location": place.id}):
        return {}
    return _kinds(_rows(session, _FOR_ROOM, [place], now=now, room=room, most=most))


def damaged_over(session: Session, place: Place, *, now: datetime, most: int) -> Sequence[int]:
    """Copies at a location that were found damaged or gone, whose time is over, and that nothing hinders from going.

    Those of archives are made anew, and what an instrument wrote anew is nobody's to remove.
    """
    return [row["id"] for row in _of_damaged(session, _OVER_DAMAGED, [place], now=now, most=most)][:most]


def damaged_and_free(session: Session, ids: Collection[int]) -> Sequence[int]:
    """Those of some copies, found damaged or gone, that nothing hinders from going, whatever their time.

    None where deleting is paused.
    """
    goes_on = sa.and_(is_among(_Copy.id, ids), _IS_DAMAGED, _Copy.location.has(sa.not_(is_paused())))
    asked = session.scalars(sa.select(_Copy.id).where(goes_on)).all()
    rows = _rows(session, _FREE_DAMAGED, _places(session, sa.true()), statuses=_DAMAGED, ids=asked) if asked else ()
    return [row["id"] for row in rows]


def _of_damaged(session: Session, asked: str, of: Sequence[Place], **given: Any) -> Sequence[Mapping[str, Any]]:
    """What is asked of the damaged copies at locations.

    Mostly there are few, which are looked up each by an index; else it takes as long as of all others.
    """
    here = is_among(_Copy.data_location_id, [one.id for one in of])
    damaged = sa.select(_Copy.id).where(here, _IS_DAMAGED).order_by(_Copy.id).limit(_MANY + 1)
    ids = session.scalars(damaged).all()
    if len(ids) > _MANY:
        return _rows(session, asked, of, statuses=_DAMAGED, **given)
    some = (ids[start : start + _FEW] for start in range(0, len(ids), _FEW))
    return [row for few in some for row in _rows(session, asked, of, statuses=_DAMAGED, ids=few, **given)]


def obstacles(session: Session, ids: Collection[int]) -> Mapping[int, Obstacle]:
    """What hinders these copies, whatever their time; who holds their rows can rely on it."""
    here, asked = _places(session, sa.true()), sorted(ids)
    found: dict[int, Obstacle] = {}
    for start in range(0, len(asked), _FEW):
        some = asked[start : start + _FEW]
        rows = _rows(session, _OBSTACLES, here, statuses=_NOT_DELETED, ids=some)
        found |= {row["id"]: Obstacle(row["obstacle"]) for row in rows}
    return found


def _kinds(rows: Iterable[Mapping[str, Any]]) -> Mapping[int, Kind]:
    return {row["id"]: Kind(row["kind"]) for row in rows}


def _rows(
    session: Session, asked: str, of: Sequence[Place], *, statuses: Sequence[str] = _LIE, **given: Any
) -> Sequence[Mapping[str, Any]]:
    values = {
        "locations": [one.id for one in of],
        "days": [one.keeping.days for one in of],
        "inputs": _INPUTS,
        "intermediate_days": INTERMEDIATE_DAYS,
        "away": AWAY_AFTER,
        "scrubbed": SCRUBBED_AFTER,
        "behind": MAY_BE_BEHIND,
        "lost": (),  # it hinders nothing that its few copies do not
        **given,
    }
    has_archives = any(one.type is LocationType.LONG_TERM_ARCHIVE for one in of)
    statement = _statement(asked, tuple(statuses), is_of_some="ids" in given, has_archives=has_archives)
    session.execute(_PLANNED, _SINGLY if "ids" in given else _FIRST if "most" in given else _TOGETHER)
    rows = [dict(row) for row in session.execute(statement, values).mappings()]
    session.execute(_PLANNED, _SINGLY)
    return rows


@cache
def _statement(asked: str, statuses: Sequence[str], *, is_of_some: bool, has_archives: bool) -> sa.TextClause:
    parts = ("retention", "retention_raw", "retention_products", *(["retention_archives"] if has_archives else []))
    copies = ("raw_copy", "product_copy", *(["archived_copy"] if has_archives else []))
    facts = [_facts(part) for part in parts]
    facts.append(f"copy AS ({' UNION ALL '.join(f'TABLE {one}' for one in copies)})")
    facts += [_facts("retention_damaged")] if "FROM damaged" in asked else []
    text = ",\n".join(facts).format(
        **(_OF_SOME if is_of_some else _OF_PLACES),
        statuses=", ".join(f"'{status}'" for status in statuses),  # as the conditions of the indexes say it
        soon=_SOON if ":room" in asked else "false",
    )
    text += asked
    return sa.text(text).bindparams(*(sa.bindparam(key, type_=_TYPES[key]) for key in _TYPES if f":{key}" in text))


def _facts(name: str) -> str:
    return (files(__package__) / "sql" / f"{name}.sql").read_text()


@dataclass(frozen=True, kw_only=True)
class DataClassNow:
    """A class of raw data, and whose data are in it."""

    name: str
    min_copies: int
    instruments: Sequence[str]


def number_of_archives(session: Session) -> int:
    """Archives that take new copies."""
    one = models.DataLocation
    active = sa.select(sa.func.count()).where(one.location_type == LocationType.LONG_TERM_ARCHIVE, one.active)
    return session.scalar(active) or 0


def data_classes(session: Session) -> Sequence[DataClassNow]:
    """Every class of raw data, by its name."""
    kind, instrument = models.DataClass, models.Instrument
    is_its = sa.or_(
        instrument.data_class_id == kind.id, sa.and_(instrument.data_class_id.is_(None), kind.name == USUAL_CLASS)
    )
    named = sa.func.array_agg(instrument.name).filter(instrument.id.is_not(None))
    rows = sa.select(kind.name, kind.min_verified_archive_copies, named).outerjoin(instrument, is_its)
    return [
        DataClassNow(name=name, min_copies=copies, instruments=sorted(instruments or ()))
        for name, copies, instruments in session.execute(rows.group_by(kind.id).order_by(kind.name))
    ]
