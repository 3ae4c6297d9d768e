from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.models.runs import ACTIVE_RUN
from ccat_ops_db.plan.gap import Verdict
from ccat_ops_db.queries.gaps import current_revisions, gap
from ccat_ops_db.states import PackageState, RunStatus, TriggerType


@dataclass(frozen=True)
class Activity:
    """What is under way, and what will be without anybody doing anything."""

    unpackaged_files: int
    """Raw files of ended scans that are in no package yet."""
    moving_packages: int
    active_runs: Mapping[RunStatus, int]
    wanted: int
    """Sub-groups that need a run and have none yet."""
    cooling: int
    next_due: datetime | None
    """End of the first cooldown."""
    failed_packages: int
    """Raw packages that wait for a person."""
    failed_sub_groups: int
    """Sub-groups whose run failed for good."""

    @property
    def is_over(self) -> bool:
        """Whether nothing will happen until something new comes in."""
        return not (self.unpackaged_files or self.moving_packages or self.active_runs or self.wanted or self.cooling)


def activity(session: Session, *, now: datetime) -> Activity:
    """What is under way in the whole installation."""
    decisions = [
        candidate.decision
        for pipeline_id in _evaluated_pipelines(session)
        for candidate in gap(session, pipeline_id, now=now)
        if candidate.active_run_id is None
    ]
    return Activity(
        unpackaged_files=_unpackaged_files(session),
        moving_packages=_packages(session, PackageState.WAITING, PackageState.TRANSFERRING),
        active_runs=_active_runs(session),
        wanted=sum(one.verdict is Verdict.WANTED for one in decisions),
        cooling=sum(one.verdict is Verdict.COOLING for one in decisions),
        next_due=min((one.due for one in decisions if one.due), default=None),
        failed_packages=_packages(session, PackageState.FAILED),
        failed_sub_groups=sum(one.verdict is Verdict.FAILED for one in decisions),
    )


def _evaluated_pipelines(session: Session) -> list[int]:
    revision = current_revisions().subquery()
    return list(
        session.scalars(
            sa.select(models.Pipeline.id)
            .join(revision, revision.c.pipeline_id == models.Pipeline.id)
            .where(models.Pipeline.enabled, revision.c.trigger_type == TriggerType.CONTINUOUS)
        )
    )


def _unpackaged_files(session: Session) -> int:
    file, scan = models.RawDataFile, models.ExecutedObsUnit
    query = sa.select(sa.func.count()).join_from(file, scan, file.executed_obs_unit_id == scan.id)
    return session.scalar(query.where(file.raw_data_package_id.is_(None), scan.ended_at.is_not(None))) or 0


def _packages(session: Session, *states: PackageState) -> int:
    package = models.RawDataPackage
    return session.scalar(sa.select(sa.func.count()).select_from(package).where(package.state.in_(states))) or 0


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
