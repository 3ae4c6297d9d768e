from typing import Final

import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.plan.spaces import FRESH

DELETION: Final = "deletion"
SCRUBBING: Final = "scrubbing"
_Location, _Taken = models.DataLocation, models.ServedOperation
_SINCE: Final = sa.func.clock_timestamp() - FRESH


def is_served() -> sa.ColumnElement[bool]:
    """Condition on a location: a transfer-worker serves it, whatever it takes there."""
    return (_Location.served_at > _SINCE).is_(sa.true())


def is_unserved(operation: str) -> sa.ColumnElement[bool]:
    """Condition on a location: no transfer-worker takes this operation there.

    Where none says which operations it takes, whoever serves the location is believed to take all.
    """
    said = sa.exists().where(_Taken.data_location_id == _Location.id, _Taken.served_at > _SINCE)
    is_taken = said.where(_Taken.operation == operation)
    lacks = sa.and_(said.correlate(_Location), sa.not_(is_taken.correlate(_Location)))
    return sa.or_(sa.not_(is_served()), lacks)
