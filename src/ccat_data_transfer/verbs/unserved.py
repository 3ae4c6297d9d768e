"""What waits where no transfer-worker takes anything says so: its messages only lie in a queue."""

from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.errors import NotServed
from ccat_data_transfer.verbs.outcomes import NOUNS, Transfer
from ccat_data_transfer.verbs.scheduling import LANES, Lane
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION
from ccat_ops_db.models.transfers import LIVE
from ccat_ops_db.plan.spaces import FRESH
from ccat_ops_db.states import Status

_NOW: Final = sa.func.clock_timestamp()


def tell_unserved(session: Session) -> None:
    """Have transfers say that nobody serves where they wait, and no longer say so where somebody does.

    A worker that is started again is given the time for that, and a new transfer that to be taken.
    """
    places = _unserved(session)
    for noun in NOUNS:
        lanes = [lane for lane in LANES if lane.noun is noun and places]
        here = (sa.and_(lane.belongs, lane.location_id.in_(places)) for lane in lanes)
        _take_back(session, noun, sa.or_(sa.false(), *here))
        for lane in lanes:
            _tell(session, lane, places)


def _unserved(session: Session) -> Mapping[int, str]:
    """Names of locations that no transfer-worker serves."""
    location = models.DataLocation
    is_served = location.served_at > _NOW - FRESH
    rows = LOCATION.rows.with_only_columns(location.id, LOCATION.label).where(is_served.is_not(sa.true()))
    return dict(session.execute(rows).all())


def _is_live(noun: type[Transfer]) -> sa.TextClause:
    """As the index of these says it."""
    return sa.text(f"{noun.__tablename__}.{LIVE}")


def _take_back(session: Session, noun: type[Transfer], still: sa.ColumnElement[bool]) -> None:
    told = sa.and_(_is_live(noun), noun.unserved_since.is_not(None))
    of_this = noun.failure.startswith(NotServed.begins)
    over = sa.update(noun).where(told, sa.not_(still))
    values = {"unserved_since": None, "failure": sa.case((of_this, None), else_=noun.failure)}
    session.execute(over.values(values), execution_options={"synchronize_session": False})


def _tell(session: Session, lane: Lane, places: Mapping[int, str]) -> None:
    noun = lane.noun
    waits = sa.and_(
        _is_live(noun),
        noun.status.in_([Status.PENDING, Status.SCHEDULED]),
        noun.unserved_since.is_(None),
        noun.created_at < _NOW - FRESH,
        sa.or_(noun.not_before.is_(None), noun.not_before <= _NOW),
    )
    where = lane.location_id.label("place")
    here = sa.select(noun.id, where).where(waits, lane.belongs, where.in_(places)).subquery()
    for place in session.scalars(sa.select(here.c.place).distinct()).all():
        values = {"unserved_since": _NOW, "failure": str(NotServed(places[place], lane.operation))}
        ids = sa.select(here.c.id).where(here.c.place == place)
        told = sa.update(noun).where(noun.id.in_(ids), noun.status.in_([Status.PENDING, Status.SCHEDULED]))
        session.execute(told.values(values), execution_options={"synchronize_session": False})
