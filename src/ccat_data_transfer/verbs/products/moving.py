"""Products of a run are brought to a buffer of the next site on their way to an archive, and go on from there."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import PurePosixPath
from typing import Final

from sqlalchemy.orm import Session

from ccat_data_transfer.backends.errors import BadFile
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.errors import BroughtInVain, CopyInDoubt
from ccat_data_transfer.verbs.attempts import Attempt, Worker, attempt
from ccat_data_transfer.verbs.doubting import doubt_what_was_brought, in_doubt, still_there
from ccat_data_transfer.verbs.products.aiming import aim_on
from ccat_data_transfer.verbs.products.copying import Item, Outcome, Seen
from ccat_data_transfer.verbs.products.ordering import Ordered, drop, order, record
from ccat_data_transfer.verbs.products.plan import directory_of, inbox_of_run, top_of
from ccat_data_transfer.verbs.products.pulling import Puller
from ccat_ops_db import models
from ccat_ops_db.states import Status

_RECORDED_AT_ONCE: Final = 500
_ARRIVED: Final = "came from another site, and every byte compared"


@dataclass(frozen=True, kw_only=True)
class _Order:
    next_id: int
    ordered: Ordered
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
    again; what is bad there is left behind. Does nothing unless the transfer is SCHEDULED; leaves it PENDING.
    """
    attempt(worker, models.ProductArchiveTransfer, transfer_id, work=_move, on_failure=doubt_what_was_brought)


def _move(one: Attempt) -> None:
    wanted = one.transaction(partial(_prepare, one=one))
    begun = [item for item in wanted.ordered.doubtful if wanted.buffer.seal(wanted.path_of(item)) is not None]
    one.transaction(partial(drop, items=[item for item in wanted.ordered.doubtful if item not in begun], by=one.by))
    items = [*wanted.ordered.items, *begun]
    bad = _bring(one, wanted, items)
    if items or wanted.has_inboxes():  # else perhaps nothing at all lies there, as on a disk that is away
        wanted.puller("").done()
    one.transaction(partial(_require_sound, at=wanted.buffer.name, bad=bad))
    one.transaction(partial(_go_on, one=one, next_id=wanted.next_id, bad=bad))


def _prepare(session: Session, *, one: Attempt) -> _Order:
    transfer = session.get_one(models.ProductArchiveTransfer, one.transfer_id)
    run = session.get_one(models.ExecutedReductionStep, transfer.run_id)
    origin = session.get_one(models.DataLocation, transfer.origin_id)
    buffer = session.get_one(models.DataLocation, transfer.next_id)
    route = session.get_one(models.DataTransferRoute, transfer.data_transfer_route_id)
    directory = directory_of(run.pipeline.name, run.reduction_step.key, sub_group=run.sub_group_path, run_id=run.id)
    ordered = order(session, transfer, directory=directory, by=one.by, to=buffer.id)
    if in_doubt(session, [item.origin_copy_id for item in ordered.items if item.origin_copy_id is not None]):
        raise CopyInDoubt(f"Run {run.id}", f"{origin.site.short_name}/{origin.name}")
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
        ordered=ordered,
        buffer=one.disk(buffer),
        directory=directory,
        puller=lambda top: puller(top=top),
    )


def _bring(one: Attempt, wanted: _Order, items: Sequence[Item]) -> list[tuple[Item, BadFile]]:
    """Bring everything, and record it from time to time; what is wrong with the rest."""
    bad: list[tuple[Item, BadFile]] = []
    arrivals = _arrivals(wanted, items)
    while some := list(islice(arrivals, _RECORDED_AT_ONCE)):
        bad += [(item, told) for item, told in some if isinstance(told, BadFile)]
        if seen := {item.copy_id: told for item, told in some if isinstance(told, Seen)}:
            one.transaction(partial(record, seen=seen, by=one.by, because=_ARRIVED))
    return bad


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


def _go_on(session: Session, *, one: Attempt, next_id: int, bad: Sequence[tuple[Item, BadFile]]) -> None:
    transfer = session.get_one(models.ProductArchiveTransfer, one.transfer_id)
    drop(session, [item for item, _ in bad], by=one.by, because="there is nothing sound to bring")
    aim_on(session, transfer, next_id)
    one.end(session, Status.PENDING, because=_ARRIVED, arrives=True)
