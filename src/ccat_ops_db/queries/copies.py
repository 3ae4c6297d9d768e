"""Where the copies of products are."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import PhysicalCopyStatus


@dataclass(frozen=True)
class CopyAt:
    """A copy of a product."""

    location: str
    """`site/location`."""
    path: str
    """Below the root of the location."""
    status: PhysicalCopyStatus


def copies_of(session: Session, product_ids: Iterable[int]) -> Mapping[int, Sequence[CopyAt]]:
    """Copies of products that are not DELETED, by product, the oldest first."""
    copy = models.PhysicalCopy
    rows = session.execute(
        LOCATION.rows.join(copy, copy.data_location_id == models.DataLocation.id)
        .with_only_columns(copy.data_product_id, LOCATION.label, copy.path, copy.status)
        .where(is_among(copy.data_product_id, product_ids), copy.status != PhysicalCopyStatus.DELETED)
        .order_by(copy.id)
    )
    found: defaultdict[int, list[CopyAt]] = defaultdict(list)
    for product_id, location, path, status in rows:
        if product_id is not None:  # as it is asked for
            found[product_id].append(CopyAt(location, path, status))
    return found
