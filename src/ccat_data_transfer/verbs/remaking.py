"""A tar that does not come whole from where it is, time and again, is made anew of what there is."""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.verbs.parcels import Carried
from ccat_data_transfer.verbs.replicating import can_be_made_anew
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import PhysicalCopyStatus

_Archiving = models.LongTermArchiveTransfer
TIMES_DAMAGED: Final = 2
"""Times that a raw package may arrive damaged; then it is damaged where it comes from."""
TIMES_UNREAD: Final = 8
"""Times that a tar may not be read where it is, the pauses between being longer each time: some twenty minutes."""


def remade(session: Session, members: Sequence[Carried], *, after: int, by: str) -> str | None:
    """Count that the tar of a raw package did not come whole; what is told if that was once too often, else None.

    `members` are that package, on its way to each of its archives. The tar is CORRUPT then, so that it is made anew.
    """
    [first, *_] = members
    these = sa.update(_Archiving).where(is_among(_Archiving.id, [one.archive_transfer_id for one in members]))
    counted = these.values(bad_arrivals=_Archiving.bad_arrivals + 1).returning(_Archiving.bad_arrivals)
    times = max(session.scalars(counted), default=0)
    if times < after or not can_be_made_anew(session, first.archive_transfer_id):
        return None
    because, to = f"it arrived damaged, or could not be read, {times} times", PhysicalCopyStatus.CORRUPT
    advance(session, models.PhysicalCopy, [first.copy_id], to=to, because=because, by=by)
    session.execute(these.values(bad_arrivals=0))
    return f"Package {first.name} has to be made anew where it comes from: {because}."
