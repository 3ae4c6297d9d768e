import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.verbs.products.plan import Network, Source
from ccat_data_transfer.verbs.ways import the_map
from ccat_ops_db import models
from ccat_ops_db.queries.away import is_away, is_shut
from ccat_ops_db.states import Mover, PhysicalCopyStatus, RouteType

_Route = models.DataTransferRoute


def the_network(session: Session) -> Network:
    """All locations, and the routes that are in use. A direct one of method `copy` says that files are seen there."""
    here = the_map(session)
    is_mount = sa.and_(_Route.active, _Route.route_type == RouteType.DIRECT, _Route.method == Mover.COPY)
    pairs = session.execute(sa.select(_Route.origin_site_id, _Route.destination_site_id).where(is_mount))
    return Network(
        places=here.places,
        routes=here.routes,
        buffers=here.buffers,
        mounted={(origin, destination) for origin, destination in pairs},
        away=frozenset(session.scalars(sa.select(models.DataLocation.id).where(is_away()))),
        shut=frozenset(session.scalars(sa.select(models.DataLocation.id).where(is_shut()))),
    )


def source_of(copy: models.PhysicalCopy, here: Network, *, is_refused: bool) -> Source:
    """A sound copy as one that may be chosen."""
    location = copy.location
    return Source(
        copy_id=copy.id,
        place=here.places[location.id],
        type=location.location_type,
        storage=location.storage_type,
        priority=location.priority,
        is_verified=copy.verified_at is not None,
        is_doubted=copy.verified_at is None and copy.failure is not None,
        is_refused=is_refused,
        is_away=location.id in here.away,
        is_to_go=copy.status is not PhysicalCopyStatus.PRESENT,
    )
