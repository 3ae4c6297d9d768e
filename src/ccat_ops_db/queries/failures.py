"""Failures that stand: of the newest run of its sub-group if that is needed, or of a trial; and which are alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.queries.runs import Filter, UnknownRun
from ccat_ops_db.sets import once_more
from ccat_ops_db.states import FailureClass, RunStatus

_Run, _Newer = models.ExecutedReductionStep, once_more(models.ExecutedReductionStep)


class HasNotFailed(CcatError):
    """Failures like that of a run were asked for, and it has none."""

    code = "has_not_failed"

    def __init__(self, run_id: int) -> None:
        super().__init__(f"Run {run_id} has not failed, so none is alike; `ccat failures` lists what has.")


class NothingAlike(CcatError):
    """A fingerprint was named that no standing failure has."""

    code = "nothing_alike"

    def __init__(self, fingerprint: str) -> None:
        super().__init__(f"No failure that stands has fingerprint `{fingerprint}`; `ccat failures` lists them all.")


@dataclass(frozen=True)
class Alike:
    """Failures of one kind with one cause, apart from what differs from run to run."""

    fingerprint: str | None
    """None of what failed before fingerprints were kept."""
    failure_class: FailureClass | None
    runs: int
    waiting: int
    """How many of them are tried again by themselves."""
    steps: Sequence[str]
    """Each as `pipeline/step`."""
    cause: str | None
    """That of the newest."""
    run_id: int
    """The newest."""
    last_at: datetime | None


def is_followed() -> sa.ColumnElement[bool]:
    """Condition: a newer run of its sub-group counts instead; trials stand for themselves."""
    same = (_Newer.reduction_step_id == _Run.reduction_step_id, _Newer.sub_group_key == _Run.sub_group_key)
    newer = sa.exists().where(*same, _Newer.id > _Run.id, sa.not_(_Newer.is_trial))
    return sa.and_(sa.not_(_Run.is_trial), newer.correlate(_Run))


def _stands() -> sa.ColumnElement[bool]:
    has_failed = _Run.status == sa.literal_column(f"'{RunStatus.FAILED}'")  # as the index says it
    return sa.and_(has_failed, sa.not_(_Run.not_needed), sa.not_(is_followed()))


def list_failures(session: Session, which: Filter, *, limit: int) -> Sequence[Alike]:
    """Failures that stand, those together that are alike; the most frequent first."""
    place = models.Pipeline.name + "/" + models.ReductionStep.key
    number, newest = sa.func.count(), sa.func.max(_Run.id)
    grouped = (
        sa.select(
            _Run.fingerprint,
            _Run.failure_class,
            number.label("runs"),
            sa.func.count(_Run.retry_at).label("waiting"),
            sa.func.array_agg(sa.distinct(place)).label("steps"),
            newest.label("newest"),
            sa.func.max(_Run.finished_at).label("last_at"),
        )
        .join(_Run.pipeline)
        .join(_Run.reduction_step)
        .where(_stands(), *which.conditions())
        .group_by(_Run.fingerprint, _Run.failure_class)
        .order_by(number.desc(), newest.desc())
        .limit(limit)
        .subquery()
    )
    example = aliased(_Run)
    rows = session.execute(
        sa.select(grouped, example.failure)
        .join(example, example.id == grouped.c.newest)
        .order_by(grouped.c.runs.desc(), grouped.c.newest.desc())
    )
    return [
        Alike(
            row.fingerprint, row.failure_class, row.runs, row.waiting, row.steps, row.failure, row.newest, row.last_at
        )
        for row in rows
    ]


def runs_alike(session: Session, fingerprint: str) -> Sequence[int]:
    """Runs whose failure stands and has this fingerprint; raises NothingAlike."""
    alike = sa.select(_Run.id).where(_stands(), _Run.fingerprint == fingerprint).order_by(_Run.id)
    found = session.scalars(alike).all()
    if not found:
        raise NothingAlike(fingerprint)
    return found


def fingerprint_of(session: Session, run_id: int) -> str:
    """What is alike of failures like the last one of a run; raises UnknownRun and HasNotFailed."""
    row = session.execute(sa.select(_Run.fingerprint, _Run.status).where(_Run.id == run_id)).one_or_none()
    if row is None:
        raise UnknownRun(run_id)
    if row.status is not RunStatus.FAILED or row.fingerprint is None:
        raise HasNotFailed(run_id)
    return str(row.fingerprint)
