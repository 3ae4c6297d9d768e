import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy.orm import Session

from ccat_data_transfer.backends.errors import BadFile
from ccat_data_transfer.backends.streams import checksum_of
from ccat_data_transfer.errors import BadProducts, ProductsSpoiled, ProductsUnread
from ccat_data_transfer.verbs.attempts import Attempt, Worker, attempt
from ccat_data_transfer.verbs.products.aiming import aim_on
from ccat_data_transfer.verbs.products.copying import Copier, Item, LeftOut
from ccat_data_transfer.verbs.products.describing import description_of
from ccat_data_transfer.verbs.products.ordering import (
    Ordered,
    doubt_unread,
    drop,
    made_and_there,
    mark_bad,
    order,
    record_all,
)
from ccat_data_transfer.verbs.products.plan import description_path, directory_of
from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.states import Status


@dataclass(frozen=True, kw_only=True)
class _Order:
    run_id: int
    archive_id: int
    to_send_again: frozenset[int]
    """Copies, WRITING, of those that were moved from where they were made, and that are there still."""
    ordered: Ordered
    copier: Copier


class _BadItems(BadProducts):
    def __init__(self, order: _Order, found: Sequence[tuple[Item, BadFile]]) -> None:
        super().__init__(order.run_id, [problem for _, problem in found])
        self.found = found


class _Spoiled(ProductsSpoiled):
    def __init__(self, order: _Order, found: Sequence[tuple[Item, BadFile]]) -> None:
        super().__init__(order.run_id, [problem for _, problem in found])
        self.found = found


class _Unread(ProductsUnread):
    def __init__(self, order: _Order, left: LeftOut) -> None:
        super().__init__(order.run_id, [problem for _, problem in (*left.unread, *left.bad)])
        self.found = left.bad
        self.unread = left.unread


def archive_products(worker: Worker, transfer_id: int) -> None:
    """Copy the products of a run, all that count, into a long-term archive, each read back from there.

    They are recorded many at a time. One that is not what was registered is marked, one that cannot be read is tried
    again, and neither keeps any other from being archived. What is known of the run lies beside them in the end. Does
    nothing unless the transfer is SCHEDULED.
    """
    attempt(worker, models.ProductArchiveTransfer, transfer_id, work=_archive, on_failure=_mark_bad)


def _archive(one: Attempt) -> None:
    wanted = one.transaction(partial(_prepare, one=one))
    items, dropped = _begun(wanted)
    one.transaction(partial(drop, items=dropped, by=one.by))
    if not items and not wanted.ordered.are_there:
        because = "its products do not count any more"
        one.transaction(partial(one.end, to=Status.CANCELLED, because=because))
        return
    left = record_all(one, wanted.copier.copy_all(items), wanted.ordered)
    _describe(one, wanted)
    if spoiled := [(item, told) for item, told in left.bad if item.copy_id in wanted.to_send_again]:
        raise _Spoiled(wanted, spoiled)
    if left.unread:
        raise _Unread(wanted, left)
    if left.bad:
        raise _BadItems(wanted, left.bad)
    because = "archived, and every product read back there"
    one.transaction(partial(one.end, to=Status.COMPLETED, because=because))


def _prepare(session: Session, *, one: Attempt) -> _Order:
    transfer = session.get_one(models.ProductArchiveTransfer, one.transfer_id)
    run = session.get_one(models.ExecutedReductionStep, transfer.run_id)
    origin = session.get_one(models.DataLocation, transfer.origin_id)
    archive = session.get_one(models.DataLocation, transfer.destination_id)
    directory = directory_of(run.pipeline.name, run.reduction_step.key, sub_group=run.sub_group_path, run_id=run.id)
    ordered = order(session, transfer, directory=directory, by=one.by)
    is_away = origin.id != run.data_location_id
    return _Order(
        run_id=run.id,
        archive_id=archive.id,
        to_send_again=made_and_there(session, run, ordered) if is_away else frozenset(),
        ordered=ordered,
        copier=Copier(origin=one.disk(origin), archive=one.store(archive), directory=directory),
    )


def _begun(wanted: _Order) -> tuple[list[Item], list[Item]]:
    """What is copied, and what was announced before and is not: it does not count any more, and nothing is there."""
    begun = [item for item in wanted.ordered.doubtful if wanted.copier.is_begun(item)]
    return [*wanted.ordered.items, *begun], [item for item in wanted.ordered.doubtful if item not in begun]


def _describe(one: Attempt, wanted: _Order) -> None:
    """Put what is known of the run beside its products."""
    copier = wanted.copier
    look = partial(description_of, run_id=wanted.run_id, archive_id=wanted.archive_id, directory=copier.directory)
    text = one.transaction(look)
    checksum = checksum_of(hashlib.sha256(text))
    path = description_path(copier.directory)
    copier.archive.publish(path, lambda sink: sink.write(text), needs=len(text), checksum=checksum)


def _mark_bad(session: Session, one: Attempt, error: CcatError) -> None:
    if isinstance(error, _BadItems | _Spoiled | _Unread):
        mark_bad(session, error.found, by=one.by)
    if isinstance(error, _Unread):
        doubt_unread(session, one, error.unread)
    if isinstance(error, _Spoiled):
        transfer = session.get_one(models.ProductArchiveTransfer, one.transfer_id)
        run = session.get_one(models.ExecutedReductionStep, transfer.run_id)
        aim_on(session, transfer, run.data_location_id)
