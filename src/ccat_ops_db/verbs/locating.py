from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.lookup import LOCATION, SITE, find
from ccat_ops_db.states import BackendName, LocationType
from ccat_ops_db.verbs.limiting import tell_limits


class LocationTaken(CcatError):
    """A location is to be added whose name or directory another one has."""

    code = "location_taken"

    def __init__(self, name: str, other: str, path: str) -> None:
        what = f"There is a location {name} already" if name == other else f"{path} is the directory of {other} already"
        super().__init__(f"{what}: `ccat locations` lists them, and `ccat location set {other}` changes it.")


def add_processing_location(
    session: Session, site: str, name: str, *, path: str, backend: BackendName = BackendName.LOCAL
) -> models.DiskDataLocation:
    """One more directory where jobs run, on a cluster that shares it or the host of its workers.

    Raises UnknownName and LocationTaken.
    """
    at_site = find(session, SITE, site)
    others = session.scalars(sa.select(models.DataLocation).filter_by(site_id=at_site.id)).all()
    for one in others:
        if one.name == name or (isinstance(one, models.DiskDataLocation) and one.path == path):
            raise LocationTaken(f"{site}/{name}", f"{site}/{one.name}", path)
    kind = {"location_type": LocationType.PROCESSING, "backend": backend}
    location = models.DiskDataLocation(site=at_site, name=name, path=path, **kind)
    session.add(location)
    session.flush()
    return location


def change_location(
    session: Session, name: str, *, reserve_bytes: int | None = None, settings: Mapping[str, Any] | None = None
) -> models.DataLocation:
    """Change the reserve of a location, and settings of its backend, of which None takes one away. Raises UnknownName.

    Processes read settings of backends when they start.
    """
    location = find(session, LOCATION, name)
    if reserve_bytes is not None:
        location.free_space_reserve_bytes = reserve_bytes
        tell_limits(session)
    merged = {**location.backend_settings, **(settings or {})}
    location.backend_settings = {key: value for key, value in merged.items() if value is not None}
    session.flush()
    return location
