from collections.abc import Collection
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from ccat_ops_db import models
from ccat_ops_db.models.data import GOING
from ccat_ops_db.moves import CHANNEL, advance
from ccat_ops_db.sets import is_among, is_given
from ccat_ops_db.states import (
    LIVE_RUN_STATUSES,
    LIVE_TRANSFER_STATUSES,
    FailureClass,
    PhysicalCopyStatus,
    RunStatus,
    Status,
)
from ccat_ops_db.verbs.copies import take_back
from ccat_ops_db.verbs.requests import carry_on

_Job, _Package, _Copy = models.StagingJob, models.RawDataPackage, models.PhysicalCopy
_Run, _Input = models.ExecutedReductionStep, models.RunInput
_MOST: Final = 1000
_LOCATION: Final = sa.bindparam("location", type_=sa.BigInteger())
_IS_LIVE: Final = sa.text(f"status IN ({', '.join(repr(str(status)) for status in LIVE_TRANSFER_STATUSES)})")
_IS_STAGED: Final = sa.exists().where(
    _Copy.raw_data_package_id == _Package.id,
    _Copy.data_location_id == _LOCATION,
    _Copy.status == PhysicalCopyStatus.STAGED,
)
_TO_BE_STAGED: Final = (
    sa.select(_Package.id, _LOCATION).where(is_given(_Package.id, "packages"), ~_IS_STAGED).order_by(_Package.id)
)
_ASK: Final = (
    insert(_Job)
    .from_select(["raw_data_package_id", "data_location_id"], _TO_BE_STAGED)
    .on_conflict_do_nothing(index_elements=["raw_data_package_id", "data_location_id"], index_where=_IS_LIVE)
    .returning(_Job.id)
    .execution_options(dml_strategy="raw")  # its parameters are no columns
)
_HOLD: Final = (
    sa.select(_Job.raw_data_package_id)
    .where(
        is_given(_Job.raw_data_package_id, "packages"),
        _Job.data_location_id == _LOCATION,
        _Job.status.in_(LIVE_TRANSFER_STATUSES),
    )
    .order_by(_Job.raw_data_package_id)
    .with_for_update(read=True, key_share=True)
)
_TAKES: Final = (_Input.raw_data_package_id == _Job.raw_data_package_id, _Run.data_location_id == _Job.data_location_id)
_TAKEN: Final = sa.exists().where(_Input.run_id == _Run.id, *_TAKES)
_IS_WANTED: Final = _TAKEN.where(
    sa.or_(_Run.status.in_(LIVE_RUN_STATUSES), sa.and_(_Run.status == RunStatus.FAILED, _Run.retry_at.is_not(None)))
)
_UNWANTED: Final = (
    sa.select(_Job.id)
    .where(_Job.status.in_(LIVE_TRANSFER_STATUSES), ~_IS_WANTED, _TAKEN)
    .order_by(_Job.id)
    .limit(_MOST)
    .with_for_update(skip_locked=True)
)
_STILL_UNWANTED: Final = sa.select(_Job.id).where(is_given(_Job.id, "jobs"), ~_IS_WANTED)


def request_staging(session: Session, package_ids: Collection[int], location_id: int) -> list[int]:
    """Ask for raw packages to be unpacked at a processing location, and return the ids of the jobs that are new.

    What is staged there already, or on its way, gets no second job: whoever asks at the same time shares one. None of
    the jobs is cancelled before the caller's transaction is over, and then it sees who wants it. What was to be deleted
    there is taken back.
    """
    _keep(session, package_ids, location_id)
    given = {"packages": sorted(set(package_ids)), "location": location_id}
    new: list[int] = []
    while True:
        new += session.scalars(_ASK, given)
        held = set(session.scalars(_HOLD, given))
        if held.issuperset(session.scalars(_TO_BE_STAGED, given)):  # else one was over just then, and is asked anew
            break
    if new:
        session.execute(sa.select(sa.func.pg_notify(CHANNEL, f"{_Job.__tablename__}:{Status.PENDING}")))
    return sorted(new)


def _keep(session: Session, package_ids: Collection[int], location_id: int) -> None:
    copy, is_wanted = models.PhysicalCopy, is_among(models.PhysicalCopy.raw_data_package_id, package_ids)
    marked = sa.select(copy.id).where(is_wanted, copy.data_location_id == location_id, sa.text(GOING))
    take_back(session, session.scalars(marked).all(), because="it is asked for again", by="staging")


def cancel_unwanted(session: Session, *, by: str) -> int:
    """Cancel staging that runs asked for and no active run wants any more, also while it is done; how many jobs.

    Who works on one ends it when the lease is to be renewed, which is left to run out: so it is known until when
    somebody may be at it. What is asked for just now is left alone.
    """
    jobs = session.scalars(_UNWANTED).all()
    if not jobs:
        return 0
    unwanted = session.scalars(_STILL_UNWANTED, {"jobs": jobs}).all()  # a run may have come before they were locked
    because = "no run wants it any more"
    return len(advance(session, _Job, unwanted, to=Status.CANCELLED, because=because, by=by))


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
