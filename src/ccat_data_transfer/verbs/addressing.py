from collections.abc import Sequence
from functools import cache

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.destinations import Destination, Turns, preferred
from ccat_data_transfer.errors import NoLocation
from ccat_data_transfer.verbs.ways import the_map
from ccat_ops_db import models
from ccat_ops_db.queries.away import is_shut
from ccat_ops_db.states import STORAGES, LocationType

_Location, _Transfer = models.DataLocation, models.LongTermArchiveTransfer


class Addresses:
    """Where new packages start from and go to, as the database says it when this is made."""

    def __init__(self, session: Session) -> None:
        self._map = the_map(session)
        self._buffers = _usable(session, LocationType.BUFFER)
        self._archives = _usable(session, LocationType.LONG_TERM_ARCHIVE)
        self._turns = Turns(self._archives)
        self._reached = cache(self._reached_from)

    def of(self, source_id: int) -> tuple[int, int]:
        """The buffer and the archive of the next package from a SOURCE location; raises NoLocation.

        The sites of archives that can be got to take turns, so that all get packages one by one.
        """
        buffer_id = self.buffer_of(source_id)
        if buffer_id is None:
            raise NoLocation(LocationType.BUFFER, f"at site {self._map.places[source_id].site}")
        # where nothing leads anywhere to any of them, as a route may be added
        archive = self._turns.take(self._reached(buffer_id) or self._archives)
        if archive is None:
            raise NoLocation(LocationType.LONG_TERM_ARCHIVE, "at any site")
        return buffer_id, archive.location_id

    def buffer_of(self, source_id: int) -> int | None:
        """The buffer that what is at a SOURCE location is packed into; None where its site has none."""
        site_id = self._map.places[source_id].site_id
        buffer = preferred(one for one in self._buffers if one.site_id == site_id)
        return None if buffer is None else buffer.location_id

    def reaches(self, buffer_id: int) -> bool:
        """Whether something leads from a buffer to an archive."""
        return bool(self._reached(buffer_id))

    def archive_from(self, buffer_id: int) -> int | None:
        """The archive whose turn it is, of those that something leads to from a buffer; None where nothing does."""
        archive = self._turns.take(self._reached(buffer_id))
        return None if archive is None else archive.location_id

    def _reached_from(self, buffer_id: int) -> Sequence[Destination]:
        """Archives that something leads to."""
        return [one for one in self._archives if self._map.leads_to(buffer_id, one.location_id)]


def _usable(session: Session, location_type: LocationType) -> list[Destination]:
    """Active locations that can be written."""
    newest = sa.select(sa.func.max(_Transfer.id)).where(_Transfer.destination_id == _Location.id)
    rows = session.execute(
        sa.select(
            _Location.id,
            _Location.site_id,
            _Location.priority,
            sa.func.coalesce(newest.correlate(_Location).scalar_subquery(), 0),
            is_shut(),
        ).where(
            _Location.location_type == location_type,
            _Location.storage_type.in_(STORAGES[location_type]),
            _Location.active,
        )
    )
    return [Destination(*row) for row in rows]
