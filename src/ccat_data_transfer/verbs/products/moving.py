"""Products of a run are brought to a buffer of the next site on their way to an archive, and go on from there."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.backends.errors import BadFile
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.errors import BroughtInVain, CopyInDoubt, CopyUnread
from ccat_data_transfer.verbs.attempts import Attempt, Worker, attempt
from ccat_data_transfer.verbs.doubting import IS_DOUBTED, doubt_what_was_brought, still_there
from ccat_data_transfer.verbs.products.aiming import aim_on
from ccat_data_transfer.verbs.products.copying import Item, LeftOut, Outcome
from ccat_data_transfer.verbs.products.ordering import Ordered, doubt_unread, drop, order, record_all
from ccat_data_transfer.verbs.products.plan import directory_of, inbox_of_run, top_of
from ccat_data_transfer.verbs.products.pulling import Puller
from ccat_ops_db import models
from ccat_ops_db.sets import is_among, once_more
from ccat_ops_db.states import PhysicalCopyStatus, ProductState, Status

_ARRIVED: Final = "came from another site, and every byte compared"
_Copy, _Product = models.PhysicalCopy, models.DataProduct
_Archived: Final = once_more(models.PhysicalCopy, name="archived")


@dataclass(frozen=True, kw_only=True)
class _Order:
    next_id: int
    origin: str
    run_id: int
    ordered: Ordered
    unreadable: Sequence[Item]
    """Products that cannot be read where they come from, as was found there."""
    buffer: Disk
    directory: str
    puller: Callable[[str], Puller]
    """Brings products that lie in a directory of the origin."""

    def path_of(self, item: Item) -> str:
        """Where a product gets to."""
        return f"{self.directory}/{item.relative_path}"

    def has_inboxes(self) -> bool:
        """Whether anything may be left in the inbox: there is a directory of them."""
        return self.buffer.seal(str(PurePosixPath(self.puller("").inbox).parent)) is not None


def move_products(worker: Worker, transfer_id: int) -> None:
    """Bring the products of a run to the next buffer on their way, each compared with what was registered.

    What was brought before is not brought again. What arrives damaged is read where it comes from before it is sent
    again; what is bad there is left behind, and so is what cannot be read, which follows later. Does nothing unless the
    transfer is SCHEDULED; leaves it PENDING.
    """
    attempt(worker, models.ProductArchiveTransfer, transfer_id, work=_move, on_failure=doubt_what_was_brought)


def _move(one: Attempt) -> None:
    wanted = one.transaction(partial(_prepare, one=one))
    begun = [item for item in wanted.ordered.doubtful if wanted.buffer.seal(wanted.path_of(item)) is not None]
    one.transaction(partial(drop, items=[item for item in wanted.ordered.doubtful if item not in begun], by=one.by))
    unreadable = {item.copy_id for item in wanted.unreadable}
    items = [*(item for item in wanted.ordered.items if item.copy_id not in unreadable), *begun]
    left = record_all(one, _arrivals(wanted, items), wanted.ordered, because=_ARRIVED)
    if items or wanted.has_inboxes():  # else perhaps nothing at all lies there, as on a disk that is away
        wanted.puller("").done()
    one.transaction(partial(_require_sound, at=wanted.buffer.name, bad=left.bad))
    one.transaction(partial(_require_some, one=one, wanted=wanted, left=left))
    one.transaction(partial(_go_on, one=one, wanted=wanted, left=left))


def _prepare(session: Session, *, one: Attempt) -> _Order:
    transfer = session.get_one(models.ProductArchiveTransfer, one.transfer_id)
    run = session.get_one(models.ExecutedReductionStep, transfer.run_id)
    origin = session.get_one(models.DataLocation, transfer.origin_id)
    buffer = session.get_one(models.DataLocation, transfer.next_id)
    route = session.get_one(models.DataTransferRoute, transfer.data_transfer_route_id)
    directory = directory_of(run.pipeline.name, run.reduction_step.key, sub_group=run.sub_group_path, run_id=run.id)
    ordered = order(session, transfer, directory=directory, by=one.by, to=buffer.id)
    unreadable, place = _unreadable(session, ordered.items), f"{origin.site.short_name}/{origin.name}"
    if unreadable is None:
        raise CopyInDoubt(f"Run {run.id}", place)
    puller = partial(
        Puller,
        origin=one.disk(origin),
        host=origin.host if isinstance(origin, models.DiskDataLocation) else None,
        move=one.mover(route),
        disk=one.disk(buffer),
        inbox=inbox_of_run(run.id),
        progress=one.keep_lease,
        path_of=lambda item: f"{directory}/{item.relative_path}",
    )
    return _Order(
        next_id=buffer.id,
        origin=place,
        run_id=run.id,
        ordered=ordered,
        unreadable=unreadable,
        buffer=one.disk(buffer),
        directory=directory,
        puller=lambda top: puller(top=top),
    )


def _unreadable(session: Session, items: Sequence[Item]) -> list[Item] | None:
    """Products that cannot be read where they come from, as was found there; None where some are still to be read."""
    copy_ids = [item.origin_copy_id for item in items if item.origin_copy_id is not None]
    doubted = sa.select(_Copy.id, _Copy.trouble_count > 0).where(is_among(_Copy.id, copy_ids), IS_DOUBTED)
    found = dict(session.execute(doubted).all())
    return [item for item in items if item.origin_copy_id in found] if all(found.values()) else None


def _arrivals(wanted: _Order, items: Sequence[Item]) -> Iterator[Outcome]:
    """What becomes of products, those of each directory together; most runs have all in one."""
    for top in sorted({top_of(item.origin_path, item.relative_path) for item in items}):
        here = [item for item in items if top_of(item.origin_path, item.relative_path) == top]
        yield from wanted.puller(top).bring(here)


def _require_sound(session: Session, *, at: str, bad: Sequence[tuple[Item, BadFile]]) -> None:
    """Raise BroughtInVain for what nobody called bad where it comes from."""
    problems = {item.origin_copy_id: problem for item, problem in bad if item.origin_copy_id is not None}
    if doubtful := still_there(session, problems):
        raise BroughtInVain(at, doubtful)


def _require_some(session: Session, *, one: Attempt, wanted: _Order, left: LeftOut) -> None:
    """Raise CopyUnread or CopyInDoubt where nothing goes on from the buffer, as all that is left cannot be read."""
    if not (left.unread or wanted.unreadable) or _some_go_on(session, one.transfer_id):
        return
    for item, problem in left.unread:
        if item.origin_copy_id is not None:
            raise CopyUnread(item.origin_copy_id, problem)
    raise CopyInDoubt(f"Run {wanted.run_id}", wanted.origin)


def _some_go_on(session: Session, transfer_id: int) -> bool:
    """Whether products have come to the next buffer that are not in the archive yet."""
    transfer = session.get_one(models.ProductArchiveTransfer, transfer_id)
    is_archived = sa.exists().where(
        _Archived.data_product_id == _Product.id,
        _Archived.data_location_id == transfer.destination_id,
        _Archived.status == PhysicalCopyStatus.PRESENT,
    )
    there = (
        sa.select(_Product.id)
        .join(_Copy, _Copy.data_product_id == _Product.id)
        .where(_Product.run_id == transfer.run_id, _Product.state == ProductState.CURRENT)
        .where(_Copy.data_location_id == transfer.next_id, _Copy.status == PhysicalCopyStatus.PRESENT)
        .where(sa.not_(is_archived))
    )
    return bool(session.scalar(sa.select(there.exists())))


def _go_on(session: Session, *, one: Attempt, wanted: _Order, left: LeftOut) -> None:
    transfer = session.get_one(models.ProductArchiveTransfer, one.transfer_id)
    doubt_unread(session, one, left.unread)
    drop(session, [item for item, _ in left.bad], by=one.by, because="there is nothing sound to bring")
    unread = [*wanted.unreadable, *(item for item, _ in left.unread)]
    drop(session, unread, by=one.by, because="it cannot be read where it comes from, and follows later")
    aim_on(session, transfer, wanted.next_id)
    one.end(session, Status.PENDING, because=_ARRIVED, arrives=True)
