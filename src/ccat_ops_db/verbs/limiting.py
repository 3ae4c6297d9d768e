from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.lookup import PROCESSING_LOCATION, USER, find
from ccat_ops_db.moves import CHANNEL

LIMITS_CHANGED: Final = "limits:changed"
"""Payload of the wake-up that follows another limit of a location or of users."""


def limit_location(session: Session, location: str, most: int | None) -> None:
    """Let at most so many runs be live at a processing location, None: any number. Raises UnknownName."""
    find(session, PROCESSING_LOCATION, location).live_limit = most
    tell_limits(session)


def limit_user(session: Session, user: str, most: int | None) -> None:
    """Let at most so many runs of a user's pipelines be live, None: as many as of every user. Raises UnknownName."""
    find(session, USER, user).live_limit = most
    tell_limits(session)


def limit_every_user(session: Session, most: int | None) -> None:
    """Let at most so many runs of the pipelines of each user be live who has no other limit, None: any number."""
    session.execute(sa.update(models.Installation).values(live_limit_per_user=most))
    tell_limits(session)


def tell_limits(session: Session) -> None:
    """Wake whoever starts runs: limits leave another room from now on."""
    session.flush()
    session.execute(sa.select(sa.func.pg_notify(CHANNEL, LIMITS_CHANGED)))
