from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import claims, models
from ccat_ops_db.models.base import Leased
from ccat_ops_db.moves import CHANNEL
from ccat_service.processes import is_gone

LOST: Final = "lost"
"""Payload, after the noun, of the wake-up that follows when the lease of a dead process was ended."""


def expire_orphans(session: Session, *nouns: type[Leased]) -> int:
    """End the leases of dead processes of this host, so that nobody waits for them, and return how many."""
    return sum(_expire(session, noun) for noun in nouns)


def _expire(session: Session, noun: type[Leased]) -> int:
    gone = [holder for holder in claims.holders(session, noun) if is_gone(holder)]
    ids = claims.expire(session, noun, of=gone)
    if ids and issubclass(noun, models.Base):
        session.execute(sa.select(sa.func.pg_notify(CHANNEL, f"{noun.__tablename__}:{LOST}")))
    return len(ids)
