"""An object in an archive: what it should be, and the files beside it that go with it."""

import hashlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.backends.base import Store, load
from ccat_data_transfer.backends.errors import FileMissing
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.backends.streams import checksum_of
from ccat_data_transfer.descriptions import Flaw, flaw
from ccat_data_transfer.sidecar import DescribedTar, sidecar_path
from ccat_data_transfer.verbs.describing import sidecar_of
from ccat_data_transfer.verbs.products.describing import description_of
from ccat_data_transfer.verbs.products.plan import description_path, listing_path
from ccat_data_transfer.verbs.products.trees import confirm
from ccat_ops_db import models
from ccat_ops_db.plan.trees import listed
from ccat_ops_db.states import LIVE_TRANSFER_STATUSES, LocationType, PhysicalCopyStatus

_GOES: Final = (
    PhysicalCopyStatus.DELETION_IN_PROGRESS,
    PhysicalCopyStatus.DELETION_FAILED,
    PhysicalCopyStatus.DELETED,
)
"""What copies are that were let go."""
_Copy, _Product, _Transfer = models.PhysicalCopy, models.DataProduct, models.ProductArchiveTransfer


@dataclass(frozen=True, kw_only=True)
class Archived:
    """A raw package or a product in an archive, and where what goes with it is."""

    path: str
    size_bytes: int | None
    checksum: str
    description: str
    """Path of the file that says what it is; all products of a run have one together."""
    run_id: int | None = None
    """Run that made it, of a product."""
    listing: str | None = None
    """Path of the file that lists what is in it, of a product that is a directory."""

    @property
    def directory(self) -> str:
        """Where the products of its run are."""
        return self.description.removesuffix(".json")


def archived(session: Session, copy: models.PhysicalCopy) -> Archived:
    """What a copy in an archive should be."""
    size_bytes, checksum = copy.size_bytes, copy.checksum or ""
    if copy.data_product_id is None:
        beside = sidecar_path(copy.path)
        return Archived(path=copy.path, size_bytes=size_bytes, checksum=checksum, description=beside)
    product = session.get_one(_Product, copy.data_product_id)
    directory, name = copy.path.removesuffix(f"/{product.relative_path}"), product.relative_path
    return Archived(
        path=copy.path,
        size_bytes=size_bytes,
        checksum=product.checksum,
        description=description_path(directory),
        run_id=product.run_id,
        listing=listing_path(directory, name) if PurePosixPath(name).suffix == ".zarr" else None,
    )


def loose_product(session: Session, copy: models.PhysicalCopy) -> models.DataProduct | None:
    """Product that a copy is of, where it is in no archive: nothing lies beside it there."""
    is_archived = copy.location.location_type is LocationType.LONG_TERM_ARCHIVE
    return None if is_archived or copy.data_product_id is None else session.get_one(_Product, copy.data_product_id)


def compare(store: Store, one: Archived, loose: models.DataProduct | None) -> None:
    """Read all of a copy, wherever it is; raises BadFile where it is not what was registered.

    `loose` is what it is a copy of, of a product that is in no archive.
    """
    if loose is not None and isinstance(store, Disk):
        confirm(store, one.path, loose)
    else:
        verify(store, one)


def verify(store: Store, one: Archived) -> None:
    """Read all of it; raises BadFile where it is not what was archived."""
    if one.listing is None or store.size(one.path) is not None:
        _verify_file(store, one.path, size_bytes=one.size_bytes, checksum=one.checksum)
        return
    for file in listed(load(store, one.listing, checksum=one.checksum)):
        _verify_file(store, f"{one.path}/{file.path}", size_bytes=None, checksum=f"sha256:{file.sha256}")


def _verify_file(store: Store, path: str, *, size_bytes: int | None, checksum: str) -> None:
    with store.open(path, size_bytes=size_bytes) as content:
        content.drain()
        content.require(checksum)


def known_of(session: Session, copy: models.PhysicalCopy, one: Archived) -> bytes | None:
    """What the description beside a copy should say; None for a product that is not the one its run's is read with.

    That is the first of those that are there, and none while more of them are being archived.
    """
    if copy.raw_data_package_id is not None:
        name = PurePosixPath(one.path).name
        tar = DescribedTar(name=name, size_bytes=one.size_bytes or 0, checksum=one.checksum)
        return sidecar_of(session, copy.raw_data_package_id, tar=tar)
    if one.run_id is None or copy.id != _first_of(session, one.run_id, copy.data_location_id):
        return None
    return description_of(session, one.run_id, copy.data_location_id, directory=one.directory)


def _first_of(session: Session, run_id: int, location_id: int) -> int | None:
    is_busy = sa.exists().where(_Transfer.run_id == run_id, _Transfer.status.in_(LIVE_TRANSFER_STATUSES))
    there = sa.select(sa.func.min(_Copy.id)).join(_Product, _Product.id == _Copy.data_product_id)
    is_there = (_Copy.data_location_id == location_id, _Copy.status == PhysicalCopyStatus.PRESENT)
    return session.scalar(there.where(_Product.run_id == run_id, *is_there, sa.not_(is_busy)))


def keep_described(store: Store, one: Archived, known: bytes) -> Flaw | None:
    """Have the description say what is known; what was wrong with it, None where it said just that."""
    problem = flaw(_found(store, one.description), known)
    if problem is not None:
        checksum = checksum_of(hashlib.sha256(known))
        store.publish(one.description, lambda sink: sink.write(known), needs=len(known), checksum=checksum)
    return problem


def beside(session: Session, copy: models.PhysicalCopy) -> list[str]:
    """Paths of what has to go when a copy in an archive goes: what lists or describes it, and nothing else."""
    one = archived(session, copy)
    described = [] if one.run_id is not None and _has_others(session, one.run_id, copy) else [one.description]
    return described if one.listing is None else [one.listing, *described]


def _has_others(session: Session, run_id: int, copy: models.PhysicalCopy) -> bool:
    """Whether an archive keeps other products of a run."""
    others = sa.select(_Copy.id).join(_Product, _Product.id == _Copy.data_product_id)
    here = (_Product.run_id == run_id, _Copy.data_location_id == copy.data_location_id)
    return session.scalar(others.where(*here, _Copy.status.not_in(_GOES)).limit(1)) is not None


def _found(store: Store, path: str) -> bytes | None:
    try:
        return load(store, path)
    except FileMissing:
        return None
