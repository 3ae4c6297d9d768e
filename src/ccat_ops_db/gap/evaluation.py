"""One pipeline, evaluated: what changed is taken from the inbox, and only what it can affect is looked at."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.auxiliary import find_all_candidates, find_candidates, find_nearest, forget
from ccat_ops_db.gap.changes import Changes, find_places, hand_out, take
from ccat_ops_db.gap.leaving import orphan
from ccat_ops_db.gap.members import Archived, Divided, archived_now, divide, moved, vanished
from ccat_ops_db.gap.pending import bring_along, drop_strays, drop_those_of, keep_pending
from ccat_ops_db.gap.scope import EVERYTHING, NOTHING, Scope, Written
from ccat_ops_db.gap.statements import choose_auxiliary, judge, leave_out, leaving
from ccat_ops_db.gap.steps import PipelineNow, StepNow, pipeline_now
from ccat_ops_db.grouping.checking import uses_now
from ccat_ops_db.moves import CHANNEL
from ccat_ops_db.plan.schedule import next_tick
from ccat_ops_db.sets import is_among, is_given, once_more

_Evaluation, _Group, _Member = models.PipelineEvaluation, models.SubGroup, models.SubGroupPackage
_Theirs = once_more(_Member)
_REBUILD_EVERY: Final = timedelta(hours=24)
_MEMORY: Final = "128MB"
"""For each sort and hash of a look at everything, in place of the few that suffice for a change."""
_MANY: Final = 1_000
"""Rows that the statistics of the database have to show at once."""
_FADING_EVERY: Final = timedelta(minutes=1)
_CLOCKS_DIFFER_BY: Final = timedelta(minutes=1)
"""At most, of the hosts whose processes evaluate a pipeline."""

_BIG: Final = sa.BigInteger()
_TIME: Final = sa.TIMESTAMP(timezone=True)
_LOCKED: Final = (
    sa.select(_Evaluation)
    .where(_Evaluation.pipeline_id == sa.bindparam("pipeline", type_=_BIG))
    .with_for_update()
    .execution_options(populate_existing=True)
)
_DUE: Final = sa.select(_Group.reduction_step_id, _Group.id).where(
    is_given(_Group.reduction_step_id, "steps"), _Group.due_at <= sa.bindparam("now", type_=_TIME)
)
_SHARING: Final = (
    sa.select(_Theirs.reduction_step_id, _Theirs.sub_group_id)
    .join(_Member, _Theirs.raw_data_package_id == _Member.raw_data_package_id)
    .where(is_given(_Theirs.reduction_step_id, "steps"), is_given(_Member.sub_group_id, "groups"))
    .distinct()
)
_COOLED: Final = sa.select(sa.func.min(_Group.due_at)).where(is_given(_Group.reduction_step_id, "steps"))
_RESTING: Final = (
    sa.update(_Evaluation)
    .where(_Evaluation.pipeline_id == sa.bindparam("pipeline", type_=_BIG))
    .values(
        due_at=sa.func.least(
            _COOLED.scalar_subquery(),
            _Evaluation.fading_at,
            _Evaluation.rebuild_at,
            sa.bindparam("tick", type_=_TIME),
            sa.bindparam("again", type_=_TIME),
        )
    )
)
_PLAN_FOR: Final = sa.text("SELECT set_config('plan_cache_mode', :mode, true)")


@dataclass(frozen=True)
class Evaluated:
    """What evaluating a pipeline did."""

    pipeline: PipelineNow
    has_news: bool
    """Whether anything was looked at."""
    not_needed: Sequence[int]
    """PENDING runs that were cancelled, as nothing needs them any more."""
    drift: int
    """Rows that were otherwise than they should have been, though nothing was said to have changed."""


def evaluate(
    session: Session, pipeline_id: int, *, now: datetime, by: str, rebuild: bool = False, upkeep: bool = False
) -> Evaluated:
    """Bring every verdict of a pipeline up to date; whoever else evaluates it waits for the caller's transaction.

    `rebuild` looks at everything, whatever is said to have changed; so do the first evaluation and one after the
    definition changed. With `upkeep` it is done where it is due: once a day, and when a trigger-manager started. It is
    for whoever reports the drift, creates runs and lets the pipeline `rest`.
    """
    state, changes = _lock(session, pipeline_id), take(session, pipeline_id)
    pipeline = pipeline_now(session, pipeline_id)  # after the changes were taken: what came later leaves another one
    work = _Round(session, pipeline, now=now, by=by)
    is_new = changes.is_everything or state.pipeline_revision_id != pipeline.revision_id
    rebuild = rebuild or is_new or (upkeep and (state.rebuild_at is None or state.rebuild_at <= now))
    drift = 0
    if not is_new:  # what is known to have changed is no drift
        work.what_changed(changes, state, catches_up=rebuild)
    if is_new:
        bring_along(session, pipeline)
    if rebuild:
        rows = work.everything()
        drift = 0 if is_new else rows
        state.rebuild_at = now + _REBUILD_EVERY
    _note(state, pipeline, now)
    if work.has_looked and not upkeep:  # whoever creates runs has to come by, unless that is the caller
        state.due_at = now
    session.flush()
    return Evaluated(pipeline, work.has_looked, work.not_needed, drift)


def evaluate_now(session: Session, pipeline_id: int, *, now: datetime, by: str) -> PipelineNow:
    """A pipeline, whatever its trigger, with all that happened until now taken into account.

    No verdict of it changes until the caller's transaction is over. Nothing is handed to a pipeline that is disabled,
    so all of it is looked at.
    """
    hand_out(session)
    is_enabled = session.scalar(sa.select(models.Pipeline.enabled).where(models.Pipeline.id == pipeline_id))
    evaluated = evaluate(session, pipeline_id, now=now, by=by, rebuild=not is_enabled)
    if evaluated.has_news:  # the trigger-manager does what else follows
        session.execute(sa.select(sa.func.pg_notify(CHANNEL, f"{_Evaluation.__tablename__}:made")))
    return evaluated.pipeline


def come_by(session: Session, which: sa.ColumnElement[bool], *, rebuild: bool = False) -> None:
    """Have the trigger-manager look at pipelines at once, though nothing changed that a verdict depends on.

    `which` is a condition on their PipelineEvaluation. With `rebuild` everything is looked at. Rows are locked as
    everybody locks several: in their order.
    """
    locked = sa.select(_Evaluation.pipeline_id).where(which).order_by(_Evaluation.pipeline_id).with_for_update()
    moved = sa.update(_Evaluation).where(is_among(_Evaluation.pipeline_id, session.scalars(locked).all()))
    soon = moved.values(due_at=sa.func.least(_Evaluation.due_at, sa.func.now()))
    session.execute(moved.values(due_at=None, rebuild_at=None) if rebuild else soon)
    session.execute(sa.select(sa.func.pg_notify(CHANNEL, f"{_Evaluation.__tablename__}:due")))


def rest(session: Session, pipeline: PipelineNow, *, now: datetime, again_at: datetime | None = None) -> None:
    """Note when something changes by itself, once all is done that follows from an evaluation.

    `again_at` is when more may be created, where a limit is in the way.
    """
    tick = next_tick(pipeline.schedule, now) if pipeline.schedule else None
    steps = [step.id for step in pipeline.steps]
    values = {"pipeline": pipeline.id, "steps": steps, "tick": tick, "again": again_at}
    session.execute(_RESTING, values, execution_options={"synchronize_session": False})


@dataclass
class _Round:
    session: Session
    pipeline: PipelineNow
    now: datetime
    by: str
    has_looked: bool = False
    not_needed: list[int] = field(default_factory=list)

    def everything(self) -> int:
        """Look at everything; how many rows were not as they should be."""
        self.session.execute(sa.text(f"SET LOCAL work_mem = '{_MEMORY}'"))
        self._forget_other_steps()
        packages = archived_now(self.session)
        rows = sum(self._look(step, packages, touched=EVERYTHING).rows for step in self.pipeline.steps)
        self.not_needed += drop_strays(self.session, self.pipeline, now=self.now, by=self.by)
        for step in self.pipeline.steps:  # runs are locked before products, as whoever registers these does
            orphan(self.session, step.id, None, by=self.by)
        return rows

    def what_changed(self, changes: Changes, state: models.PipelineEvaluation, *, catches_up: bool) -> None:
        """Look at what the changes, and the time that went by, can affect.

        Relative times are looked at now and then only, unless it `catches_up` with them.
        """
        is_due = state.due_at is None or state.due_at <= self.now  # rows of sub-groups are due no earlier
        is_same = state.bases == _bases(self.pipeline)
        fading_at = state.fading_at if catches_up or _is_past(state.fading_at, self.now) else None
        if is_same and not (changes.packages or changes.places or is_due or fading_at):
            return
        self._plan_for("force_generic_plan")
        packages = Scope(changes.packages) | (self._moved(fading_at) if fading_at else NOTHING)
        places = find_places(self.session, changes.places)
        touched = self._due() if is_due else defaultdict(lambda: NOTHING)
        for step in self.pipeline.steps:
            found = places.get(step.id, {})
            returned = Scope.of(found.values())
            touched[step.id] |= returned
            if state.bases.get(str(step.id)) != step.basis:
                touched[step.id] = EVERYTHING
            elif step.auxiliary:
                touched[step.id] |= find_candidates(self.session, step, changes)
            written = self._look(step, packages, touched=touched[step.id], returned=returned)
            # A run may have ended, or come back, after the last package of its sub-group left.
            self._let_go(step, changes.places.get(step.id, frozenset()) - found.keys())
            for below, scope in self._sharing(step, written.scope | returned).items():
                touched[below] |= scope
        self._plan_for("auto")

    def _plan_for(self, mode: str) -> None:
        """Have the database plan its statements once for whatever they are about, or each time for what that is now.

        To look up a handful takes no longer than to plan for it; and what is planned for any number looks up one by
        one, so that a change costs in proportion to itself however small the tables are.
        """
        self.session.execute(_PLAN_FOR, {"mode": mode})

    def _look(self, step: StepNow, packages: Scope | Archived, *, touched: Scope, returned: Scope = NOTHING) -> Written:
        """Bring one step's sub-groups up to date; what of it steps further down depend on, and rows written.

        Runs of `returned` may be PENDING again, whatever is said of these.
        """
        divided = self._divide(step, packages)
        members = divided.written
        self._tell_of("sub_group, sub_group_package", members.rows)
        looked = members.scope | touched
        if not looked:
            return Written.those([])
        self.has_looked = True
        self._let_go(step, vanished(self.session, step.id, divided.left))
        left_out = leave_out(self.session, step, looked) if step.id in self._leaving else 0
        chosen = self._choose(step, looked)
        judged = judge(self.session, self.pipeline, step, scope=looked, now=self.now)
        if any(self.pipeline.below(step.id)):
            self._tell_of("sub_group, sub_group_package", left_out + judged.passed_on.rows)
        self.not_needed += keep_pending(self.session, step, judged.told | returned, by=self.by)
        return Written(judged.passed_on.scope, members.rows + left_out + chosen + judged.passed_on.rows)

    def _let_go(self, step: StepNow, keys: Collection[str]) -> None:
        """Let go of runs and products, locked in this order, of those sub-groups that no package is left of."""
        self.not_needed += drop_those_of(self.session, step, keys, now=self.now, by=self.by)
        orphan(self.session, step.id, keys, by=self.by)

    def _choose(self, step: StepNow, looked: Scope) -> int:
        """Choose auxiliary inputs anew; rows written."""
        rows = find_all_candidates(self.session, step) if looked.ids is None else 0
        if not step.auxiliary:
            return rows
        self._tell_of("auxiliary_candidate", rows)
        nearest = find_nearest(self.session, step, looked)
        self._tell_of("auxiliary_nearest", nearest)
        chosen = choose_auxiliary(self.session, step, looked)
        self._tell_of("auxiliary_choice", chosen)
        return rows + nearest + chosen

    def _tell_of(self, tables: str, rows: int) -> None:
        """Let the database take in that so many rows were written, or it would plan the next statements for a handful.

        It does so by itself in time only, and sees nothing of a transaction that is still going on. Where another
        transaction is at it, nobody waits.
        """
        if rows > _MANY:
            self.session.execute(sa.text(f"ANALYZE (SKIP_LOCKED) {tables}"))

    @cached_property
    def _leaving(self) -> frozenset[int]:
        """What makes a step leave packages out is written by looking at that step, or is a change of its own."""
        return leaving(self.session, self.pipeline)

    def _moved(self, fading_at: datetime) -> Scope:
        """Packages that may have come or gone by a relative time since these were looked for last."""
        looked_at = fading_at - _FADING_EVERY
        return moved(self.session, self.pipeline, since=looked_at - _CLOCKS_DIFFER_BY, until=self.now)

    def _divide(self, step: StepNow, packages: Scope | Archived) -> Divided:
        if not packages:
            return Divided(Written.those([]), left=NOTHING)
        return divide(self.session, self.pipeline, step, packages=packages, now=self.now)

    def _due(self) -> defaultdict[int, Scope]:
        steps = [step.id for step in self.pipeline.steps]
        return _by_step(self.session.execute(_DUE, {"steps": steps, "now": self.now}))

    def _sharing(self, step: StepNow, above: Scope) -> Mapping[int, Scope]:
        """Sub-groups of the steps below one that share packages with these of its own."""
        below = [one.id for one in self.pipeline.below(step.id)]
        if above.ids is None:
            return dict.fromkeys(below, EVERYTHING)
        if not below or not above:
            return {}
        return _by_step(self.session.execute(_SHARING, {"steps": below, "groups": sorted(above.ids)}))

    def _forget_other_steps(self) -> None:
        """Delete the sub-groups of steps that the pipeline has no more."""
        kept = [step.id for step in self.pipeline.steps]
        others = sa.select(models.ReductionStep.id).where(
            models.ReductionStep.pipeline_id == self.pipeline.id, models.ReductionStep.id.not_in(kept)
        )
        forget(self.session, others)
        for noun in (_Member, _Group):
            self.session.execute(sa.delete(noun).where(noun.reduction_step_id.in_(others)))


def _by_step(rows: Iterable[sa.Row[int, int]]) -> defaultdict[int, Scope]:
    """Sub-groups of steps, by these."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    for step_id, number in rows:
        found[step_id].append(number)
    return defaultdict(lambda: NOTHING, {step_id: Scope.of(ids) for step_id, ids in found.items()})


def _is_past(moment: datetime | None, now: datetime) -> bool:
    return moment is not None and moment <= now


def _bases(pipeline: PipelineNow) -> dict[str, str]:
    return {str(step.id): step.basis for step in pipeline.steps}


def _lock(session: Session, pipeline_id: int) -> models.PipelineEvaluation:
    place = {"pipeline": pipeline_id}
    state = session.scalars(_LOCKED, place).one_or_none()
    if state is not None:
        return state
    session.execute(insert(_Evaluation).values(pipeline_id=pipeline_id).on_conflict_do_nothing())
    return session.scalars(_LOCKED, place).one()


def _note(state: models.PipelineEvaluation, pipeline: PipelineNow, now: datetime) -> None:
    state.pipeline_revision_id = pipeline.revision_id
    state.bases = _bases(pipeline)
    if not uses_now(pipeline.rules):
        state.fading_at = None
    elif state.fading_at is None or state.fading_at <= now:
        state.fading_at = now + _FADING_EVERY
