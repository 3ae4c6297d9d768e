"""What was added by mistake is taken away again."""

import psycopg.errors
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.states import LocationType


class LocationUsed(CcatError):
    """A location is to be removed that something tells of."""

    code = "location_used"

    def __init__(self, name: str, noun: str, location_type: LocationType) -> None:
        is_filled = location_type in {LocationType.BUFFER, LocationType.LONG_TERM_ARCHIVE}
        instead = f" Nothing new is put there after `ccat location set {name} --inactive`." if is_filled else ""
        super().__init__(
            f"Location {name} stays: its {noun.replace('_', ' ')} is on record, and that is not forgotten. "
            f"Nothing was changed.{instead}"
        )


def remove_location(session: Session, name: str) -> None:
    """Forget a location that nothing was ever at. Raises UnknownName and LocationUsed."""
    location = find(session, LOCATION, name)
    kind = location.location_type
    said = (models.ServedOperation, models.ArchiveReader)
    try:
        with session.begin_nested():
            for noun in said:
                session.execute(sa.delete(noun).filter_by(data_location_id=location.id))
            session.delete(location)
            session.flush()
    except IntegrityError as error:
        if not isinstance(error.orig, psycopg.errors.ForeignKeyViolation):
            raise
        raise LocationUsed(name, error.orig.diag.table_name or "use", kind) from error
