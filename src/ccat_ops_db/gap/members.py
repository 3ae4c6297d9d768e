"""Raw packages divided into the sub-groups of a step, and kept so."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import INT8MULTIRANGE, distinct_on, insert
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.scope import EVERYTHING, Scope, Written
from ccat_ops_db.gap.steps import PipelineNow, StepNow
from ccat_ops_db.grouping.checking import uses_now
from ccat_ops_db.grouping.compile import select_members, select_moved
from ccat_ops_db.grouping.names import path_of
from ccat_ops_db.grouping.rules import AllOf
from ccat_ops_db.states import PackageState

_Group, _Member, _Package = models.SubGroup, models.SubGroupPackage, models.RawDataPackage
_FACTS: Final = ("archived_at", "is_faded", "excluded_pixels")
_STEP: Final = sa.bindparam("step", type_=sa.BigInteger())
_PACKAGES: Final = sa.bindparam("packages", type_=sa.ARRAY(sa.BigInteger))
_ARCHIVED: Final = sa.bindparam("packages", type_=INT8MULTIRANGE)
_IN_ORDER: Final = sa.func.row_number().over(order_by=_Package.id)
_ISLANDS: Final = (
    sa.select(_Package.id, (_Package.id - _IN_ORDER).label("island"))
    .where(_Package.state == PackageState.ARCHIVED)
    .subquery()
)
"""Numbers that follow on each other without a gap are of one island."""
_RANGES: Final = (
    sa.select(sa.func.int8range(sa.func.min(_ISLANDS.c.id), sa.func.max(_ISLANDS.c.id), "[]").label("ids"))
    .group_by(_ISLANDS.c.island)
    .subquery()
)
_ARCHIVED_NOW: Final = sa.select(sa.cast(sa.func.range_agg(_RANGES.c.ids), sa.Text))
_ANY_TIME: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Archived:
    """All packages that were archived at one moment.

    A look at everything is many statements, each of which sees what was committed before it. What is archived
    meanwhile must be in none of the sub-groups: else it would be in those of a map, say, and not in those of what the
    map needs.
    """

    ids: str
    """A multirange, as text: they are many, and nearly all that there are."""


@dataclass(frozen=True)
class Divided:
    """What dividing packages changed."""

    written: Written
    left: Scope
    """Sub-groups that a package left."""


def archived_now(session: Session) -> Archived:
    """What is archived as far as this statement sees."""
    return Archived(session.scalar(_ARCHIVED_NOW) or "{}")


def divide(
    session: Session, pipeline: PipelineNow, step: StepNow, *, packages: Scope | Archived, now: datetime
) -> Divided:
    """Bring these packages into the sub-groups that they belong to now; the sub-groups that this may have changed."""
    counted_from = now if uses_now(pipeline.rules) else _ANY_TIME
    some = isinstance(packages, Scope)
    statement = _statement(pipeline.rules, step.group_by, some=some, now=counted_from)
    if not isinstance(packages, Scope):  # a million ids are not brought here
        counted = sa.select(sa.func.count()).select_from(statement.subquery())
        rows = session.execute(counted, {"step": step.id, "packages": packages.ids}).scalar_one()
        return Divided(Written.anything(rows), left=EVERYTHING)
    found = session.execute(statement, {"step": step.id, "packages": sorted(packages.ids or ())}).all()
    return Divided(Written.those(row[0] for row in found), left=Scope.of(row[0] for row in found if row[1]))


def moved(session: Session, pipeline: PipelineNow, *, since: datetime, until: datetime) -> Scope:
    """Packages that relative times of a pipeline's rules may have let come or go between two moments."""
    return Scope.of(session.scalars(select_moved(pipeline.rules, since=since, until=until)))


@lru_cache(maxsize=256)  # to put it together takes as long as to carry it out
def _statement(
    rules: AllOf, group_by: tuple[str, ...], *, some: bool, now: datetime
) -> sa.CompoundSelect[*tuple[Any, ...]]:
    """Divides `packages` among the sub-groups of `step`; sub-group, and if one left it.

    They are ids where only `some` are looked at, else a multirange of all that are archived.
    """
    selected = select_members(rules, group_by, now=now)
    chosen = _Package.id == sa.any_(_PACKAGES) if some else _Package.id.op("<@")(_ARCHIVED)
    current = selected.where(chosen).cte("current").prefix_with("MATERIALIZED")
    gone, standing = _remove(current, some=some), _stand(current)
    placed = _place(_named(standing, sa.not_(standing.c.is_settled), "unsettled"), group_by)
    differs = sa.or_(placed.c.was.is_distinct_from(placed.c.home), sa.not_(placed.c.is_noted))
    differing = _named(placed, differs, "differing")
    touched = [
        sa.select(gone.c.sub_group_id, sa.true()),
        sa.select(differing.c.was, sa.true()).where(differing.c.was.is_not(None)),
        sa.select(_put(differing).c.sub_group_id, sa.false()),
    ]
    if some:  # what changed about a package may be something else than where it belongs
        touched.append(sa.select(standing.c.was, sa.false()).where(standing.c.is_settled))
        touched.append(sa.select(placed.c.home, sa.false()))
    return sa.union_all(*touched)


