from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

_TURN: Final = 0x64656673
"""Key of the lock that lets one change what is valid after the other."""


def take_turn(session: Session) -> None:
    """Wait until nobody else applies definitions or withdraws; whoever locks anything else besides does this first."""
    session.execute(sa.select(sa.func.pg_advisory_xact_lock(_TURN)))
