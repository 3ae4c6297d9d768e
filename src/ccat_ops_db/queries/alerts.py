"""What is the matter now, as the database knows it, and what people were told of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.steps import current_revision
from ccat_ops_db.plan.alerts import Condition
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.queries.alike import alike
from ccat_ops_db.queries.damage import told_of_damage
from ccat_ops_db.queries.failed_packages import IS_OWED
from ccat_ops_db.queries.failures import is_followed
from ccat_ops_db.queries.lost_packages import told_of_lost_packages
from ccat_ops_db.queries.pauses import stopped
from ccat_ops_db.queries.short_scans import troubled_scans
from ccat_ops_db.queries.spaces import full_disks, unusable_locations
from ccat_ops_db.queries.troubled_copies import troubled_copies
from ccat_ops_db.queries.troubled_products import troubled_products
from ccat_ops_db.queries.troubled_transfers import troubled_transfers
from ccat_ops_db.queries.unread import (
    archives_behind,
    archives_unread_by_some,
    archives_unserved,
    unreadable_archives,
)
from ccat_ops_db.states import (
    NEW_DATA,
    AlertKind,
    PackageState,
    RunReason,
    RunStatus,
    TriggerType,
    Verdict,
)

_Run, _Group, _Step, _Pipeline = (
    models.ExecutedReductionStep,
    models.SubGroup,
    models.ReductionStep,
    models.Pipeline,
)
_Package = models.RawDataPackage
_IS_TO_CREATE: Final = sa.text("sub_group.verdict = 'wanted' AND sub_group.active_run_id IS NULL")
"""As the index of these says it."""
_SAYS_WHY: Final = {"raw package": "`ccat packages`", "raw file": "`ccat transfer status`"}
_MOST: Final = 200
"""So many different failures are told apart, those of the oldest sub-groups first."""


@dataclass(frozen=True, kw_only=True)
class Alerts:
    """What people are or were told, and whether the hook works."""

    alerts: Sequence[models.Alert]
    looked_at: datetime | None
    """When a process looked last; None: none ever did."""
    hook_failure: str | None
    hook_tries: int


def list_alerts(session: Session, *, everything: bool = False, limit: int = 100, before: int | None = None) -> Alerts:
    """Open alerts, or also those that are over; the newest first, those below `before` if it is given."""
    alert, watch = models.Alert, session.get(models.AlertWatch, 1)
    which = sa.true() if everything else alert.cleared_at.is_(None)
    page = sa.true() if before is None else alert.id < before
    found = session.scalars(sa.select(alert).where(which, page).order_by(alert.id.desc()).limit(limit)).all()
    return Alerts(
        alerts=found,
        looked_at=watch.looked_at if watch else None,
        hook_failure=watch.failure if watch else None,
        hook_tries=watch.tries if watch else 0,
    )


def conditions(session: Session, *, late: datetime) -> Iterator[Condition]:
    """Everything that is the matter, but for services; what has waited since before `late` has waited too long."""
    yield from _failed_runs(session)
    yield from _failed_packages(session)
    yield from _held_locations(session)
    yield from told_of_lost_packages(session)
    yield from troubled_copies(session)
    yield from told_of_damage(session)
    yield from troubled_transfers(session)
    yield from troubled_products(session)
    yield from unreadable_archives(session)
    yield from archives_unread_by_some(session)
    yield from archives_behind(session)
    yield from archives_unserved(session)
    yield from troubled_scans(session)
    yield from _late_raw_data(session, late)
    yield from _late_changes(session, late)
    yield from _late_sub_groups(session, late)
    yield from _late_runs(session, late)


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:8]


def _failed_runs(session: Session) -> Iterator[Condition]:
    last = (
        sa.select(_Run.failure, _Run.fingerprint)
        .where(_Run.reduction_step_id == _Group.reduction_step_id, _Run.sub_group_key == _Group.key)
        .where(sa.not_(_Run.is_trial), sa.not_(_Run.not_needed), _Run.status == RunStatus.FAILED)
        .order_by(_Run.id.desc())
        .limit(1)
        .lateral()
    )
    reason, failure = sa.func.coalesce(last.c.fingerprint, alike(last.c.failure)), sa.func.min(last.c.failure)
    rows = session.execute(
        sa.select(_Pipeline.name, _Step.key, reason, failure, sa.func.count())
        .select_from(_Group)
        .join(_Step, _Step.id == _Group.reduction_step_id)
        .join(_Pipeline, _Pipeline.id == _Step.pipeline_id)
        .outerjoin(last, sa.true())
        .where(_Group.id.in_(_given_up()), _Pipeline.enabled)
        .group_by(_Pipeline.name, _Step.key, reason)
        .order_by(sa.func.min(_Group.id))
        .limit(_MOST)
    )
    for pipeline, step, kind, cause, number in rows:
        yield Condition(
            kind=AlertKind.FAILED_FOR_GOOD,
            key=f"{pipeline}/{step}/{_digest(kind)}",
            sentence=f"{counted(number, 'sub-group', 'sub-groups')} of {pipeline}/{step} failed for good: "
            f"{cause or 'an input is missing'}; "
            f"`ccat runs --pipeline {pipeline} --step {step} --status failed` lists the runs",
            number=number,
        )


def _given_up() -> sa.CompoundSelect[int]:
    """Sub-groups that failed for good, or of which what was deleted could not be made again: no gap, but awaited."""
    of_group = (_Run.reduction_step_id == _Group.reduction_step_id, _Run.sub_group_key == _Group.key)
    has_failed = _Run.status == sa.literal_column(f"'{RunStatus.FAILED}'")  # as the index says it
    recomputed = sa.select(_Group.id).join(_Run, sa.and_(*of_group, _Run.id > _Group.last_run_id))
    recomputed = recomputed.where(has_failed, _Run.reason == RunReason.RECOMPUTE, sa.not_(_Run.is_trial))
    recomputed = recomputed.where(_Run.retry_at.is_(None), sa.not_(_Run.not_needed), sa.not_(is_followed()))
    return sa.union(sa.select(_Group.id).where(_Group.verdict == Verdict.FAILED), recomputed)


def _failed_packages(session: Session) -> Iterator[Condition]:
    """Raw packages that wait for a person; one that nobody can mend is given up by name."""
    reason, first = alike(_Package.failure), sa.func.min(_Package.id)
    rows = session.execute(
        sa.select(reason, sa.func.min(_Package.failure), sa.func.count(), first)
        .where(IS_OWED)
        .group_by(reason)
        .order_by(first)
        .limit(_MOST)
    )
    for kind, cause, number, package_id in rows:
        taken_up = f"`ccat package retry --like {package_id}` takes up all these once it is mended; "
        yield Condition(
            kind=AlertKind.FAILED_FOR_GOOD,
            key=f"raw packages/{_digest(kind)}",
            sentence=f"{counted(number, 'raw package', 'raw packages')} cannot be archived: {cause} "
            f"`ccat packages --state failed` lists them; {taken_up if number > 1 else ''}"
            "`ccat package give-up PACKAGE` where one is gone for good",
            number=number,
        )


def _held_locations(session: Session) -> Iterator[Condition]:
    kinds = {AlertKind.FULL_DISK: full_disks(session), AlertKind.UNUSABLE_LOCATION: unusable_locations(session)}
    for kind, held in kinds.items():
        for number, sentence in held.items():
            yield Condition(kind=kind, key=f"location {number}", sentence=sentence)


def _late_raw_data(session: Session, late: datetime) -> Iterator[Condition]:
    file, scan = models.RawDataFile, models.ExecutedObsUnit
    on_their_way = _Package.state.in_([PackageState.WAITING, PackageState.TRANSFERRING])
    waits = {
        "raw package": sa.select(sa.func.count(), sa.func.min(_Package.created_at)).where(
            on_their_way, _Package.created_at < late
        ),
        "raw file": sa.select(  # since when as `ccat transfer status` says it
            sa.func.count().filter(sa.or_(scan.ended_at < late, file.created_at < late)), sa.func.min(file.created_at)
        )
        .join_from(file, scan, file.executed_obs_unit_id == scan.id)
        .where(file.raw_data_package_id.is_(None), file.lost_at.is_(None)),
    }
    for what, query in waits.items():
        number, oldest = session.execute(query).one()
        if number:
            yield Condition(
                kind=AlertKind.BACKLOG,
                key=f"{what}s",
                sentence=f"{counted(number, what, f'{what}s')} not in the archive yet, "
                f"the oldest since {oldest:%F %H:%M} UTC; {_SAYS_WHY[what]} says why",
                number=number,
            )


def _late_changes(session: Session, late: datetime) -> Iterator[Condition]:
    """What no trigger-manager has looked at, so that nobody knows what has to be run."""
    change, enabled = models.PendingChange, sa.select(_Pipeline.id).where(_Pipeline.enabled)
    concerns = sa.or_(change.pipeline_id.in_(enabled), sa.and_(change.pipeline_id.is_(None), sa.exists(enabled)))
    number, oldest = session.execute(
        sa.select(sa.func.count(), sa.func.min(change.created_at)).where(change.created_at < late, concerns)
    ).one()
    if number:
        yield Condition(
            kind=AlertKind.BACKLOG,
            key="changes",
            sentence=f"{counted(number, 'change', 'changes')} not looked at yet, "
            f"the oldest since {oldest:%F %H:%M} UTC; see that a trigger-manager runs that serves their pipelines, "
            "and what its log says",
            number=number,
        )


def _late_sub_groups(session: Session, late: datetime) -> Iterator[Condition]:
    """What new data want that has no run, where it is known since when: what rests is wanted from the end of that."""
    revision = current_revision()
    rows = session.execute(
        sa.select(_Pipeline.name, sa.func.count(), sa.func.min(_Group.cut_off))
        .join_from(_Group, _Step, _Step.id == _Group.reduction_step_id)
        .join(_Pipeline, _Pipeline.id == _Step.pipeline_id)
        .join(revision, revision.c.pipeline_id == _Pipeline.id)
        .where(_IS_TO_CREATE, _Group.cut_off < late, _Group.reason.in_(NEW_DATA))
        .where(revision.c.trigger_type == TriggerType.CONTINUOUS, _Pipeline.id.not_in(list(stopped(session))))
        .group_by(_Pipeline.name)
        .order_by(_Pipeline.name)
    )
    for pipeline, number, oldest in rows:
        yield Condition(
            kind=AlertKind.BACKLOG,
            key=f"sub-groups of {pipeline}",
            sentence=f"{counted(number, 'sub-group', 'sub-groups')} of pipeline {pipeline} without the run "
            f"that new data want, the oldest since {oldest:%F %H:%M} UTC; `ccat gap {pipeline}` lists them",
            number=number,
        )


def _late_runs(session: Session, late: datetime) -> Iterator[Condition]:
    """What is for new data only: what redoes may wait for its hours, and a pause is somebody's will."""
    rows = session.execute(
        sa.select(_Pipeline.name, sa.func.count(), sa.func.min(_Run.created_at))
        .join(_Run.pipeline)
        .where(_Run.status == RunStatus.PENDING, _Run.created_at < late, sa.not_(_Run.is_redo))
        .where(_Run.pipeline_id.not_in(list(stopped(session))))
        .group_by(_Pipeline.name)
        .order_by(_Pipeline.name)
    )
    for pipeline, number, oldest in rows:
        yield Condition(
            kind=AlertKind.BACKLOG,
            key=f"runs of {pipeline}",
            sentence=f"{counted(number, 'run', 'runs')} of pipeline {pipeline} not started yet, "
            f"the oldest since {oldest:%F %H:%M} UTC; `ccat run why RUN` says what holds one",
            number=number,
        )
