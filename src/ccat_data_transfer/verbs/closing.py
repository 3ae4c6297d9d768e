"""What was lost with its location is made anew elsewhere, and its rows are closed once as much is there as is wanted.

What was found bad at other locations is made anew in its place; at one that is lost nothing ever is.
"""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from ccat_data_transfer.verbs.replicating import busy_archives, replicate, sound_copies, wanted_copies
from ccat_ops_db import claims, models
from ccat_ops_db.models.data import LOST, UNFINISHED
from ccat_ops_db.moves import advance
from ccat_ops_db.sets import is_among, once_more
from ccat_ops_db.states import LocationType, PhysicalCopyStatus, ProductState
from ccat_ops_db.verbs.losing import lose_the_rest

_Package, _Product, _Copy, _Location = (
    models.RawDataPackage,
    models.DataProduct,
    models.PhysicalCopy,
    models.DataLocation,
)
MOST_CLOSED: Final = 5_000
_OPEN: Final = (PhysicalCopyStatus.CORRUPT, PhysicalCopyStatus.MISSING, PhysicalCopyStatus.WRITING)
_REPLACED: Final = "lost with its archive, and other archives have it"
_NEEDED_NO_MORE: Final = "lost with its location, and not needed any more"
_OTHER: Final = once_more(_Location, name="other")


def _were_lost_at(kind: LocationType) -> sa.ColumnElement[bool]:
    """Condition on copies: they were lost with a location of this type."""
    lost = sa.select(_Location.id).where(_Location.location_type == kind, _Location.lost_at.is_not(None))
    return sa.and_(_Copy.data_location_id.in_(lost), sa.text(f"physical_copy.{LOST}"), claims.is_free(_Copy))


def replace_lost(session: Session, *, by: str) -> int:
    """Call missing what is left, or came, where all is lost, and ask for more copies of it; how many were called so."""
    lost = lose_the_rest(session, by=by)
    if lost:
        of_packages = sa.select(_Copy.raw_data_package_id).where(is_among(_Copy.id, lost))
        packages = {one for one in session.scalars(of_packages) if one is not None}
        replicate(session, packages, leave_out=busy_archives(session), by=by)
    return len(lost)


def close_replaced(session: Session, which: sa.ColumnElement[bool], *, by: str) -> int:
    """Close what lost archives had of these packages of which others have as many verified copies as are wanted.

    `which` is a condition on packages; how many copies that are.
    """
    verified = sound_copies(_Package.id).where(_Copy.verified_at.is_not(None), _Copy.checksum == _Package.checksum)
    copies = verified.with_only_columns(sa.func.count()).correlate(_Package).scalar_subquery()
    have_enough = sa.select(_Package.id).where(which, copies >= wanted_copies())
    lost = _were_lost_at(LocationType.LONG_TERM_ARCHIVE)
    found = sa.select(_Copy.id).where(lost, _Copy.raw_data_package_id.in_(have_enough))
    return _close(session, found, because=_REPLACED, by=by)


def close_needless(session: Session, *, by: str) -> int:
    """Close what else was lost with its location: unfinished, in buffers, of products that others have or none is to.

    Of each some at a time; how many copies that are.
    """
    other = aliased(_Copy, flat=True)
    is_elsewhere = sa.exists().where(
        other.data_product_id == _Product.id,
        other.status == PhysicalCopyStatus.PRESENT,
        other.verified_at.is_not(None),
        _OTHER.id == other.data_location_id,
        _OTHER.location_type == LocationType.LONG_TERM_ARCHIVE,
        _OTHER.lost_at.is_(None),
    )
    lost, product = _were_lost_at(LocationType.LONG_TERM_ARCHIVE), _Product.id == _Copy.data_product_id
    of_products = sa.select(_Copy.id).join(_Product, product).where(lost).limit(MOST_CLOSED)
    in_buffers = sa.select(_Copy.id).where(_were_lost_at(LocationType.BUFFER)).limit(MOST_CLOSED)
    at_lost = _Copy.data_location_id.in_(sa.select(_Location.id).where(_Location.lost_at.is_not(None)))
    unfinished = sa.select(_Copy.id).where(sa.text(f"physical_copy.{UNFINISHED}"), at_lost, claims.is_free(_Copy))
    closed = _close(session, of_products.where(is_elsewhere), because=_REPLACED, by=by)
    for needless in (of_products.where(_Product.state != ProductState.CURRENT), in_buffers, unfinished):
        closed += _close(session, needless, because=_NEEDED_NO_MORE, by=by)
    return closed


def _close(session: Session, found: sa.Select[int], *, because: str, by: str) -> int:
    ids = session.scalars(found.order_by(_Copy.id).with_for_update(of=_Copy)).all()
    to = PhysicalCopyStatus.DELETED
    return len(advance(session, _Copy, ids, to=to, expected=_OPEN, because=because, by=by))
