"""What has to be true of a history at any moment."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from ccat_ops_db import models
from ccat_ops_db.gap.changes import hand_out
from ccat_ops_db.gap.evaluation import evaluate
from ccat_ops_db.gap.steps import pipeline_now
from ccat_ops_db.models.runs import ACTIVE_RUN
from ccat_ops_db.queries.gaps import Place, SubGroupNow, sub_groups
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import ProductState, RunStatus, Verdict
from tests.engine.history import History
from tests.engine.oracle.evaluation import Candidate
from tests.engine.oracle.evaluation import evaluate as decide_all
from tests.engine.oracle.facts import load_facts

_Run = models.ExecutedReductionStep


def check(history: History) -> None:
    """What is maintained agrees with the oracle, nothing is active twice, and what counts is of what is there."""
    assert not history.session(_twice_active)
    if history.is_enabled:  # or nobody tells it anything
        now = history.now
        take_all_into_account(history, now=now)
        history.session(partial(_check, now=now))


def _check(session: Session, *, now: datetime) -> None:
    maintained, decided = _compared(session, now=now)
    assert maintained == decided
    assert not _strays(session)


def _compared(session: Session, *, now: datetime) -> tuple[dict[Place, object], dict[Place, object]]:
    """What is maintained, and what the oracle makes of the raw tables, at the same moment."""
    number = session.scalars(sa.select(models.Pipeline.id).filter_by(name="it")).one()
    found = list(sub_groups(session, pipeline_now(session, number), which=sa.true()))
    ready = _ready(session, [one.id for one in found])
    maintained = {(one.step.id, one.key): _maintained(one, frozenset(ready[one.id])) for one in found}
    oracle = decide_all(load_facts(session, number, now=now), now=now)
    return maintained, {(one.step.id, one.name.key): _decided(one) for one in oracle}


def take_all_into_account(history: History, *, now: datetime) -> None:
    """Evaluate every pipeline at a moment, until nothing is left that a verdict may depend on."""
    pipeline, change = models.Pipeline, models.PendingChange
    names = sa.select(pipeline.id).where(pipeline.enabled).order_by(pipeline.name)

    def look(session: Session) -> bool:
        hand_out(session)
        for one in session.scalars(names).all():
            evaluate(session, one, now=now, by="a test")
        return session.scalar(sa.select(change.id).limit(1)) is not None

    for _ in range(10):
        if not history.session(look):
            return
    raise AssertionError("the inbox does not become empty")


def _twice_active(session: Session) -> list[tuple[int, str]]:
    """Sub-groups that have more than one active run."""
    place = (_Run.reduction_step_id, _Run.sub_group_key)
    active = (
        sa.select(*place)
        .where(sa.text(ACTIVE_RUN), sa.not_(_Run.is_trial))
        .group_by(*place)
        .having(sa.func.count() > 1)
    )
    return [(step_id, key) for step_id, key in session.execute(active)]


def _strays(session: Session) -> list[int]:
    """Runs of whose products some are CURRENT, though there is a newer run, or no package of the sub-group."""
    newer, group = aliased(_Run), models.SubGroup
    here = (_Run.reduction_step_id, _Run.sub_group_key)
    gone = sa.not_(sa.exists().where(group.reduction_step_id == here[0], group.key == here[1]))
    is_done = sa.and_(newer.status == RunStatus.COMPLETED, newer.id > _Run.id, sa.not_(newer.is_trial))
    old = sa.exists().where(newer.reduction_step_id == here[0], newer.sub_group_key == here[1], is_done)
    current = sa.select(_Run.id).join(_Run.products).where(models.DataProduct.state == ProductState.CURRENT)
    found = current.where(_Run.reduction_step_id.in_(sa.select(group.reduction_step_id)), sa.or_(gone, old))
    return list(session.scalars(found))


def _ready(session: Session, sub_group_ids: Sequence[int]) -> Mapping[int, set[int]]:
    member = models.SubGroupPackage
    query = sa.select(member.sub_group_id, member.raw_data_package_id).where(
        is_among(member.sub_group_id, sub_group_ids), member.is_ready, sa.not_(member.is_faded)
    )
    ready: defaultdict[int, set[int]] = defaultdict(set)
    for sub_group_id, package_id in session.execute(query):
        ready[sub_group_id].add(package_id)
    return ready


def _maintained(one: SubGroupNow, ready: frozenset[int]) -> object:
    cut_off = one.cut_off if one.verdict is Verdict.WANTED else None
    what = (one.verdict, one.reason, one.because, cut_off)
    return (*what, one.input_digest, one.active_run_id, one.path, dict(one.labels), ready)


def _decided(one: Candidate) -> object:
    decision = one.decision
    what = (decision.verdict, decision.reason, decision.because, decision.cut_off)
    return (*what, one.input_digest, one.active_run_id, one.name.path, dict(one.name.labels), one.ready)
