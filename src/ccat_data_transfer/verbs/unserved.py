"""What waits where no transfer-worker takes anything says so: its messages only lie in a queue."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.errors import NotServed
from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs.outcomes import NOUNS, Transfer
from ccat_data_transfer.verbs.scheduling import LANES, Lane
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION
from ccat_ops_db.models.transfers import LIVE
from ccat_ops_db.plan.spaces import FRESH
from ccat_ops_db.queries.serving import is_served, is_unserved
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import Status

_NOW: Final = sa.func.clock_timestamp()
_AT_ONCE: Final = 20_000


def tell_unserved(session: Session) -> None:
    """Have transfers say that nobody serves where they wait, and no longer say so where somebody does.

    A worker that is started again is given the time for that, and a new transfer that to be taken.
    """
    unserved = [(lane, _unserved(session, lane.operation)) for lane in LANES]
    for noun in NOUNS:
        lanes = [(lane, places) for lane, places in unserved if lane.noun is noun and places]
        here = (sa.and_(lane.belongs, lane.location_id.in_(places)) for lane, places in lanes)
        _take_back(session, noun, sa.or_(sa.false(), *here))
        for lane, places in lanes:
            _tell(session, lane, places)


def _unserved(session: Session, operation: Operation) -> Mapping[int, NotServed]:
    """Locations where no transfer-worker takes an operation, and how that is said."""
    rows = LOCATION.rows.with_only_columns(models.DataLocation.id, LOCATION.label, is_served())
    found = session.execute(rows.where(is_unserved(operation)))
    return {number: NotServed(name, operation, is_served=served) for number, name, served in found}


def _is_live(noun: type[Transfer]) -> sa.TextClause:
    """As the index of these says it."""
    return sa.text(f"{noun.__tablename__}.{LIVE}")


def _take_back(session: Session, noun: type[Transfer], still: sa.ColumnElement[bool]) -> None:
    told = sa.select(noun.id).where(_is_live(noun), noun.unserved_since.is_not(None), sa.not_(still))
    of_this = noun.failure.startswith(NotServed.begins)
    values = {"unserved_since": None, "failure": sa.case((of_this, None), else_=noun.failure)}
    _note(session, noun, session.scalars(_locked(told, noun)).all(), values=values)


def _tell(session: Session, lane: Lane, places: Mapping[int, NotServed]) -> None:
    noun, where = lane.noun, lane.location_id.label("place")
    waits = (
        _is_live(noun),
        noun.status != Status.IN_PROGRESS,
        noun.unserved_since.is_(None),
        noun.created_at < _NOW - FRESH,
        sa.or_(noun.not_before.is_(None), noun.not_before <= _NOW),
    )
    found = defaultdict[int, list[int]](list)
    for number, place in session.execute(
        _locked(sa.select(noun.id, where).where(*waits, lane.belongs, where.in_(places)), noun)
    ):
        found[place].append(number)
    for place, ids in found.items():
        because = str(places[place])
        _note(session, noun, ids, values={"unserved_since": _NOW, "failure": because})


def _locked(query: sa.Select[*tuple[Any, ...]], noun: type[Transfer]) -> sa.Select[*tuple[Any, ...]]:
    """The first of them that nobody else writes now: what is left is come to in the next round."""
    return query.order_by(noun.id).limit(_AT_ONCE).with_for_update(of=noun, key_share=True, skip_locked=True)


def _note(session: Session, noun: type[Transfer], ids: Collection[int], *, values: Mapping[str, object]) -> None:
    session.execute(sa.update(noun).where(is_among(noun.id, ids)).values(values))
