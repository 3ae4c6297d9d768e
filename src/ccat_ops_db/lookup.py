from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute, Session

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.naming import nearest
from ccat_ops_db.states import LocationType

Row = TypeVar("Row", bound=models.Base)


class UnknownName(CcatError):
    """Something was named that does not exist."""

    code = "unknown_name"

    def __init__(self, what: str, name: str, known: Collection[str], *, of: str = "", where: str = "") -> None:
        start = f"{where}: there" if where else "There"
        whose = f" of {of}" if of else ""
        super().__init__(f"{start} is no {what} `{name}`{whose}.{nearest(name, known)}")


@dataclass(frozen=True)
class Named(Generic[Row]):
    """A kind of row that people call by a name."""

    what: str
    """The kind, as it is called in messages."""
    rows: sa.Select[Row]
    label: sa.ColumnElement[str] | InstrumentedAttribute[str]
    """The name, as SQL over `rows`."""


SOURCE = Named("source", sa.select(models.Source), models.Source.name)
OBS_MODE = Named("observing mode", sa.select(models.ObsMode), models.ObsMode.name)
OBS_UNIT = Named("observation", sa.select(models.ObsUnit), models.ObsUnit.name)
INSTRUMENT = Named("instrument", sa.select(models.Instrument), models.Instrument.name)
TELESCOPE = Named("telescope", sa.select(models.Telescope), models.Telescope.name)
SOFTWARE = Named("software", sa.select(models.ReductionSoftware), models.ReductionSoftware.name)
CONFIG = Named("config", sa.select(models.ReductionStepConfig), models.ReductionStepConfig.name)
GROUPING = Named("grouping", sa.select(models.DataGrouping), models.DataGrouping.name)
PIPELINE = Named("pipeline", sa.select(models.Pipeline), models.Pipeline.name)
STEP = Named("step", sa.select(models.ReductionStep), models.ReductionStep.key)
"""Of any pipeline; several may have a step of that name."""
MODULE = Named(
    "instrument module",
    sa.select(models.InstrumentModule).join(models.InstrumentModule.instrument),
    models.Instrument.name + "/" + models.InstrumentModule.name,
)
SITE = Named("site", sa.select(models.Site), models.Site.short_name)
LOCATION = Named(
    "location",
    sa.select(models.DataLocation).join(models.DataLocation.site),
    models.Site.short_name + "/" + models.DataLocation.name,
)
SOURCE_LOCATION = Named(
    "source location", LOCATION.rows.where(models.DataLocation.location_type == LocationType.SOURCE), LOCATION.label
)

ROUTE = Named("route", sa.select(models.DataTransferRoute), models.DataTransferRoute.name)
PROCESSING_LOCATION = Named(
    "processing location",
    LOCATION.rows.where(models.DataLocation.location_type == LocationType.PROCESSING),
    LOCATION.label,
)
USER = Named("user", sa.select(models.User), models.User.name)


def find(session: Session, named: Named[Row], name: str, *, where: str = "") -> Row:
    """The row of that name; raises UnknownName with the nearest one. `where` says who asks."""
    row = session.scalars(named.rows.where(named.label == name)).one_or_none()
    if row is None:
        raise UnknownName(named.what, name, names(session, named), where=where)
    return row


def require(session: Session, named: Named[Row], name: str) -> None:
    """Raise UnknownName, with the nearest one, unless something of that kind has the name."""
    known = set(names(session, named))
    if name not in known:
        raise UnknownName(named.what, name, known)


def names(session: Session, named: Named[Row]) -> Sequence[str]:
    """All names of that kind."""
    return session.scalars(named.rows.with_only_columns(named.label)).all()