def _named(rows: sa.CTE, condition: sa.ColumnElement[bool], name: str) -> sa.CTE:
    """Those rows for which a condition holds."""
    return sa.select(rows).where(condition).cte(name)


def _stand(current: sa.CTE) -> sa.CTE:
    """Where packages were before: whether they are noted as they are now, and settled where they belong."""
    same = sa.and_(_Member.reduction_step_id == _STEP, _Member.raw_data_package_id == current.c.raw_data_package_id)
    facts = (getattr(_Member, one).is_not_distinct_from(current.c[one]) for one in _FACTS)
    is_noted = sa.func.coalesce(sa.and_(*facts), sa.false())
    is_home = sa.func.coalesce(sa.and_(_Group.key == current.c.key, _Group.labels == current.c.labels), sa.false())
    was = _Member.sub_group_id.label("was")
    stands = sa.select(current, was, is_noted.label("is_noted"), sa.and_(is_noted, is_home).label("is_settled"))
    with_groups = stands.outerjoin_from(current, _Member, same).outerjoin(_Group, _Group.id == _Member.sub_group_id)
    return with_groups.cte("standing").prefix_with("MATERIALIZED")


def _place(current: sa.CTE, group_by: tuple[str, ...]) -> sa.CTE:
    """The packages with the ids of their sub-groups, which are made where there are none yet."""
    of_step = sa.select(_Group.id, _Group.key, _Group.labels).where(_Group.reduction_step_id == _STEP)
    named = of_step.where(_Group.key.in_(sa.select(current.c.key)))
    known = named.cte("known").prefix_with("MATERIALIZED")
    made = _make(current, known, group_by)
    facts = [current.c[one] for one in ("raw_data_package_id", *_FACTS, "was", "is_noted")]
    return (
        sa.select(*facts, sa.func.coalesce(known.c.id, made.c.id).label("home"))
        .outerjoin_from(current, known, known.c.key == current.c.key)
        .outerjoin(made, made.c.key == current.c.key)
        .cte("placed")
        .prefix_with("MATERIALIZED")
    )


def _make(current: sa.CTE, known: sa.CTE, group_by: tuple[str, ...]) -> sa.CTE:
    """Sub-groups that are new, or called otherwise than before."""
    path = path_of(current.c.key, current.c.labels, group_by)
    unknown = sa.or_(known.c.id.is_(None), known.c.labels != current.c.labels)
    new = insert(_Group).from_select(
        ["reduction_step_id", "key", "labels", "path"],
        sa.select(_STEP, current.c.key, current.c.labels, path)
        .ext(distinct_on(current.c.key))
        .outerjoin_from(current, known, known.c.key == current.c.key)
        .where(unknown)
        .order_by(current.c.key),
    )
    called = {"path": new.excluded.path, "labels": new.excluded.labels}
    made = new.on_conflict_do_update(index_elements=["reduction_step_id", "key"], set_=called)
    return made.returning(_Group.id, _Group.key).cte("made")


def _remove(current: sa.CTE, *, some: bool) -> sa.CTE:
    """Take out packages that belong nowhere any more."""
    stays = sa.exists().where(current.c.raw_data_package_id == _Member.raw_data_package_id)
    looked_at = _Member.raw_data_package_id == sa.any_(_PACKAGES) if some else sa.true()
    gone = sa.delete(_Member).where(_Member.reduction_step_id == _STEP, looked_at, sa.not_(stays))
    return gone.returning(_Member.sub_group_id).cte("gone")


def _put(differing: sa.CTE) -> sa.CTE:
    """Note where packages belong."""
    package = differing.c.raw_data_package_id
    columns = ["reduction_step_id", "raw_data_package_id", "sub_group_id", *_FACTS]
    new = insert(_Member).from_select(
        columns, sa.select(_STEP, package, differing.c.home, *(differing.c[one] for one in _FACTS))
    )
    noted = {name: new.excluded[name] for name in columns[2:]}
    put = new.on_conflict_do_update(index_elements=columns[:2], set_=noted)
    return put.returning(_Member.sub_group_id).cte("put")


def vanished(session: Session, step_id: int, sub_groups: Scope) -> list[str]:
    """Delete those of some sub-groups that have no package left; their keys."""
    if not sub_groups:
        return []
    empty = sa.not_(sa.exists().where(_Member.sub_group_id == _Group.id))
    gone = sa.delete(_Group).where(_Group.reduction_step_id == step_id, sub_groups.covers(_Group.id), empty)
    return list(session.scalars(gone.returning(_Group.key)))
