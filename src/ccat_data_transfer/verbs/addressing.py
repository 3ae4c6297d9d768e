from collections.abc import Sequence
from functools import cache

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.destinations import Destination, Turns, preferred
from ccat_data_transfer.errors import NoLocation
from ccat_data_transfer.verbs.ways import the_map
from ccat_ops_db import models
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
        source = self._map.places[source_id]
        buffer = preferred(one for one in self._buffers if one.site_id == source.site_id)
        if buffer is None:
            raise NoLocation(LocationType.BUFFER, f"at site {source.site}")
        archive = self._turns.take(self._reached(buffer.location_id))
        if archive is None:
            raise NoLocation(LocationType.LONG_TERM_ARCHIVE, "at any site")
        return buffer.location_id, archive.location_id

    def _reached_from(self, buffer_id: int) -> Sequence[Destination]:
        """Archives that something leads to; all where nothing leads anywhere, as a route may be added."""
        return [one for one in self._archives if self._map.leads_to(buffer_id, one.location_id)] or self._archives


def _usable(session: Session, location_type: LocationType) -> list[Destination]:
    """Active locations that can be written."""
    newest = sa.select(sa.func.max(_Transfer.id)).where(_Transfer.destination_id == _Location.id)
    rows = session.execute(
        sa.select(
            _Location.id,
            _Location.site_id,
            _Location.priority,
            sa.func.coalesce(newest.correlate(_Location).scalar_subquery(), 0),
        ).where(
            _Location.location_type == location_type,
            _Location.storage_type.in_(STORAGES[location_type]),
            _Location.active,
        )
    )
    return [Destination(*row) for row in rows]
