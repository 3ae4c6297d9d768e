"""Rows of the copies of products in an archive, for all products of a run at once."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.backends.errors import BadFile, FileUnreadable
from ccat_data_transfer.errors import CopyUnread, ProductCopyInTheWay
from ccat_data_transfer.verbs.attempts import Attempt, LeaseLost
from ccat_data_transfer.verbs.copies import close_useless, to_finish, useless
from ccat_data_transfer.verbs.doubting import doubt_what_was_brought
from ccat_data_transfer.verbs.products.copying import Item, LeftOut, Outcome, Seen
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.sets import Brought, is_among, once_more, table_of
from ccat_ops_db.states import SOUND_COPY_STATUSES, PhysicalCopyStatus, ProductState

_Product, _Copy, _AnyCopy = models.DataProduct, models.DataProductPhysicalCopy, models.PhysicalCopy
_Home: Final = once_more(models.PhysicalCopy, name="home")
_LOST: Final = (PhysicalCopyStatus.CORRUPT, PhysicalCopyStatus.MISSING)
_SEEN: Final = Brought(
    "seen", size_bytes=sa.BigInteger(), checksum=sa.Text(), mtime_ns=sa.BigInteger(), inode=sa.BigInteger()
)
_RECORDED: Final = {
    "size_bytes": _SEEN.c.size_bytes,
    "checksum": _SEEN.c.checksum,
    "mtime_ns": _SEEN.c.mtime_ns,
    "inode": _SEEN.c.inode,
    "verified_at": sa.func.clock_timestamp(),
}
_TOLD: Final = Brought("told", because=sa.Text())
_RECORDED_AT_ONCE: Final = 500
_TELLING: Final = _TOLD.c.because


class Ordered(NamedTuple):
    """What is to be copied of a run."""

    items: Sequence[Item]
    doubtful: Sequence[Item]
    """Products that do not count any more, whose copying was announced: they are finished if it was begun."""
    are_there: bool
    """Whether some are in the archive already."""
    condemned: frozenset[int]
    """Those of the copies that are announced whose products were found damaged or gone where they come from."""


def order(
    session: Session, transfer: models.ProductArchiveTransfer, *, directory: str, by: str, to: int | None = None
) -> Ordered:
    """Announce a copy, WRITING, of each product of a run that is to be copied; lost ones before it are closed.

    It is in the archive, or at `to`, a buffer on the way there: then of what is not archived yet. Raises
    ProductCopyInTheWay where one is being deleted.
    """
    place = transfer.destination_id if to is None else to
    found = sa.select(_Product).where(_Product.run_id == transfer.run_id).order_by(_Product.relative_path)
    products = {one.id: one for one in session.scalars(found)}
    found_there = _copies(session, products, transfer.origin_id)
    at_origin = {one: copy for one, copy in found_there.items() if copy.status is not PhysicalCopyStatus.WRITING}
    there = _copies(session, products, place)
    lost = close_useless(session, [one.id for one in there.values() if _is_lost(one)], by=by)
    kept = {one: copy for one, copy in there.items() if copy.id not in lost}
    begun = {one: copy.id for one, copy in kept.items() if copy.status is PhysicalCopyStatus.WRITING}
    present = _present(kept)
    for one in kept.keys() - begun.keys() - present:
        raise ProductCopyInTheWay(products[one].relative_path, kept[one].status)
    mine = to_finish(session, begun.values())
    for one in (product for product, copy_id in begun.items() if copy_id not in mine):
        raise ProductCopyInTheWay(products[one].relative_path, "unfinished, and being removed")
    current = {one for one, product in products.items() if product.state is ProductState.CURRENT}
    archived = set() if to is None else _present(_copies(session, products, transfer.destination_id))
    new = _announce(session, current - archived - kept.keys(), place, directory=directory)
    items = {
        one: _item(products[one], copy_id, at_origin.get(one)) for one, copy_id in sorted({**begun, **new}.items())
    }
    return Ordered(
        items=[item for one, item in items.items() if one in current],
        doubtful=[item for one, item in items.items() if one not in current],
        are_there=bool(present),
        condemned=frozenset(item.copy_id for one, item in items.items() if _is_lost(at_origin.get(one))),
    )


def made_and_there(session: Session, run: models.ExecutedReductionStep, ordered: Ordered) -> frozenset[int]:
    """Those of the announced copies whose products are sound where they were made."""
    copy_ids = [item.copy_id for item in (*ordered.items, *ordered.doubtful)]
    is_there = sa.and_(
        _Home.data_product_id == _AnyCopy.data_product_id,
        _Home.data_location_id == run.data_location_id,
        _Home.status.in_(SOUND_COPY_STATUSES),
    )
    found = sa.select(_AnyCopy.id).join(_Home, is_there).where(is_among(_AnyCopy.id, copy_ids))
    return frozenset(session.scalars(found))


def record(session: Session, seen: Mapping[int, Seen], *, by: str, because: str) -> None:
    """The copies are PRESENT, with what was seen of each; raises LeaseLost where somebody else recorded one."""
    rows = _SEEN.rows(
        seen,
        size_bytes=[one.size_bytes for one in seen.values()],
        checksum=[one.checksum for one in seen.values()],
        mtime_ns=[one.mtime_ns for one in seen.values()],
        inode=[one.inode for one in seen.values()],
    )
    to = PhysicalCopyStatus.PRESENT
    moved = advance(session, _AnyCopy, seen, to=to, because=because, by=by, values=_RECORDED, listed=rows)
    if len(moved) < len(seen):
        raise LeaseLost


def record_all(
    one: Attempt, outcomes: Iterator[Outcome], ordered: Ordered, *, because: str = "archived, and read back there"
) -> LeftOut:
    """Record what is copied from time to time, which is not copied again if this try ends; what was left out."""
    left = LeftOut()
    while some := list(islice(outcomes, _RECORDED_AT_ONCE)):
        seen: dict[int, Seen] = {}
        for item, told in some:
            if isinstance(told, Seen):
                seen[item.copy_id] = told
            else:
                left.add(item, told, is_condemned=item.copy_id in ordered.condemned)
        if seen:
            one.transaction(partial(record, seen=seen, by=one.by, because=because))
    return left


def drop(
    session: Session,
    items: Collection[Item],
    *,
    by: str,
    because: str = "its product does not count any more, and nothing was written",
) -> None:
    """Close copies of which nothing was written."""
    ids = [item.copy_id for item in items]
    advance(session, _AnyCopy, ids, to=PhysicalCopyStatus.DELETED, because=because, by=by)


def mark_bad(session: Session, found: Sequence[tuple[Item, BadFile]], *, by: str) -> None:
    """Mark copies where products were made, that were found bad, as MISSING or CORRUPT, each with what is wrong."""
    expected = [PhysicalCopyStatus.PRESENT]
    for to in _LOST:
        bad = {
            item.origin_copy_id: str(problem)
            for item, problem in found
            if item.origin_copy_id is not None and useless(problem) is to
        }
        told = _TOLD.rows(bad, because=list(bad.values()))
        advance(session, _AnyCopy, bad, to=to, expected=expected, because=_TELLING, by=by, listed=told)


def doubt_unread(session: Session, one: Attempt, found: Sequence[tuple[Item, FileUnreadable]]) -> None:
    """Have products that cannot be read alone read next where they lie, before they count again."""
    for item, problem in found:
        if item.origin_copy_id is not None:
            doubt_what_was_brought(session, one, CopyUnread(item.origin_copy_id, problem))


def _copies(session: Session, products: Collection[int], location_id: int | None) -> dict[int, Any]:
    """The copy of each product at a location that is not DELETED."""
    of_product = sa.select(_Copy.data_product_id, _Copy.id, _Copy.status, _Copy.path).where(
        is_among(_Copy.data_product_id, products),
        _Copy.data_location_id == location_id,
        _Copy.status != PhysicalCopyStatus.DELETED,
    )
    return {row.data_product_id: row for row in session.execute(of_product) if row.data_product_id is not None}


def _is_lost(copy: Any) -> bool:
    return copy is not None and copy.status in _LOST


def _present(copies: Mapping[int, Any]) -> set[int]:
    return {one for one, copy in copies.items() if copy.status is PhysicalCopyStatus.PRESENT}


def _announce(session: Session, products: Collection[int], place: int | None, *, directory: str) -> dict[int, int]:
    table = table_of(_AnyCopy)
    values = {
        "type": sa.literal("data_product"),
        "data_product_id": _Product.id,
        "data_location_id": sa.literal(place, sa.BigInteger),
        "path": sa.literal(f"{directory}/") + _Product.relative_path,
    }
    rows = sa.select(*values.values()).where(is_among(_Product.id, products))
    new = sa.insert(table).from_select(list(values), rows).returning(table.c.data_product_id, table.c.id)
    return {product_id: copy_id for product_id, copy_id in session.execute(new)}  # noqa: C416 - rows are no pairs to mypy


def _item(product: models.DataProduct, copy_id: int, origin: Any) -> Item:
    return Item(
        relative_path=product.relative_path,
        size_bytes=product.size_bytes,
        checksum=product.checksum,
        copy_id=copy_id,
        origin_copy_id=origin.id if origin else None,
        origin_path=origin.path if origin else None,
    )
