"""Which copies are to be read where they lie, before they count."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.verbs.doubting import IS_DOUBTED, IS_IN_DOUBT
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION

_Copy, _Location = models.PhysicalCopy, models.DataLocation


@dataclass(frozen=True, kw_only=True)
class InDoubt:
    """Copies at a location that are to be read before they count."""

    location: str
    copies: int
    doubted: int
    """Those of them that may be bad: they are read first, and not sent before."""
    size_bytes: int
    in_vain: int
    """How often at most one of them could not be read."""
    example: str
    """One in doubt, if there is any."""
    failure: str | None
    """Why one of them is in doubt."""


def in_doubt(session: Session) -> list[InDoubt]:
    """Copies in doubt, by location."""
    path = sa.func.min(_Copy.path)
    rows = session.execute(
        sa.select(
            LOCATION.label.label("location"),
            sa.func.count().label("copies"),
            sa.func.count().filter(IS_DOUBTED).label("doubted"),
            sa.cast(sa.func.coalesce(sa.func.sum(_Copy.size_bytes), 0), sa.BigInteger).label("size_bytes"),
            sa.func.max(_Copy.trouble_count).label("in_vain"),
            sa.func.coalesce(path.filter(IS_DOUBTED), path).label("example"),
            sa.func.min(_Copy.failure).label("failure"),
        )
        .select_from(_Copy)
        .join(_Location, _Location.id == _Copy.data_location_id)
        .join(_Location.site)
        .where(_Copy.raw_data_file_id.is_(None), _Copy.data_transfer_package_id.is_(None), IS_IN_DOUBT)
        .group_by(LOCATION.label)
        .order_by(LOCATION.label)
    )
    return [InDoubt(**row) for row in rows.mappings()]
