from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.lookup import LOCATION
from ccat_ops_db.queries.lost_packages import IS_LOST, LOST_SENTENCE
from ccat_ops_db.queries.troubled_transfers import CARRIES
from ccat_ops_db.states import LIVE_TRANSFER_STATUSES, PackageState, PhysicalCopyStatus

_LIES: Final = (PhysicalCopyStatus.PRESENT, PhysicalCopyStatus.STAGED)


class UnknownPackage(CcatError):
    """A package was named that does not exist."""

    code = "unknown_package"

    def __init__(self, package_id: int) -> None:
        super().__init__(f"There is no raw package {package_id}; `ccat packages` lists them.")


@dataclass(frozen=True)
class ListedPackage:
    """A raw package as a list shows it."""

    id: int
    name: str
    state: PackageState
    size_bytes: int | None
    archived_at: datetime | None
    checksum: str | None
    transfer_package: str | None
    """In which it left the site where it was packed."""
    copies: Sequence[str]
    """Locations where it is, as a tar or unpacked."""
    failure: str | None
    """Why it is FAILED, or what keeps it from its archive at the moment, or the transfer package that it crosses in.

    Of one that was archived also that no copy of it is left.
    """
    tried_again_at: datetime | None
    given_up: str | None
    """Why it is gone for good, of one that FAILED or was lost, and who said so."""
    excluded: str | None
    """Why it is out of all groupings, who said so, and by which exclusion."""
    excluded_pixels: Sequence[str] | None
    """Its pixels that are left out."""
    lost_files: Sequence[Mapping[str, str]]
    """Raw files that a person said are lost of it: `path`, and `because`, which says who."""


def list_packages(
    session: Session, state: PackageState | None, *, limit: int, before: int | None = None
) -> Sequence[ListedPackage]:
    """The newest packages; `before` is the id where the last page ended."""
    package, transfer, trip = models.RawDataPackage, models.LongTermArchiveTransfer, models.DataTransfer
    under_way = sa.and_(transfer.raw_data_package_id == package.id, transfer.status.in_(LIVE_TRANSFER_STATUSES))
    query: sa.Select[*tuple[Any, ...]] = (
        sa.select(
            package.id,
            package.name,
            package.state,
            package.size_bytes,
            package.archived_at,
            package.checksum,
            _left_in(),
            _copies(),
            sa.func.coalesce(
                package.failure,
                sa.func.min(sa.func.coalesce(trip.failure, transfer.failure)),
                sa.case((IS_LOST, LOST_SENTENCE)),
            ),
            sa.func.min(sa.func.coalesce(trip.not_before, transfer.not_before)),
            package.given_up_because,
            package.excluded_because,
            package.excluded_pixels,
            _lost_files(),
        )
        .outerjoin(transfer, under_way)
        .outerjoin(trip, CARRIES)
        .where(*([package.state == state] if state else []), *([package.id < before] if before else []))
        .group_by(package.id)
        .order_by(package.id.desc())
        .limit(limit)
    )
    return [ListedPackage(*row) for row in session.execute(query)]


def _left_in() -> sa.ScalarSelect[str]:
    parcel = models.DataTransferPackage
    name = sa.select(parcel.name).where(parcel.id == models.RawDataPackage.data_transfer_package_id)
    return name.correlate(models.RawDataPackage).scalar_subquery()


def _lost_files() -> sa.ColumnElement[Sequence[Mapping[str, str]]]:
    file = models.RawDataFile
    told = sa.func.jsonb_build_object("path", file.relative_path, "because", file.lost_because)
    lost = sa.select(sa.func.jsonb_agg(aggregate_order_by(told, file.relative_path)))
    of_package = lost.where(file.lost_from_id == models.RawDataPackage.id).correlate(models.RawDataPackage)
    return sa.func.coalesce(of_package.scalar_subquery(), sa.literal([], JSONB))


def _copies() -> sa.ColumnElement[Sequence[str]]:
    copy, location = models.PhysicalCopy, models.DataLocation
    names = LOCATION.rows.with_only_columns(LOCATION.label).join(copy, copy.data_location_id == location.id)
    of_package = names.where(copy.raw_data_package_id == models.RawDataPackage.id, copy.status.in_(_LIES))
    ordered = of_package.order_by(LOCATION.label).correlate(models.RawDataPackage).scalar_subquery()
    return sa.func.array(ordered, type_=sa.ARRAY(sa.Text))
