"""Where the products of a run go: which archive, and which paths there."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ccat_ops_db.states import StorageType


@dataclass(frozen=True)
class Archive:
    """A long-term archive that is in use."""

    location_id: int
    site_id: int
    storage: StorageType
    priority: int


def archive_for(site_id: int, archives: Iterable[Archive], *, shares: Collection[int]) -> int | None:
    """Archive that products of a site are copied into; None where none can be written from there.

    One of the site itself is preferred, then priority decides. Of another site it is an object store, or a disk of a
    site whose workers see these files too: those of `shares`.
    """
    reached = [
        one for one in archives if one.storage is StorageType.S3 or one.site_id == site_id or one.site_id in shares
    ]
    preferred = min(reached, key=lambda one: (one.site_id != site_id, -one.priority, one.location_id), default=None)
    return preferred.location_id if preferred else None


def directory_of(pipeline: str, step: str, *, sub_group: str, run_id: int) -> str:
    """Directory of the products of a run below the root of an archive; `sub_group` is the path form of its key."""
    return f"products/{pipeline}/{step}/{sub_group}/{run_id}"


def description_path(directory: str) -> str:
    """What is known of a run and its products, beside their directory: no product can be called so."""
    return f"{directory}.json"


def listing_path(directory: str, tree: str) -> str:
    """Listing of a product that is a directory itself; its digest is that of the product."""
    return f"{directory}.trees/{tree}.listing"
