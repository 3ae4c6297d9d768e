from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.states import LIVE_TRANSFER_STATUSES, PackageState


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
    failure: str | None
    """Why it is FAILED, or what keeps it from its archive at the moment."""
    tried_again_at: datetime | None
    excluded: str | None
    """Why it is out of all groupings, who said so, and by which exclusion."""
    excluded_pixels: Sequence[str] | None
    """Its pixels that are left out."""


def list_packages(
    session: Session, state: PackageState | None, *, limit: int, before: int | None = None
) -> Sequence[ListedPackage]:
    """The newest packages; `before` is the id where the last page ended."""
    package, transfer = models.RawDataPackage, models.LongTermArchiveTransfer
    under_way = sa.and_(transfer.raw_data_package_id == package.id, transfer.status.in_(LIVE_TRANSFER_STATUSES))
    query: sa.Select[*tuple[Any, ...]] = (
        sa.select(
            package.id,
            package.name,
            package.state,
            package.size_bytes,
            package.archived_at,
            package.checksum,
            sa.func.coalesce(package.failure, sa.func.min(transfer.failure)),
            sa.func.min(transfer.not_before),
            package.excluded_because,
            package.excluded_pixels,
        )
        .outerjoin(transfer, under_way)
        .where(*([package.state == state] if state else []), *([package.id < before] if before else []))
        .group_by(package.id)
        .order_by(package.id.desc())
        .limit(limit)
    )
    return [ListedPackage(*row) for row in session.execute(query)]
