"""Limits on runs, and how far they are used."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION
from ccat_ops_db.models.runs import LIVE_RUN
from ccat_ops_db.plan.limits import Limit, Limits, Occupant, Scope
from ccat_ops_db.plan.windows import Window, is_open, opens_at
from ccat_ops_db.queries.spaces import IS_SHORT, short_locations

_Run, _Pipeline = models.ExecutedReductionStep, models.Pipeline
IS_ANYTHING_LIMITED: Final = sa.or_(
    sa.exists().where(_Pipeline.limits != {}),
    sa.exists().where(models.User.live_limit.is_not(None)),
    sa.exists().where(models.Installation.live_limit_per_user.is_not(None)),
    sa.exists().where(models.DataLocation.live_limit.is_not(None)),
    sa.exists().where(IS_SHORT),
)
"""Condition on the installation: most limit nothing most of the time, and are asked this in each round."""
_IS_ANY: Final = sa.select(IS_ANYTHING_LIMITED)


@dataclass(frozen=True)
class Pace:
    """How fast a pipeline may go, and when it may redo."""

    pipeline_id: int
    pipeline: str
    created_per_minute: int | None
    redo_between: Window | None

    def closed_until(self, now: datetime) -> datetime | None:
        """When it may redo again; None where it may now."""
        window = self.redo_between
        return opens_at(window, now) if window is not None and not is_open(window, now) else None


def limits_now(session: Session, *, now: datetime) -> Limits:
    """Every limit on live runs, and what it leaves."""
    if not session.scalar(_IS_ANY):
        return Limits()
    pipelines = _limited_pipelines(session)
    declared = [*_of_pipelines(pipelines), *_of_users(session), *_of_locations(session)]
    live = _live(session) if declared else Counter()
    closed = {one.pipeline_id: (one, until) for one in map(_pace, pipelines) if (until := one.closed_until(now))}
    return Limits(
        live=[replace(one, live=live[one.scope, one.id]) for one in declared],
        closed={number: _told(one, until) for number, (one, until) in closed.items()},
        opens_at=min((until for _, until in closed.values()), default=None),
        short=short_locations(session),
    )


def paces(session: Session) -> list[Pace]:
    """Of every pipeline with limits, by name."""
    return list(map(_pace, _limited_pipelines(session)))


def occupant(pipeline: models.Pipeline, *, location_id: int, is_redo: bool) -> Occupant:
    """What limits see of a run of a pipeline."""
    return Occupant(pipeline.id, location_id, pipeline.created_by_user_id, is_redo)


def _limited_pipelines(session: Session) -> Sequence[models.Pipeline]:
    return session.scalars(sa.select(_Pipeline).where(_Pipeline.limits != {}).order_by(_Pipeline.name)).all()


def _pace(pipeline: models.Pipeline) -> Pace:
    window = pipeline.limits.get("redo_between")
    return Pace(
        pipeline.id,
        pipeline.name,
        pipeline.limits.get("created_per_minute"),
        Window.model_validate(window) if window else None,
    )


def _told(pace: Pace, until: datetime) -> str:
    return f"pipeline `{pace.pipeline}` redoes {pace.redo_between} only: it may again at {until:%F %H:%M} UTC"


def _of_pipelines(pipelines: Sequence[models.Pipeline]) -> Iterator[Limit]:
    for one in pipelines:
        for key, scope in (("live", Scope.PIPELINE), ("redo_live", Scope.REDO)):
            if key in one.limits:
                yield Limit(scope, one.id, one.name, one.limits[key])


def _of_users(session: Session) -> Iterator[Limit]:
    user, for_all = models.User, sa.select(models.Installation.live_limit_per_user).scalar_subquery()
    limit = sa.func.coalesce(user.live_limit, for_all)
    for number, name, most in session.execute(sa.select(user.id, user.name, limit).where(limit.is_not(None))):
        yield Limit(Scope.USER, number, name, most)


def _of_locations(session: Session) -> Iterator[Limit]:
    location = models.DataLocation
    limited = LOCATION.rows.with_only_columns(location.id, LOCATION.label, location.live_limit)
    for number, name, most in session.execute(limited.where(location.live_limit.is_not(None))):
        if most is not None:  # narrows the type
            yield Limit(Scope.LOCATION, number, name, most)


def _live(session: Session) -> Counter[tuple[Scope, int]]:
    """How many runs are live, by what limits count together."""
    seen = (_Run.pipeline_id, _Run.data_location_id, _Pipeline.created_by_user_id, _Run.is_redo)
    rows = session.execute(
        sa.select(*seen, sa.func.count()).join(_Run.pipeline).where(sa.text(LIVE_RUN)).group_by(*seen)
    )
    counted: Counter[tuple[Scope, int]] = Counter()
    for pipeline_id, location_id, user_id, is_redo, number in rows:
        for place in Occupant(pipeline_id, location_id, user_id, is_redo).counted().items():
            counted[place] += number
    return counted
