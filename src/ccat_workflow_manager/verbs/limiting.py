"""Which of the runs that wait may start: those that limits leave room for, in their order."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.claims import is_free
from ccat_ops_db.plan.limits import Limits, Scope
from ccat_ops_db.queries.limits import limits_now
from ccat_workflow_manager.verbs.queueing import COLUMNS, IS_IN_LINE, IS_PENDING, LINE, heads, with_places

_Run, _Pipeline = models.ExecutedReductionStep, models.Pipeline
NOTED: Final = 1_000
"""Runs on which it is written in one statement what holds them."""
_LOCKS: Final = {Scope.USER: 0x75736572, Scope.LOCATION: 0x706C6163}
"""Keys of the locks that let one count after the other; whoever evaluates a pipeline has it to himself already."""
_COLUMNS: Final[Mapping[Scope, sa.ColumnElement[Any]]] = {
    Scope.REDO: sa.case((_Run.is_redo, _Run.pipeline_id), else_=None),
    Scope.PIPELINE: sa.type_coerce(_Run.pipeline_id, sa.BigInteger),
    Scope.USER: sa.select(sa.type_coerce(_Pipeline.created_by_user_id, sa.BigInteger))
    .where(_Pipeline.id == _Run.pipeline_id)
    .correlate(_Run)
    .scalar_subquery(),
    Scope.LOCATION: sa.type_coerce(_Run.data_location_id, sa.BigInteger),
}
"""By which id a run is counted, as SQL over runs."""
_SEEN: Final = 1_000
"""So many runs at the head of each pipeline are looked at when limits are filled, however many wait."""
_MOST: Final = sa.bindparam("most", type_=sa.BigInteger())


def lock_limits(session: Session, *, users: Iterable[int], locations: Iterable[int], now: datetime) -> Limits:
    """Every limit, and what it leaves; nobody starts runs of these users or locations until the transaction is over.

    The caller has evaluated the pipelines of the runs in the same transaction.
    """
    for scope, ids in ((Scope.USER, users), (Scope.LOCATION, locations)):
        for number in sorted(set(ids)):
            session.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCKS[scope], number)))
    return limits_now(session, now=now)


def first_in_line(session: Session, limits: Limits, which: sa.ColumnElement[bool], *, most: int) -> list[int]:
    """Of the free runs in line that meet a condition, the first that limits leave room for.

    Each limit is filled in the order with what the limits before it let through. The condition may be on the `LINE`,
    too: a pipeline that does not meet it is not looked through.
    """
    statement = _with_room(limits, which) if limits else _unlimited(which)
    return list(session.scalars(statement, {"most": most}))


@lru_cache(maxsize=8)
def _unlimited(which: sa.ColumnElement[bool]) -> sa.Select[int]:
    return _front(with_places(heads(which, most=_MOST)))


def _with_room(limits: Limits, which: sa.ColumnElement[bool]) -> sa.Select[int]:
    columns = [column.label(scope) for scope, column in _COLUMNS.items()]
    left = with_places(heads(sa.and_(which, *_may_have_room(limits)), *columns, most=_SEEN))
    for scope in Scope:
        if rooms := limits.rooms(scope):
            left = _first(left, scope, rooms)
    return _front(left)


def _front(placed: sa.Subquery) -> sa.Select[int]:
    return sa.select(placed.c.id).order_by(placed.c.place).limit(_MOST)


def _may_have_room(limits: Limits) -> Iterator[sa.ColumnElement[bool]]:
    """The same as `has_some_room`, so said that what is full as a whole is passed over without a look at its runs."""
    if full := limits.full(Scope.PIPELINE):
        yield LINE.id.not_in(list(full))
    if full := limits.full(Scope.USER):
        yield sa.or_(LINE.created_by_user_id.is_(None), LINE.created_by_user_id.not_in(list(full)))
    if full := limits.full(Scope.REDO):
        yield _Run.is_redo <= LINE.id.not_in(list(full))  # the index ends the search where redoing begins
    if full := limits.full(Scope.LOCATION):
        yield _Run.data_location_id.not_in(list(full))


def has_some_room(limits: Limits) -> sa.ColumnElement[bool]:
    """Condition on a run: each limit leaves some room for runs like it."""
    return _held(limits).is_(None) if limits else sa.true()


def _first(left: sa.Subquery, scope: Scope, rooms: Mapping[int, int]) -> sa.Subquery:
    """Of runs, the first that one kind of limit leaves room for, and those that it does not count."""
    rank = sa.func.row_number().over(partition_by=left.c[scope], order_by=left.c.place)
    ranked = sa.select(left, rank.label("rank")).subquery()
    room = sa.case(dict(rooms), value=ranked.c[scope], else_=None)
    kept = [column for column in ranked.c if column.key != "rank"]
    return sa.select(*kept).where(sa.or_(room.is_(None), ranked.c.rank <= room)).subquery()


def _held(limits: Limits) -> sa.ColumnElement[str | None]:
    """Why limits leave no room for a run; NULL where they do."""
    held = [sa.case(dict(full), value=_COLUMNS[scope], else_=None) for scope in Scope if (full := limits.full(scope))]
    return sa.func.coalesce(*held, sa.null().cast(sa.Text))


def note_held(session: Session, limits: Limits, which: sa.ColumnElement[bool]) -> int:
    """Write on some PENDING runs what limit holds them, where that is not written there; on how many, at most."""
    if not limits:
        return 0
    held = _held(limits)
    told = (
        sa.select(_Run.id, held.label("held"))
        .where(which, IS_PENDING, is_free(_Run), IS_IN_LINE)
        .where(held.is_not(None), _Run.waiting_for.is_distinct_from(held))
        .limit(NOTED)
        .with_for_update(of=_Run, skip_locked=True)
        .subquery()
    )
    noted = sa.update(_Run).where(_Run.id == told.c.id).values(waiting_for=told.c.held, held_by_limit=True)
    options = {"synchronize_session": False}
    return len(session.scalars(noted.returning(_Run.id), execution_options=options).all())


@dataclass(frozen=True)
class InLine:
    """A run that only a limit holds, among the others that it holds."""

    because: str
    place: int
    """Counted from one."""
    number: int


def in_line(session: Session, run_id: int, *, now: datetime) -> InLine | None:
    """Where a PENDING run stands among those that the same limit holds; None where no limit is in its way."""
    limits = limits_now(session, now=now)
    if not limits:
        return None
    held = _held(limits)
    placed = with_places(sa.select(*COLUMNS, held.label("held")).where(IS_PENDING, IS_IN_LINE))
    place = sa.func.row_number().over(partition_by=placed.c.held, order_by=placed.c.place)
    number = sa.func.count().over(partition_by=placed.c.held)
    line = sa.select(placed.c.id, placed.c.held, place, number).where(placed.c.held.is_not(None)).subquery()
    row = session.execute(sa.select(line).where(line.c.id == run_id)).one_or_none()
    return InLine(*row[1:]) if row is not None else None
