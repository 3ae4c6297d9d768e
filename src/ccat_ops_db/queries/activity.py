from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.steps import current_revision
from ccat_ops_db.models.runs import ACTIVE_RUN
from ccat_ops_db.states import PackageState, RunStatus, TriggerType, Verdict


@dataclass(frozen=True)
class Activity:
    """What is under way, and what will be without anybody doing anything."""

    unpackaged_files: int
    """Raw files of ended scans that are in no package yet."""
    moving_packages: int
    unevaluated_changes: int
    """What happened and was not taken into account yet."""
    active_runs: Mapping[RunStatus, int]
    wanted: int
    """Sub-groups that need a run and have none yet."""
    cooling: int
    next_due: datetime | None
    """End of the first cooldown."""
    failed_packages: int
    """Raw packages that wait for a person: those that were given up do not."""
    failed_sub_groups: int
    """Sub-groups whose run failed for good."""

    @property
    def is_over(self) -> bool:
        """Whether nothing will happen until something new comes in."""
        under_way = (self.unpackaged_files, self.moving_packages, self.unevaluated_changes, self.active_runs)
        return not any((*under_way, self.wanted, self.cooling))


def activity(session: Session) -> Activity:
    """What is under way in the whole installation, as it was last evaluated."""
    verdicts, next_due = _sub_groups(session)
    package = models.RawDataPackage
    return Activity(
        unpackaged_files=_unpackaged_files(session),
        moving_packages=_packages(session, package.state.in_([PackageState.WAITING, PackageState.TRANSFERRING])),
        unevaluated_changes=_unevaluated_changes(session),
        active_runs=_active_runs(session),
        wanted=verdicts.get(Verdict.WANTED, 0),
        cooling=verdicts.get(Verdict.COOLING, 0),
        next_due=next_due,
        failed_packages=_packages(session, package.state == PackageState.FAILED, package.given_up_at.is_(None)),
        failed_sub_groups=verdicts.get(Verdict.FAILED, 0),
    )


def longest_under_way(session: Session, *, most: int = 3) -> Sequence[str]:
    """What has been under way for longest, of packages and of runs, each with what it says keeps it."""
    package, way, run = models.RawDataPackage, models.LongTermArchiveTransfer, models.ExecutedReductionStep
    moving = sa.select(package.name, package.state, sa.func.coalesce(sa.func.min(way.failure), package.failure))
    moving = moving.outerjoin(way, way.raw_data_package_id == package.id).group_by(package.id).order_by(package.id)
    moving = moving.where(package.state.in_([PackageState.WAITING, PackageState.TRANSFERRING]))
    label = sa.func.concat(run.id, " (", models.Pipeline.name, "/", models.ReductionStep.key, ")")
    active = sa.select(label, run.status, run.waiting_for).join(run.pipeline).join(run.reduction_step)
    active = active.where(sa.text(ACTIVE_RUN), models.Pipeline.enabled).order_by(run.id)
    return [
        f"{what} {name} is {state.replace('_', ' ')}{f': {because}' if because else ''}"
        for what, query in (("package", moving), ("run", active))
        for name, state, because in session.execute(query.limit(most))
    ]


def _sub_groups(session: Session) -> tuple[Mapping[Verdict, int], datetime | None]:
    """How many sub-groups without an active run have each verdict, and when the first rest ends."""
    group, step, request = models.SubGroup, models.ReductionStep, models.RunRequest
    requested = sa.exists().where(
        request.reduction_step_id == group.reduction_step_id, request.sub_group_key == group.key
    )
    rows = session.execute(
        sa.select(group.verdict, sa.func.count(), sa.func.min(group.due_at))
        .join(step, step.id == group.reduction_step_id)
        .where(
            group.verdict != Verdict.UP_TO_DATE,
            group.active_run_id.is_(None),
            sa.or_(step.pipeline_id.in_(_continuous_pipelines()), requested),
        )
        .group_by(group.verdict)
    ).all()
    return {verdict: number for verdict, number, _ in rows}, min((due for *_, due in rows if due), default=None)


def _unevaluated_changes(session: Session) -> int:
    change = models.PendingChange
    ours = sa.or_(change.pipeline_id.is_(None), change.pipeline_id.in_(_enabled_pipelines()))
    return session.scalar(sa.select(sa.func.count()).select_from(change).where(ours)) or 0


def _enabled_pipelines() -> sa.Select[int]:
    return sa.select(models.Pipeline.id).where(models.Pipeline.enabled)


def _continuous_pipelines() -> sa.Select[int]:
    """Enabled pipelines whose runs are created without a trigger."""
    revision = current_revision()
    continuous = revision.c.trigger_type == TriggerType.CONTINUOUS
    return _enabled_pipelines().join(revision, revision.c.pipeline_id == models.Pipeline.id).where(continuous)


def _unpackaged_files(session: Session) -> int:
    file, scan = models.RawDataFile, models.ExecutedObsUnit
    query = sa.select(sa.func.count()).join_from(file, scan, file.executed_obs_unit_id == scan.id)
    query = query.where(file.raw_data_package_id.is_(None), file.lost_at.is_(None))
    return session.scalar(query.where(scan.ended_at.is_not(None))) or 0


def _packages(session: Session, *which: sa.ColumnElement[bool]) -> int:
    return session.scalar(sa.select(sa.func.count()).select_from(models.RawDataPackage).where(*which)) or 0


def _active_runs(session: Session) -> dict[RunStatus, int]:
    run = models.ExecutedReductionStep
    shelved = sa.and_(run.status == RunStatus.PENDING, sa.not_(models.Pipeline.enabled))
    rows = session.execute(
        sa.select(run.status, sa.func.count())
        .join(run.pipeline)
        .where(sa.text(ACTIVE_RUN), sa.not_(shelved))
        .group_by(run.status)
    )
    return dict(rows.all())
