"""A product is brought to a processing location: from an archive, or from wherever else there is a sound copy."""

from collections.abc import Sequence
from functools import partial

from sqlalchemy.orm import Session

from ccat_data_transfer.backends.base import Store, Stored, pour
from ccat_data_transfer.backends.errors import BadFile, FileUnreadable
from ccat_data_transfer.backends.posix import Tree
from ccat_data_transfer.errors import BroughtInVain, ProductIsFetchedElse
from ccat_data_transfer.tar import Writable
from ccat_data_transfer.verbs.attempts import Attempt
from ccat_data_transfer.verbs.copies import mark
from ccat_data_transfer.verbs.doubting import reading
from ccat_data_transfer.verbs.products.copying import Item, Seen
from ccat_data_transfer.verbs.products.ordering import record
from ccat_data_transfer.verbs.products.repairing import archive_lost
from ccat_data_transfer.verbs.products.sourcing import Order, order
from ccat_data_transfer.verbs.products.trees import Before, digest_of, look_before, tree_at
from ccat_ops_db.plan.trees import TreeFile
from ccat_ops_db.states import Status


def fetch_product(one: Attempt) -> None:
    """Do a staging job for a product: copy it, every byte compared with what was registered.

    A whole one from before is adopted. A copy that is read and is not what was registered is marked, and another is
    fetched. Raises BroughtInVain where what came from another site is bad, and CopyUnread where it cannot be read.
    """
    wanted = one.transaction(partial(order, one=one))
    if wanted is None:
        return
    try:
        with reading(wanted.store, wanted.item.origin_path or "", copy_id=wanted.copy_id):
            seen = _pull(one, wanted) if wanted.moves else _copy(wanted)
    except BadFile as problem:
        one.transaction(partial(_give_up_on, one=one, wanted=wanted, problem=problem))
        raise ProductIsFetchedElse(wanted.name, problem) from problem
    wanted.disk.remove(wanted.inbox)  # whoever had it brought may have died before
    one.transaction(partial(_record, one=one, wanted=wanted, seen=seen))


def _copy(wanted: Order) -> Seen:
    """Copy it from where it is read, unless what an earlier try, or whoever made it, left in its place is whole."""
    before = look_before(wanted.disk, wanted.path, wanted.item)
    stored = wanted.disk.published_tree(wanted.path) if before.is_whole else _make(wanted, before)
    return Seen(wanted.item.size_bytes, wanted.item.checksum, stored.seal.mtime_ns, stored.seal.inode)


def _make(wanted: Order, before: Before) -> Stored:
    item, store, origin_path = wanted.item, wanted.store, wanted.item.origin_path or ""
    tree = tree_at(store, origin_path, item)
    if tree is None:
        write = partial(_write, store=store, item=item)
        return wanted.disk.publish(
            wanted.path, write, needs=item.size_bytes, checksum=item.checksum, instead_of=before.seal
        )
    fill = partial(_fill, store=store, path=origin_path, files=tree)
    return wanted.disk.publish_tree(wanted.path, fill, needs=item.size_bytes, instead_of=before.seal)


def _write(sink: Writable, *, store: Store, item: Item) -> None:
    pour(store, item.origin_path or "", sink, size_bytes=item.size_bytes, checksum=item.checksum)


def _fill(tree: Tree, *, store: Store, path: str, files: Sequence[TreeFile]) -> None:
    for file in files:
        with tree.writing(file.path, mode=file.mode) as sink:
            pour(store, f"{path}/{file.path}", sink, size_bytes=None, checksum=digest_of(file))


def _pull(one: Attempt, wanted: Order) -> Seen:
    """Bring it along a route."""
    [(_, seen)] = wanted.puller(progress=one.keep_lease).bring([wanted.item])
    if isinstance(seen, BadFile):
        raise BroughtInVain(wanted.disk.name, {wanted.copy_id: seen})
    if isinstance(seen, FileUnreadable):
        raise seen
    return seen


def _give_up_on(session: Session, *, one: Attempt, wanted: Order, problem: BadFile) -> None:
    """Never use a copy again; an archive gets another one where there is something to make it of."""
    mark(session, wanted.copy_id, problem, by=one.by)
    archive_lost(session, [wanted.run_id])


def _record(session: Session, *, one: Attempt, wanted: Order, seen: Seen) -> None:
    because = f"brought from {wanted.store.name}, and compared"
    record(session, {wanted.item.copy_id: seen}, by=one.by, because=because)
    one.end(session, Status.COMPLETED, because=because)
