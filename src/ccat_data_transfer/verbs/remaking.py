"""A tar that does not come whole from where it is, time and again, is made anew."""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.verbs.parcels import Carried
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import PhysicalCopyStatus

_Archiving = models.LongTermArchiveTransfer
TIMES_DAMAGED: Final = 2
"""Times that a raw package may arrive damaged; then it is damaged where it comes from."""
TIMES_UNREAD: Final = 8
"""Times that a tar may not be read where it is, the pauses between being longer each time: some twenty minutes."""


def is_doubtful(session: Session, members: Sequence[Carried], *, times: int | None, what: str, by: str) -> bool:
    """Count that the tar of a raw package did not come whole; whether that was once too often, None being never.

    `members` are that package, on its way to each of its archives; `what` says what happened so many times. The tar is
    CORRUPT then, so that it is made anew.
    """
    these = sa.update(_Archiving).where(is_among(_Archiving.id, [one.archive_transfer_id for one in members]))
    counted = these.values(bad_arrivals=_Archiving.bad_arrivals + 1).returning(_Archiving.bad_arrivals)
    if times is None or max(session.scalars(counted), default=0) < times:
        return False
    because, to = f"{what} {times} times", PhysicalCopyStatus.CORRUPT
    advance(session, models.PhysicalCopy, [members[0].copy_id], to=to, because=because, by=by)
    session.execute(these.values(bad_arrivals=0))
    return True


def made_anew(package: str, *, times: int, what: str) -> str:
    """What is told of a package whose tar was once too often not right."""
    return f"Package {package} has to be made anew where it comes from: {what} {times} times."
