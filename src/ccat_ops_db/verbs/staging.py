from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from ccat_ops_db import models
from ccat_ops_db.models.data import GOING
from ccat_ops_db.moves import CHANNEL
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import LIVE_TRANSFER_STATUSES, FailureClass, PhysicalCopyStatus, RunStatus, Status
from ccat_ops_db.verbs.copies import take_back
from ccat_ops_db.verbs.requests import carry_on


def request_staging(session: Session, package_ids: Collection[int], location_id: int) -> list[int]:
    """Ask for raw packages to be unpacked at a processing location, and return the ids of the jobs that are new.

    What is staged there already, or on its way, gets no second job: whoever asks at the same time shares one. What was
    to be deleted there is taken back.
    """
    _keep(session, package_ids, location_id)
    job, package, copy = models.StagingJob, models.RawDataPackage, models.PhysicalCopy
    staged = sa.exists().where(
        copy.raw_data_package_id == package.id,
        copy.data_location_id == location_id,
        copy.status == PhysicalCopyStatus.STAGED,
    )
    wanted = (
        sa.select(package.id, sa.literal(location_id, sa.BigInteger))
        .where(is_among(package.id, package_ids), ~staged)
        .order_by(package.id)
    )
    live = sa.text(f"status IN ({', '.join(repr(str(status)) for status in LIVE_TRANSFER_STATUSES)})")
    new = session.scalars(
        insert(job)
        .from_select(["raw_data_package_id", "data_location_id"], wanted)
        .on_conflict_do_nothing(index_elements=["raw_data_package_id", "data_location_id"], index_where=live)
        .returning(job.id)
    ).all()
    if new:
        session.execute(sa.select(sa.func.pg_notify(CHANNEL, f"{job.__tablename__}:{Status.PENDING}")))
    return sorted(new)


def _keep(session: Session, package_ids: Collection[int], location_id: int) -> None:
    copy, is_wanted = models.PhysicalCopy, is_among(models.PhysicalCopy.raw_data_package_id, package_ids)
    marked = sa.select(copy.id).where(is_wanted, copy.data_location_id == location_id, sa.text(GOING))
    take_back(session, session.scalars(marked).all(), because="it is asked for again", by="staging")


def retry_runs_of(session: Session, package_id: int) -> list[int]:
    """Let runs be tried again that gave up for trouble outside their software, and take this package; their ids.

    Only the newest run of a sub-group is: what came after an older one counts instead. Trials stand for themselves.
    """
    run, newer = models.ExecutedReductionStep, aliased(models.ExecutedReductionStep)
    takes = sa.exists().where(models.RunInput.run_id == run.id, models.RunInput.raw_data_package_id == package_id)
    followed = sa.exists().where(
        newer.reduction_step_id == run.reduction_step_id, newer.sub_group_key == run.sub_group_key, newer.id > run.id
    )
    followed = followed.where(sa.not_(newer.is_trial), sa.not_(run.is_trial))
    gave_up = sa.and_(
        run.status == RunStatus.FAILED,
        run.retry_at.is_(None),
        run.failure_class == FailureClass.INFRASTRUCTURE,
        takes,
        sa.not_(followed),
    )
    again = sa.update(run).where(gave_up).values(retry_at=sa.func.clock_timestamp(), trouble_count=0)
    run_ids = sorted(session.scalars(again.returning(run.id)))
    carry_on(session, run_ids)
    return run_ids
