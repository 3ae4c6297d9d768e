"""Auxiliary inputs: which runs may be chosen, and which is the nearest to each package.

When a package was observed is when its scan started; a run was observed whenever a package that it covers was.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.changes import Changes
from ccat_ops_db.gap.scope import EVERYTHING, Scope
from ccat_ops_db.gap.steps import Rule, StepNow
from ccat_ops_db.grouping.compile import packages_with
from ccat_ops_db.grouping.names import key_of
from ccat_ops_db.plan.digests import NOT_INPUTS
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import SOUND_COPY_STATUSES, InputRole, PhysicalCopyStatus, ProductState, RunStatus

_Candidate, _Nearest, _Choice = models.AuxiliaryCandidate, models.AuxiliaryNearest, models.AuxiliaryChoice
_Run, _Product, _Copy, _Group, _Member = (
    models.ExecutedReductionStep,
    models.DataProduct,
    models.PhysicalCopy,
    models.SubGroup,
    models.SubGroupPackage,
)
_STARTED: Final = "ExecutedObsUnit.started_at"


def find_candidates(session: Session, step: StepNow, changes: Changes) -> Scope:
    """Note what the rules of a step may choose after these changes; the sub-groups that this may concern."""
    touched = Scope(frozenset())
    for rule in step.auxiliary:
        keys = changes.places.get(rule.from_step_id, frozenset())
        if not keys and not changes.packages:
            continue
        runs = Scope.of(session.scalars(_changed(step, rule, keys=keys, packages=changes.packages)))
        if runs:
            moments = [one for one in session.execute(_bring_candidates(step, rule, runs)) if one.same_key is not None]
            if moments:
                touched |= Scope.of(session.scalars(_around(step, rule, runs, moments=moments)))
            touched |= Scope.of(session.scalars(_takers(step, runs)))
    return touched


def find_all_candidates(session: Session, step: StepNow) -> int:
    """Note all that the rules of a step may choose, and forget rules that it has no more; rows written."""
    rows = forget(session, [step.id], except_for=[rule.name for rule in step.auxiliary])
    if not step.auxiliary:
        rows += _forget_differences(session, step)
    for rule in step.auxiliary:
        found = _bring_candidates(step, rule, EVERYTHING).subquery()
        rows += session.scalars(sa.select(sa.func.count()).select_from(found)).one()
    return rows


def find_nearest(session: Session, step: StepNow, scope: Scope) -> int:
    """Note which run each rule of a step chooses for each package of some sub-groups; rows written."""
    is_there = sa.exists().where(models.SubGroup.id == _Choice.sub_group_id)
    of_them = (_Choice.reduction_step_id == step.id, scope.covers(_Choice.sub_group_id))
    session.execute(sa.delete(_Choice).where(*of_them, sa.not_(is_there)))  # an id is never used again
    found = [_bring_nearest(step, rule, scope).subquery() for rule in step.auxiliary]
    return sum(session.scalars(sa.select(sa.func.count()).select_from(one)).one() for one in found)


def forget(session: Session, steps: Collection[int] | sa.Select[int], *, except_for: Sequence[str] = ()) -> int:
    """Delete what is noted for rules that steps have no more; rows deleted."""
    rows = 0
    for noun in (_Candidate, _Nearest, _Choice):
        gone = sa.delete(noun).where(noun.reduction_step_id.in_(steps), noun.name.not_in(except_for))
        rows += session.execute(gone).rowcount  # type: ignore[attr-defined]  # what a DELETE returns
    return rows


def _forget_differences(session: Session, step: StepNow) -> int:
    """Forget how auxiliary inputs of a step that has no rules more differ from what was taken; rows written."""
    differs = sa.or_(_Group.only_auxiliary, _Group.lost_auxiliary)
    noted = sa.update(_Group).where(_Group.reduction_step_id == step.id, differs)
    return session.execute(noted.values(only_auxiliary=False, lost_auxiliary=False)).rowcount  # type: ignore[attr-defined,no-any-return]  # what an UPDATE returns


def _changed(step: StepNow, rule: Rule, *, keys: Collection[str], packages: Collection[int]) -> sa.CompoundSelect[int]:
    """Runs that a rule may, or could, choose, and that are of these sub-groups or cover one of these packages."""
    named = sa.literal(sorted(keys), sa.ARRAY(sa.Text))
    return sa.union(
        sa.select(_Run.id).where(
            _Run.reduction_step_id == rule.from_step_id,
            _Run.sub_group_key == sa.any_(named),
            _Run.status == RunStatus.COMPLETED,
        ),
        sa.select(_Candidate.run_id).where(
            _is_of(_Candidate, step, rule), is_among(_Candidate.raw_data_package_id, packages)
        ),
    )


def _around(step: StepNow, rule: Rule, runs: Scope, *, moments: Sequence[sa.Row[Any]]) -> sa.Select[int]:
    """Sub-groups of a step with packages for which runs, at moments where they came or went, are or were the nearest.

    A package to which the run that it has is nearer keeps that.
    """
    near = _near(step, rule, runs, moments=moments).cte("near").prefix_with("MATERIALIZED")
    tables, said = packages_with(rule.same)
    package = models.RawDataPackage.__table__.c.id
    joined = sa.select(near.c.sub_group_id).join(tables, package == near.c.raw_data_package_id)
    return joined.where(_key(rule, said) == near.c.same_key).distinct()


def _near(step: StepNow, rule: Rule, runs: Scope, *, moments: Sequence[sa.Row[Any]]) -> sa.Select[Any]:
    """The same packages, each with what would have to be the same."""
    scan, package, moment = models.ExecutedObsUnit, models.RawDataPackage, _listed(moments)
    within = scan.started_at.between(moment.c.at - rule.max_age, moment.c.at + rule.max_age)
    scans = sa.select(sa.func.array_agg(scan.id)).select_from(moment).join(scan, within).scalar_subquery()
    few = scan.id == sa.any_(sa.cast(scans, sa.ARRAY(sa.Uuid)))  # or the database would expect a tenth of all
    has_nearer = sa.exists().where(
        _is_of(_Candidate, step, rule),
        _Candidate.run_id == _Nearest.run_id,
        _apart(_Candidate.observed_at, scan.started_at) < _apart(moment.c.at, scan.started_at),
    )
    return (
        sa.select(_Member.sub_group_id, _Member.raw_data_package_id, moment.c.same_key)
        .select_from(moment)
        .join(scan, sa.and_(few, within))
        .join(package, package.executed_obs_unit_id == scan.id)
        .join(_Member, sa.and_(_Member.raw_data_package_id == package.id, _Member.reduction_step_id == step.id))
        .outerjoin(_Nearest, sa.and_(_is_of(_Nearest, step, rule), _Nearest.raw_data_package_id == package.id))
        .where(sa.not_(_Member.is_faded), _Member.left_out.is_(None))
        .where(sa.or_(runs.covers(_Nearest.run_id), sa.not_(has_nearer)))
    )


def _listed(moments: Iterable[sa.Row[Any]]) -> sa.TableValuedAlias:
    """Moments with what is the same at each, as a table."""
    listed = sorted({(one.observed_at, one.same_key) for one in moments})
    at, same_key = sa.TIMESTAMP(timezone=True), sa.Text()
    columns = (
        sa.literal([one for one, _ in listed], sa.ARRAY(at)),
        sa.literal([one for _, one in listed], sa.ARRAY(same_key)),
    )
    table = sa.func.unnest(*columns).table_valued(sa.column("at", at), sa.column("same_key", same_key), name="moment")
    return table.render_derived()


def _apart(one: Any, other: Any) -> sa.ColumnElement[Any]:
    return sa.func.greatest(one - other, other - one)


def _takers(step: StepNow, runs: Scope) -> sa.Select[int]:
    """Sub-groups of a step whose newest run took auxiliary products of these runs."""
    taken, group = models.RunInput, models.SubGroup
    return (
        sa.select(group.id)
        .join(_Run, sa.and_(_Run.reduction_step_id == step.id, _Run.sub_group_key == group.key))
        .join(taken, taken.run_id == _Run.id)
        .join(_Product, _Product.id == taken.data_product_id)
        .where(group.reduction_step_id == step.id, group.last_run_id == _Run.id)
        .where(taken.role == InputRole.AUXILIARY, runs.covers(_Product.run_id))
    )


def _is_of(noun: Any, step: StepNow, rule: Rule) -> sa.ColumnElement[bool]:
    return sa.and_(noun.reduction_step_id == step.id, noun.name == rule.name)


def _bring_candidates(step: StepNow, rule: Rule, runs: Scope) -> sa.Select[Any]:
    """Statement that notes runs at the moments when they were observed; the moments where that changed something."""
    tables, said = packages_with([*rule.same, _STARTED])
    package, coverage, key = models.RawDataPackage.__table__.c.id, models.RunCoverage, _key(rule, said)
    least, most = (of(key).over(partition_by=_Run.id) for of in (sa.func.min, sa.func.max))
    wanted = (
        sa.select(
            package.label("raw_data_package_id"),
            _Run.id.label("run_id"),
            said[_STARTED].label("observed_at"),
            sa.case((least == most, key)).label("same_key"),
        )
        .select_from(_Run)
        .join(coverage, coverage.run_id == _Run.id)
        .join(tables, package == coverage.raw_data_package_id)
        .where(_Run.reduction_step_id == rule.from_step_id, _Run.status == RunStatus.COMPLETED)
        .where(runs.covers(_Run.id), _counts())
    )
    noted = sa.and_(_is_of(_Candidate, step, rule), runs.covers(_Candidate.run_id))
    keys, values = ("raw_data_package_id", "run_id"), ("observed_at", "same_key")
    return _bring(
        _Candidate, wanted, (step, rule), noted=noted, keys=keys, values=values, changed=("observed_at", "same_key")
    )


def _counts() -> sa.ColumnElement[bool]:
    """Condition on a run: it made something for others, and all of it is CURRENT and sound."""
    copy_of = _Copy.data_product_id == _Product.id
    bad = (PhysicalCopyStatus.CORRUPT, PhysicalCopyStatus.MISSING)
    is_lost = sa.and_(
        sa.exists().where(copy_of, _Copy.status.in_(bad)),
        sa.not_(sa.exists().where(copy_of, _Copy.status.in_(SOUND_COPY_STATUSES))),
    )
    made = sa.and_(_Product.run_id == _Run.id, _Product.type.not_in(NOT_INPUTS))
    fails = sa.exists().where(made, sa.or_(_Product.state != ProductState.CURRENT, is_lost))
    return sa.and_(sa.exists().where(made), sa.not_(fails))


def _key(rule: Rule, said: Any) -> sa.ColumnElement[str]:
    return sa.cast(key_of([(name, said[name], said[name]) for name in rule.same]), sa.Text)


def _bring_nearest(step: StepNow, rule: Rule, scope: Scope) -> sa.Select[Any]:
    """Statement that notes the nearest run for each package of sub-groups; what it changed."""
    tables, said = packages_with([*rule.same, _STARTED])
    package = models.RawDataPackage.__table__.c.id
    need = (
        sa.select(_Member.sub_group_id, _Member.raw_data_package_id)
        .add_columns(said[_STARTED].label("observed_at"), _key(rule, said).label("same_key"))
        .join(tables, package == _Member.raw_data_package_id)
        .where(_Member.reduction_step_id == step.id, scope.covers(_Member.sub_group_id))
        .where(sa.not_(_Member.is_faded), _Member.left_out.is_(None))
        .cte("need")
        .prefix_with("MATERIALIZED")
    )
    at, window = need.c.observed_at, rule.max_age
    before = _first(step, rule, need, between=(at - window, at), order=_Candidate.observed_at.desc())
    after = _first(step, rule, need, between=(at, at + window), order=_Candidate.observed_at.asc())
    is_earlier = sa.or_(after.c.run_id.is_(None), at - before.c.observed_at <= after.c.observed_at - at)
    wanted = (
        sa.select(need.c.raw_data_package_id, need.c.sub_group_id)
        .add_columns(sa.case((is_earlier, before.c.run_id), else_=after.c.run_id).label("run_id"))
        .outerjoin_from(need, before, sa.true())
        .outerjoin(after, sa.true())
    )
    noted = sa.and_(_is_of(_Nearest, step, rule), scope.covers(_Nearest.sub_group_id))
    keys, values = ("raw_data_package_id",), ("sub_group_id", "run_id")
    return _bring(_Nearest, wanted, (step, rule), noted=noted, keys=keys, values=values, changed=("sub_group_id",))


def _first(
    step: StepNow, rule: Rule, need: sa.CTE, *, between: tuple[Any, Any], order: sa.ColumnElement[Any]
) -> sa.FromClause:
    """The first candidate on one side of a package, of several at that moment the run that was created first."""
    found = sa.select(_Candidate.run_id, _Candidate.observed_at).where(
        _is_of(_Candidate, step, rule), _Candidate.same_key == need.c.same_key, _Candidate.observed_at.between(*between)
    )
    return found.order_by(order, _Candidate.run_id).limit(1).correlate(need).lateral()


def _bring(
    noun: Any,
    wanted: sa.Select[Any],
    rule: tuple[StepNow, Rule],
    *,
    noted: sa.ColumnElement[bool],
    keys: Sequence[str],
    values: Sequence[str],
    changed: Sequence[str],
) -> sa.Select[Any]:
    """Statement that makes the rows that are noted for a rule those that are wanted.

    It returns columns of what it changed, as it is and as it was.
    """
    told = [getattr(noun, one) for one in changed]
    now = wanted.cte("wanted").prefix_with("MATERIALIZED")
    same = sa.and_(_is_of(noun, *rule), *(getattr(noun, key) == now.c[key] for key in keys))
    gone = sa.delete(noun).where(noted, sa.not_(sa.exists().where(same))).returning(*told).cte("gone")
    differs = sa.or_(*(getattr(noun, one).is_distinct_from(now.c[one]) for one in values), noun.name.is_(None))
    differing = (
        sa.select(now, *(one.label(f"was_{one.key}") for one in told))
        .outerjoin_from(now, noun, same)
        .where(differs)
        .cte("differing")
        .prefix_with("MATERIALIZED")
    )
    of_rule = {"reduction_step_id": rule[0].id, "name": rule[1].name}
    columns = [*of_rule, *keys, *values]
    rows = sa.select(*map(sa.literal, of_rule.values()), *(differing.c[one] for one in (*keys, *values)))
    new = insert(noun).from_select(columns, rows)
    put = new.on_conflict_do_update(
        index_elements=[*of_rule, *keys], set_={one: new.excluded[one] for one in values}
    ).returning(*told)
    before = [differing.c[f"was_{one}"] for one in changed]
    was = sa.select(*(one.label(name) for one, name in zip(before, changed, strict=True))).where(before[0].is_not(None))
    return sa.select(sa.union_all(sa.select(gone), was, sa.select(put.cte("put"))).subquery())
