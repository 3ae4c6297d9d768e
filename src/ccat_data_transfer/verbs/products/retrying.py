"""Products are archived again: what failed, and what has lost its copies in archives."""

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.errors import NothingToArchive
from ccat_data_transfer.verbs.retrying import ANEW, LOST, believe
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import ProductState, Status
from ccat_ops_db.verbs.archiving import request_archiving

_Transfer, _Run, _Product, _Copy = (
    models.ProductArchiveTransfer,
    models.ExecutedReductionStep,
    models.DataProduct,
    models.PhysicalCopy,
)


def archive_again(session: Session, run_ids: Collection[int], *, by: str) -> list[int]:
    """Take up the transfers of runs that failed, and ask for what is in no archive; the ids of all these transfers.

    Products that were found bad where they were made are believed to be restored; who reads them next verifies them.
    Raises NothingToArchive, which names the runs of which there is nothing to take up.
    """
    retried = _retry(session, is_among(_Transfer.run_id, run_ids), by=by)
    asked = request_archiving(session, is_among(_Run.id, run_ids))
    taken_up = sorted({*retried, *asked})
    found = sa.select(_Transfer.run_id).where(is_among(_Transfer.id, taken_up))
    if others := set(run_ids) - set(session.scalars(found)):
        raise NothingToArchive(sorted(others))
    return taken_up


def retry_failed_archiving(session: Session, *, by: str) -> list[int]:
    """Take up all transfers of products that failed; their ids."""
    return _retry(session, sa.true(), by=by)


def _retry(session: Session, which: sa.ColumnElement[bool], *, by: str) -> list[int]:
    counts = sa.exists().where(_Product.run_id == _Transfer.run_id, _Product.state == ProductState.CURRENT)
    failed = sa.select(_Transfer.id).where(which, _Transfer.status == Status.FAILED, counts)
    ids = session.scalars(failed).all()
    home = sa.select(_Run.data_location_id).where(_Run.id == _Transfer.run_id).scalar_subquery()
    anew = {
        "origin_id": home,
        "next_id": None,
        "data_transfer_route_id": None,
    }  # what is where by now is not sent again
    session.execute(sa.update(_Transfer).where(is_among(_Transfer.id, ids)).values(anew))
    lost = (
        sa.select(_Copy)
        .join(_Product, _Product.id == _Copy.data_product_id)
        .join(_Transfer, _Transfer.run_id == _Product.run_id)
        .where(is_among(_Transfer.id, ids), _Copy.data_location_id == _Transfer.origin_id, _Copy.status.in_(LOST))
    )
    believe(session, lost, by=by)
    return advance(session, _Transfer, ids, to=Status.PENDING, because="a retry was asked for", by=by, values=ANEW)
