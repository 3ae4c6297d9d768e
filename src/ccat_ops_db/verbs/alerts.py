"""Alerts are rows before anybody is told of them, so that they are told at least once, whoever dies in between."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.claims import claim, release, renew
from ccat_ops_db.plan.alerts import (
    GRACE,
    GROWN,
    REDIS,
    Condition,
    News,
    Services,
    SignOfLife,
    is_time_to_tell,
    judge_services,
)
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.states import AlertKind

_Alert, _Watch, _Seen = models.Alert, models.AlertWatch, models.SeenService
_THE_ONE: Final = 1
_KEPT: Final = timedelta(days=90)
_STILL_NEWS: Final = timedelta(days=1)
"""How long after its end an alert is told of which nobody could be told before."""


def take_watch(session: Session, *, by: str, lease: timedelta) -> bool:
    """Be the one process that looks and tells, for a while; False where another one is."""
    session.execute(insert(_Watch).values(id=_THE_ONE).on_conflict_do_nothing())
    mine = renew(session, _Watch, [_THE_ONE], by=by, lease=lease)
    return bool(mine or claim(session, _Watch, where=_Watch.id == _THE_ONE, by=by, lease=lease, limit=1))


def leave_watch(session: Session, *, by: str) -> None:
    """Let another process look and tell at once."""
    release(session, _Watch, [_THE_ONE], by=by)


def remember_services(session: Session, alive: Collection[SignOfLife] | None, *, now: datetime) -> list[SignOfLife]:
    """Write down who shows signs of life, and return everybody who did and is not known to have ended.

    None is that Redis does not answer, so that nothing is known of anybody else.
    """
    looked_at = session.scalar(sa.select(_Watch.looked_at))
    nobody_looked = looked_at is None or now - looked_at > GRACE
    _note_sight(session, None if alive is None else now, anew=nobody_looked or alive is None)
    if nobody_looked or alive is None:  # whoever was not dead already may be well
        told = sa.select(_Alert.key).where(_Alert.kind == AlertKind.DEAD_SERVICE, _Alert.cleared_at.is_(None))
        well = _Seen.key.not_in(told) if nobody_looked else _Seen.seen_at > now - GRACE
        others = sa.update(_Seen).where(well, sa.true() if nobody_looked else _Seen.key != REDIS)
        session.execute(others.values(seen_at=now))
    if alive is not None:
        redis = SignOfLife(key=REDIS, name=REDIS, host="", beat=now, seen=now)
        for one in (*alive, redis):
            row = {"key": one.key, "name": one.name, "host": one.host, "beat_at": one.beat, "seen_at": now}
            again = {"beat_at": one.beat, "seen_at": now}
            session.execute(insert(_Seen).values(**row).on_conflict_do_update(index_elements=["key"], set_=again))
    rows = session.scalars(sa.select(_Seen).order_by(_Seen.id)).all()
    return [SignOfLife(key=one.key, name=one.name, host=one.host, beat=one.beat_at, seen=one.seen_at) for one in rows]


def _note_sight(session: Session, now: datetime | None, *, anew: bool) -> None:
    """Write down since when services are seen without a gap: in one they can do nothing, or nobody knows what."""
    since = now if anew else sa.func.coalesce(_Watch.sees_since, now)
    session.execute(sa.update(_Watch).where(_Watch.sees_since.is_distinct_from(since)).values(sees_since=since))


def look(
    session: Session, services: Services, *, backlog: timedelta, now: datetime, knows_services: bool = True
) -> Sequence[Condition]:
    """Find what is the matter now, and bring the alerts up to date: raised once, and cleared when it is over."""
    found = [*services.dead, *conditions(session, late=now - backlog)]
    _raise(session, found)
    _give_up(session, services.given_up, now=now)
    _clear(session, found, now=now, but=() if knows_services else (AlertKind.DEAD_SERVICE,))
    session.execute(sa.delete(_Seen).where(_Seen.key.in_(list(services.forgotten))))
    session.execute(sa.delete(_Alert).where(_Alert.cleared_at < now - _KEPT))
    session.execute(sa.update(_Watch).values(looked_at=now))
    return found


def judge(session: Session, alive: Collection[SignOfLife] | None, ended: Collection[str], *, now: datetime) -> Services:
    """What became of the services; None is that Redis does not answer."""
    remembered = remember_services(session, alive, now=now)
    sees_since = session.scalar(sa.select(_Watch.sees_since))
    return judge_services(remembered, alive or (), ended, now=now, sees_since=sees_since)


def _raise(session: Session, found: Iterable[Condition]) -> None:
    """Write down what is new, and what is otherwise than it was."""
    columns = (_Alert.kind, _Alert.key, _Alert.sentence, _Alert.number)
    known = {tuple(row) for row in session.execute(sa.select(*columns).where(_Alert.cleared_at.is_(None)))}
    for one in found:
        if (one.kind, one.key, one.sentence, one.number) in known:
            continue
        new = insert(_Alert).values(kind=one.kind, key=one.key, sentence=one.sentence, number=one.number)
        again = new.on_conflict_do_update(
            index_elements=["kind", "key"],
            index_where=_Alert.cleared_at.is_(None),
            set_={"sentence": one.sentence, "number": one.number},
        )
        session.execute(again)


def _give_up(session: Session, keys: Collection[str], *, now: datetime) -> None:
    """Close alerts of services that never came back: it is over for nobody who has heard that they are dead."""
    gone = (_Alert.kind == AlertKind.DEAD_SERVICE, _Alert.key.in_(list(keys)), _Alert.cleared_at.is_(None))
    values = {
        "sentence": _Alert.sentence + "; forgotten after a day without it",
        "cleared_at": now,
        "end_told_at": sa.case((_Alert.told_number > 0, now)),
    }
    session.execute(sa.update(_Alert).where(*gone).values(**values))


def _clear(session: Session, found: Iterable[Condition], *, now: datetime, but: Collection[AlertKind]) -> None:
    places = [(one.kind, one.key) for one in found]
    is_over = sa.tuple_(_Alert.kind, _Alert.key).not_in(places) if places else sa.true()
    ended = sa.update(_Alert).where(_Alert.cleared_at.is_(None), is_over, _Alert.kind.not_in(list(but)))
    session.execute(ended.values(cleared_at=now))


def news_to_tell(session: Session, *, pace: timedelta, now: datetime) -> Sequence[News]:
    """What people do not know yet, the oldest first; nothing where it is not time to tell."""
    watch = session.get_one(_Watch, _THE_ONE)
    if not is_time_to_tell(told_at=watch.told_at, next_try_at=watch.next_try_at, pace=pace, now=now):
        return []
    grown = sa.and_(_Alert.cleared_at.is_(None), _Alert.number >= GROWN * _Alert.told_number)
    is_heard_of = sa.or_(_Alert.told_number > 0, _Alert.cleared_at > now - _STILL_NEWS)
    ended = sa.and_(_Alert.cleared_at.is_not(None), _Alert.end_told_at.is_(None), is_heard_of)
    found = session.scalars(sa.select(_Alert).where(sa.or_(grown, ended)).order_by(_Alert.id))
    return [
        News(
            id=one.id,
            kind=one.kind,
            key=one.key,
            sentence=one.sentence,
            number=one.number,
            since=one.since,
            cleared_at=one.cleared_at,
        )
        for one in found
    ]


def record_told(session: Session, news: Iterable[News], *, now: datetime) -> None:
    """The hook took this; what has changed since is told the next time."""
    told = list(news)
    for one in told:
        values = {"told_at": now, "told_number": one.number} | ({"end_told_at": now} if one.cleared_at else {})
        session.execute(sa.update(_Alert).where(_Alert.id == one.id).values(**values))
    session.execute(sa.update(_Watch).values(told_at=now, tries=0, next_try_at=None, failure=None))


def record_hook_failure(session: Session, failure: str, *, next_try_at: datetime) -> None:
    """The hook did not take what it was given: it is given that again."""
    session.execute(sa.update(_Watch).values(tries=_Watch.tries + 1, next_try_at=next_try_at, failure=failure))


def hook_tries(session: Session) -> int:
    """How often the hook failed in a row."""
    return session.scalar(sa.select(_Watch.tries)) or 0
