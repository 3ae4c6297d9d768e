"""Products go to a long-term archive where their step says so now: here it is asked for, data-transfer does it."""

from collections.abc import Sequence
from functools import cache

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased
from sqlalchemy.sql.dml import ReturningInsert

from ccat_ops_db import models
from ccat_ops_db.gap.steps import current_revision
from ccat_ops_db.moves import CHANNEL
from ccat_ops_db.sets import is_given, table_of
from ccat_ops_db.states import LIVE_TRANSFER_STATUSES, LocationType, PhysicalCopyStatus, ProductState, Status

_Run, _Product, _Transfer = models.ExecutedReductionStep, models.DataProduct, models.ProductArchiveTransfer
_NOT_THERE = (
    PhysicalCopyStatus.WRITING,
    PhysicalCopyStatus.CORRUPT,
    PhysicalCopyStatus.MISSING,
    PhysicalCopyStatus.DELETED,
)


def request_archiving(session: Session, which: sa.ColumnElement[bool]) -> list[int]:
    """Ask for the products of runs to be archived, as far as their steps say so; the ids of the transfers that are new.

    `which` is a condition on runs. It is the products that are CURRENT and in no archive. Of a run whose transfer goes
    on, or has failed, nothing more is asked.
    """
    return _asked(session, _request(which))


def request_archiving_of(session: Session, run_ids: Sequence[int]) -> list[int]:
    """The same for runs that have just made something."""
    return _asked(session, _request_of_given(), runs=list(run_ids))


def archived_steps() -> sa.Select[int]:
    """Steps that, as they are defined now, have their products archived."""
    step, newest = models.ReductionStepRevision, current_revision()
    return sa.select(step.reduction_step_id).join(newest, newest.c.id == step.pipeline_revision_id).where(step.archive)


def _has_products_to_archive() -> sa.ColumnElement[bool]:
    """Condition on a run: something that it made counts, and is in no archive."""
    copy, location = aliased(models.PhysicalCopy, flat=True), aliased(models.DataLocation, flat=True)
    is_there = sa.exists().where(
        copy.data_product_id == _Product.id,
        copy.status.not_in(_NOT_THERE),
        location.id == copy.data_location_id,
        location.location_type == LocationType.LONG_TERM_ARCHIVE,
    )
    of_run = sa.and_(_Product.run_id == _Run.id, _Product.state == ProductState.CURRENT)
    return sa.exists().where(of_run, sa.not_(is_there.correlate(_Product))).correlate(_Run)


def _request(which: sa.ColumnElement[bool]) -> ReturningInsert[int]:
    table = table_of(_Transfer)
    goes_on = (*LIVE_TRANSFER_STATUSES, Status.FAILED)
    has_one = sa.exists().where(_Transfer.run_id == _Run.id, _Transfer.status.in_(goes_on)).correlate(_Run)
    wanted = (
        sa.select(_Run.id, _Run.data_location_id)
        .where(which, _Run.reduction_step_id.in_(archived_steps()), _has_products_to_archive(), sa.not_(has_one))
        .order_by(_Run.id)
    )
    live = sa.text(f"status IN ({', '.join(repr(str(status)) for status in LIVE_TRANSFER_STATUSES)})")
    return (
        insert(table)
        .from_select(["run_id", "origin_id"], wanted)
        .on_conflict_do_nothing(index_elements=["run_id"], index_where=live)
        .returning(table.c.id)
    )


@cache  # a statement of the hot path
def _request_of_given() -> ReturningInsert[int]:
    return _request(is_given(_Run.id, "runs"))


def _asked(session: Session, request: ReturningInsert[int], **parameters: list[int]) -> list[int]:
    session.flush()
    new = sorted(session.scalars(request, parameters))
    if new:
        session.execute(sa.select(sa.func.pg_notify(CHANNEL, f"{_Transfer.__tablename__}:{Status.PENDING}")))
    return new
