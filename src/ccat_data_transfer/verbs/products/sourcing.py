"""What is fetched of a product, from where and to where: the rows that say so."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ccat_data_transfer.backends.base import Store
from ccat_data_transfer.backends.movers import MovesFiles
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.errors import CopyInDoubt, CopyIsLetGo, NoProductCopy, ProductCopyInTheWay
from ccat_data_transfer.verbs.attempts import Attempt
from ccat_data_transfer.verbs.copies import LET_GO, close_useless, keep_to_read, live_product_copy, to_finish
from ccat_data_transfer.verbs.doubting import found_right
from ccat_data_transfer.verbs.products.copying import Item
from ccat_data_transfer.verbs.products.network import source_of, the_network
from ccat_data_transfer.verbs.products.plan import Fetch, directory_of, fetch_from, inbox_of, top_of
from ccat_data_transfer.verbs.products.pulling import Puller
from ccat_ops_db import models
from ccat_ops_db.models import DataLocation as _Location
from ccat_ops_db.models import DataProductPhysicalCopy as _Copy
from ccat_ops_db.states import SOUND_COPY_STATUSES, LocationType, PhysicalCopyStatus, Status

_Route = models.DataTransferRoute
_LOST: Final = (PhysicalCopyStatus.CORRUPT, PhysicalCopyStatus.MISSING)


@dataclass(frozen=True, kw_only=True)
class Order:
    """A product that is to be brought to a location."""

    name: str
    run_id: int
    item: Item
    copy_id: int
    """The copy that it is brought from."""
    store: Store
    disk: Disk
    path: str
    """Where it gets to."""
    moves: MovesFiles | None
    """What brings it; None: it is read where it is."""
    host: str | None
    has_listing: bool

    @property
    def inbox(self) -> str:
        """Directory that it arrives in along a route."""
        return inbox_of(self.item.copy_id)

    def puller(self, *, progress: Callable[[], None]) -> Puller:
        """What brings it along a route."""
        assert isinstance(self.store, Disk)  # noqa: S101 - an object store is read where it is; narrows the types
        assert self.moves is not None  # noqa: S101 - as asked before
        run = top_of(self.item.origin_path, self.item.relative_path)
        return Puller(
            origin=self.store,
            host=self.host,
            move=self.moves,
            disk=self.disk,
            inbox=self.inbox,
            top=str(PurePosixPath(run).parent) if self.has_listing else run,
            progress=progress,
            path_of=lambda _: self.path,
            has_listings=self.has_listing,
        )


def order(session: Session, *, one: Attempt) -> Order | None:
    """What to bring, its copy announced; None where it is there, and the job is over.

    Raises NoProductCopy, or CopyInDoubt where no copy but one that is to be read first can be got to.
    """
    job = session.get_one(models.StagingJob, one.transfer_id)
    product = session.get_one(models.DataProduct, job.data_product_id)
    location = session.get_one(_Location, job.data_location_id)
    there = live_product_copy(session, product.id, location.id)
    if there is not None and keep_to_read(session, there, by=one.by):
        one.end(session, Status.COMPLETED, because="is there already")
        return None
    found = _fetch(session, product, location, one=one)
    if there is not None and there.status in _LOST and location.id == product.run.data_location_id:
        job.is_repair = True  # or nobody would know of it any more if this fails
    copy_id = _announce(session, product, location, there=there, by=one.by)
    copy = session.get_one(_Copy, found.source.copy_id)
    route = session.get_one(_Route, found.route.id) if found.route else None
    return Order(
        name=_name(product),
        run_id=product.run_id,
        item=_item(product, copy_id, copy),
        copy_id=copy.id,
        store=one.store(copy.location),
        disk=one.disk(location),
        path=session.get_one(_Copy, copy_id).path,
        moves=one.mover(route) if route else None,
        host=copy.location.host if isinstance(copy.location, models.DiskDataLocation) else None,
        has_listing=copy.location.location_type is LocationType.LONG_TERM_ARCHIVE,
    )


def _item(product: models.DataProduct, copy_id: int, origin: _Copy) -> Item:
    return Item(
        relative_path=product.relative_path,
        size_bytes=product.size_bytes,
        checksum=product.checksum,
        copy_id=copy_id,
        origin_copy_id=origin.id,
        origin_path=origin.path,
    )


def _name(product: models.DataProduct) -> str:
    return f"{product.id} ({product.relative_path} of run {product.run_id})"


def _fetch(session: Session, product: models.DataProduct, location: _Location, *, one: Attempt) -> Fetch:
    here, copies = the_network(session), _others(session, product.id, location.id)
    sound, site_id = {copy.id: copy for copy in copies if copy.status in SOUND_COPY_STATUSES}, location.site_id
    refused = found_right(session, one, sound)
    sources = [source_of(copy, here, is_refused=copy.id in refused) for copy in sound.values()]
    found = fetch_from(sources, site_id, seen=here.seen_from(site_id), routes=here.routes)
    if found is not None and found.waits:
        raise CopyInDoubt(f"Product {_name(product)}", _label(sound[found.source.copy_id].location))
    if found is not None and keep_to_read(session, sound[found.source.copy_id], by=one.by):
        return found
    told = [f"{_label(copy.location)} is {copy.status}" for copy in copies]
    if found is not None or (not sound and any(copy.status in LET_GO for copy in copies)):
        raise CopyIsLetGo(f"Product {_name(product)}", _label(location), told)
    run = session.get_one(models.ExecutedReductionStep, product.run_id)
    again = f"`ccat trigger {run.pipeline.name} --step {run.reduction_step.key} --force` has it made again"
    remedy = f"No direct route leads from there: `ccat route add`, or {again}." if sources else f"{again}."
    raise NoProductCopy(_name(product), _label(location), told, remedy=remedy)


def _others(session: Session, product_id: int, location_id: int) -> list[_Copy]:
    """Copies of a product at other locations that are not DELETED."""
    copies = sa.select(_Copy).where(
        _Copy.data_product_id == product_id,
        _Copy.data_location_id != location_id,
        _Copy.status != PhysicalCopyStatus.DELETED,
    )
    return list(session.scalars(copies.order_by(_Copy.id)))


def _announce(
    session: Session, product: models.DataProduct, location: _Location, *, there: _Copy | None, by: str
) -> int:
    """Row, WRITING, of the copy that is about to be made; a corrupt or missing one before it is closed."""
    if there is not None and there.status in _LOST:
        if not close_useless(session, [there.id], by=by):
            raise ProductCopyInTheWay(_name(product), f"{there.status}, and being removed")
        there = None
    if there is None:
        row = {"type": "data_product", "data_product_id": product.id, "data_location_id": location.id}
        path = _path(session, product, location)
        return session.scalars(insert(_Copy).values(row | {"path": path}).returning(_Copy.id)).one()
    if there.status is not PhysicalCopyStatus.WRITING:
        raise ProductCopyInTheWay(_name(product), there.status)
    if not to_finish(session, [there.id]):
        raise ProductCopyInTheWay(_name(product), "unfinished, and being removed")
    return there.id


def _path(session: Session, product: models.DataProduct, location: _Location) -> str:
    """Where a product gets to: to the place that it had there, else to where archives would have it."""
    before = sa.select(_Copy.path).where(_Copy.data_product_id == product.id, _Copy.data_location_id == location.id)
    known = session.scalars(before.order_by(_Copy.id.desc()).limit(1)).one_or_none()
    if known is not None:
        return known
    run = session.get_one(models.ExecutedReductionStep, product.run_id)
    directory = directory_of(run.pipeline.name, run.reduction_step.key, sub_group=run.sub_group_path, run_id=run.id)
    return f"{directory}/{product.relative_path}"


def _label(location: _Location) -> str:
    return f"{location.site.short_name}/{location.name}"
