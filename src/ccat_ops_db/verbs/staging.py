from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased
from sqlalchemy.sql.dml import ReturningInsert

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

_Job, _Copy = models.StagingJob, models.PhysicalCopy
_Run, _Input = models.ExecutedReductionStep, models.RunInput
_MOST: Final = 1000
_PLAIN: Final = {"synchronize_session": False}
_PACKAGE: Final = sa.type_coerce(_Job.raw_data_package_id, sa.BigInteger)
"""Of a job for one."""
_LOCATION: Final = sa.bindparam("location", type_=sa.BigInteger())
_IS_LIVE: Final = sa.text(f"status IN ({', '.join(repr(str(status)) for status in LIVE_TRANSFER_STATUSES)})")


class _Kind:
    """One kind of what is brought to a processing location, and the statements about it, each made once."""

    def __init__(self, noun: Any, column: str, *, there: PhysicalCopyStatus) -> None:
        self.column = column
        self._noun = noun
        self._there = there
        self._of_job = getattr(_Job, column)

    @cached_property
    def to_be_staged(self) -> sa.Select[int, int]:
        """Of those that are asked for, what is not there, with the location."""
        is_there = sa.exists().where(
            getattr(_Copy, self.column) == self._noun.id,
            _Copy.data_location_id == _LOCATION,
            _Copy.status == self._there,
        )
        wanted = sa.select(self._noun.id, _LOCATION).where(is_given(self._noun.id, "ids"), ~is_there)
        return wanted.order_by(self._noun.id)

    @cached_property
    def ask(self) -> ReturningInsert[int]:
        """Jobs for what is not there, where there are none."""
        columns = [self.column, "data_location_id"]
        return (
            insert(_Job)
            .from_select(columns, self.to_be_staged)
            .on_conflict_do_nothing(index_elements=columns, index_where=_IS_LIVE)
            .returning(_Job.id)
            .execution_options(dml_strategy="raw")  # its parameters are no columns
        )

    @cached_property
    def hold(self) -> sa.Select[int]:
        """What there are jobs for; none of them is cancelled meanwhile."""
        return (
            sa.select(self._of_job)
            .where(
                is_given(self._of_job, "ids"),
                _Job.data_location_id == _LOCATION,
                _Job.status.in_(LIVE_TRANSFER_STATUSES),
            )
            .order_by(self._of_job)
            .with_for_update(read=True, key_share=True)
        )

    @property
    def is_taken(self) -> sa.Exists:
        """Condition on a job: a run where it goes to takes it."""
        takes = getattr(_Input, self.column) == self._of_job
        return sa.exists().where(_Input.run_id == _Run.id, takes, _Run.data_location_id == _Job.data_location_id)


_PACKAGES: Final = _Kind(models.RawDataPackage, "raw_data_package_id", there=PhysicalCopyStatus.STAGED)
_PRODUCTS: Final = _Kind(models.DataProduct, "data_product_id", there=PhysicalCopyStatus.PRESENT)
_IS_ACTIVE: Final = sa.or_(
    _Run.status.in_(LIVE_RUN_STATUSES), sa.and_(_Run.status == RunStatus.FAILED, _Run.retry_at.is_not(None))
)
_TAKEN: Final = sa.or_(_PACKAGES.is_taken, _PRODUCTS.is_taken)
_IS_WANTED: Final = sa.or_(_PACKAGES.is_taken.where(_IS_ACTIVE), _PRODUCTS.is_taken.where(_IS_ACTIVE))
_UNWANTED: Final = (
    sa.select(_Job.id)
    .where(_Job.status.in_(LIVE_TRANSFER_STATUSES), ~_Job.is_repair, ~_IS_WANTED, _TAKEN)
    .order_by(_Job.id)
    .limit(_MOST)
    .with_for_update(skip_locked=True)
)
_STILL_UNWANTED: Final = sa.select(_Job.id).where(is_given(_Job.id, "jobs"), ~_Job.is_repair, ~_IS_WANTED)


