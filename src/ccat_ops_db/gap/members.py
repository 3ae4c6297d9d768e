"""Raw packages divided into the sub-groups of a step, and kept so."""

from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.scope import Scope, Written
from ccat_ops_db.gap.steps import PipelineNow, StepNow
from ccat_ops_db.grouping.compile import select_members
from ccat_ops_db.grouping.names import path_of

_Group, _Member = models.SubGroup, models.SubGroupPackage
_FACTS: Final = ("archived_at", "is_faded")


def divide(
    session: Session, pipeline: PipelineNow, step: StepNow, *, packages: Scope, lists: bool, now: datetime
) -> Written:
    """Bring these packages into the sub-groups that they belong to now; the sub-groups that this may have changed.

    Where all packages are looked at, the sub-groups are named only if it `lists` them.
    """
    selected = select_members(pipeline.rules, step.group_by, now=now)
    current = selected.where(packages.covers(models.RawDataPackage.id)).cte("current").prefix_with("MATERIALIZED")
    placed = _place(current, step, packages)
    gone, differing = _remove(current, step.id, packages), _differing(placed, step.id)
    touched = [
        sa.select(gone.c.sub_group_id),
        sa.select(differing.c.was).where(differing.c.was.is_not(None)),
        sa.select(_put(differing, step.id).c.sub_group_id),
    ]
    if packages.ids is not None:  # what changed about a package may be something else than where it belongs
        touched.append(sa.select(placed.c.home))
    found = sa.union_all(*touched).subquery().c[0]
    if packages.ids is None and not lists:
        return Written.anything(session.scalars(sa.select(sa.func.count(found))).one())
    return Written.those(session.scalars(sa.select(found)))


def _place(current: sa.CTE, step: StepNow, packages: Scope) -> sa.CTE:
    """The packages with the ids of their sub-groups, which are made where there are none yet."""
    of_step = sa.select(_Group.id, _Group.key, _Group.labels).where(_Group.reduction_step_id == step.id)
    named = of_step if packages.ids is None else of_step.where(_Group.key.in_(sa.select(current.c.key)))
    known = named.cte("known").prefix_with("MATERIALIZED")
    made = _make(current, known, step)
    facts = (current.c.raw_data_package_id, current.c.archived_at, current.c.is_faded)
    return (
        sa.select(*facts, sa.func.coalesce(known.c.id, made.c.id).label("home"))
        .outerjoin_from(current, known, known.c.key == current.c.key)
        .outerjoin(made, made.c.key == current.c.key)
        .cte("placed")
        .prefix_with("MATERIALIZED")
    )


def _make(current: sa.CTE, known: sa.CTE, step: StepNow) -> sa.CTE:
    """Sub-groups that are new, or called otherwise than before."""
    path = path_of(current.c.key, current.c.labels, step.group_by)
    unknown = sa.or_(known.c.id.is_(None), known.c.labels != current.c.labels)
    new = insert(_Group).from_select(
        ["reduction_step_id", "key", "labels", "path"],
        sa.select(sa.literal(step.id), current.c.key, current.c.labels, path)
        .ext(distinct_on(current.c.key))
        .outerjoin_from(current, known, known.c.key == current.c.key)
        .where(unknown)
        .order_by(current.c.key),
    )
    called = {"path": new.excluded.path, "labels": new.excluded.labels}
    made = new.on_conflict_do_update(index_elements=["reduction_step_id", "key"], set_=called)
    return made.returning(_Group.id, _Group.key).cte("made")


def _remove(current: sa.CTE, step_id: int, packages: Scope) -> sa.CTE:
    """Take out packages that belong nowhere any more."""
    stays = sa.exists().where(current.c.raw_data_package_id == _Member.raw_data_package_id)
    gone = sa.delete(_Member).where(
        _Member.reduction_step_id == step_id, packages.covers(_Member.raw_data_package_id), sa.not_(stays)
    )
    return gone.returning(_Member.sub_group_id).cte("gone")


def _differing(placed: sa.CTE, step_id: int) -> sa.CTE:
    """Packages that are not noted as they should be, and where they were before."""
    same = sa.and_(_Member.reduction_step_id == step_id, _Member.raw_data_package_id == placed.c.raw_data_package_id)
    facts = ((_Member.sub_group_id, placed.c.home), *((getattr(_Member, one), placed.c[one]) for one in _FACTS))
    differs = sa.or_(*(noted.is_distinct_from(found) for noted, found in facts))
    return (
        sa.select(placed, _Member.sub_group_id.label("was"))
        .outerjoin_from(placed, _Member, same)
        .where(differs)
        .cte("differing")
    )


def _put(differing: sa.CTE, step_id: int) -> sa.CTE:
    """Note where packages belong."""
    package = differing.c.raw_data_package_id
    columns = ["reduction_step_id", "raw_data_package_id", "sub_group_id", *_FACTS]
    new = insert(_Member).from_select(
        columns, sa.select(sa.literal(step_id), package, differing.c.home, *(differing.c[one] for one in _FACTS))
    )
    noted = {name: new.excluded[name] for name in columns[2:]}
    put = new.on_conflict_do_update(index_elements=columns[:2], set_=noted)
    return put.returning(_Member.sub_group_id).cte("put")


def vanished(session: Session, step_id: int, sub_groups: Scope) -> list[str]:
    """Delete the sub-groups that have no package left; their keys."""
    empty = sa.not_(sa.exists().where(_Member.sub_group_id == _Group.id))
    gone = sa.delete(_Group).where(_Group.reduction_step_id == step_id, sub_groups.covers(_Group.id), empty)
    return list(session.scalars(gone.returning(_Group.key)))
