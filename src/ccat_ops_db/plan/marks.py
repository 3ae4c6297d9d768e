"""By what a buffer or an archive is told from others: a small file in its directory or bucket, which names it."""

import json
from dataclasses import dataclass
from typing import Final
from uuid import UUID

MARK: Final = ".ccat-location"
"""Name of that file."""
UNFINISHED_MARK: Final = f"{MARK}.new"
"""Its name while it is written."""


@dataclass(frozen=True)
class Mark:
    """Which location something is."""

    identity: UUID
    """Stays what it is when the location moves, and in what is restored from a backup."""
    location: str
    """`site/location`, as it was called when the file was written."""


def written(mark: Mark) -> bytes:
    """What the file says."""
    told = {"location": mark.location, "identity": str(mark.identity)}
    return (
        json.dumps(told | {"about": "CCAT data transfer: which location this is; see docs/operating.md"}) + "\n"
    ).encode()


def read(content: bytes) -> Mark | None:
    """What a file says; None for one that was damaged, as it is written anew."""
    try:
        told = json.loads(content)
        return Mark(UUID(told["identity"]), str(told["location"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