def request_staging(session: Session, package_ids: Collection[int], location_id: int) -> list[int]:
    """Ask for raw packages to be unpacked at a processing location, and return the ids of the jobs that are new.

    What is staged there already, or on its way, gets no second job: whoever asks at the same time shares one. None of
    the jobs is cancelled before the caller's transaction is over, and then it sees who wants it. What was to be deleted
    there is taken back.
    """
    return _request(session, _PACKAGES, package_ids, location_id=location_id)


def request_products(session: Session, product_ids: Collection[int], location_id: int) -> list[int]:
    """The same for products, which are copied there from wherever there is a sound copy."""
    return _request(session, _PRODUCTS, product_ids, location_id=location_id)


def _request(session: Session, kind: _Kind, ids: Collection[int], *, location_id: int) -> list[int]:
    _keep(session, kind, ids, location_id=location_id)
    given: Mapping[str, Any] = {"ids": sorted(set(ids)), "location": location_id}
    new: list[int] = []
    while True:
        new += session.scalars(kind.ask, given)
        held = set(session.scalars(kind.hold, given))
        if held.issuperset(session.scalars(kind.to_be_staged, given)):  # else one was over just then, and is asked anew
            break
    if new:
        _announce_jobs(session)
    return sorted(new)


def request_repairs(session: Session, product_ids: Collection[int], location_id: int) -> list[int]:
    """Ask for copies of products that were damaged or lost at a location to be made anew, for no run; ids of jobs."""
    new = _request(session, _PRODUCTS, product_ids, location_id=location_id)
    session.execute(sa.update(_Job).where(is_among(_Job.id, new)).values(is_repair=True))
    return new


def keep_staging(session: Session, package_ids: Collection[int], location_id: int) -> dict[int, int]:
    """Have staging of raw packages go on also where no run wants it, as a person does; job → package."""
    live = sa.update(_Job).where(_is_live(package_ids, location_id)).values(is_repair=True)
    return dict(session.execute(live.returning(_Job.id, _PACKAGE), execution_options=_PLAIN).all())


def cancel_staging(
    session: Session, package_ids: Collection[int], location_id: int, *, by: str
) -> tuple[list[int], list[int]]:
    """Cancel staging of raw packages that no active run wants, also while it is done, whoever else asked for it.

    The packages of which it is, and those of which it goes on for runs, until no run wants it.
    """
    live = sa.select(_Job.id, _PACKAGE).where(_is_live(package_ids, location_id)).order_by(_Job.id)
    held = dict(session.execute(live.with_for_update()).all())
    wanted = session.scalars(sa.select(_Job.id).where(is_among(_Job.id, held), _IS_WANTED)).all()
    session.execute(sa.update(_Job).where(is_among(_Job.id, wanted)).values(is_repair=False), execution_options=_PLAIN)
    because = "nobody wants it there any more"
    cancelled = advance(session, _Job, held.keys() - set(wanted), to=Status.CANCELLED, because=because, by=by)
    return sorted(held[job] for job in cancelled), sorted(held[job] for job in wanted)


def _is_live(package_ids: Collection[int], location_id: int) -> sa.ColumnElement[bool]:
    """Condition on a job: it brings one of these packages to a location, and is not over."""
    brings = (is_among(_Job.raw_data_package_id, package_ids), _Job.data_location_id == location_id)
    return sa.and_(*brings, _Job.status.in_(LIVE_TRANSFER_STATUSES))


def _announce_jobs(session: Session) -> None:
    """Wake whoever schedules staging jobs, once the transaction is over."""
    session.execute(sa.select(sa.func.pg_notify(CHANNEL, f"{_Job.__tablename__}:{Status.PENDING}")))


def _keep(session: Session, kind: _Kind, ids: Collection[int], *, location_id: int) -> None:
    is_wanted = is_among(getattr(_Copy, kind.column), ids)
    marked = sa.select(_Copy.id).where(is_wanted, _Copy.data_location_id == location_id, sa.text(GOING))
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
