"""Raw files that get into no package, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models

_Trouble, _File = models.PlanningTrouble, models.RawDataFile
_MOST: Final = 20
"""So many reasons are told, those of the oldest first."""


@dataclass(frozen=True, kw_only=True)
class Unplanned:
    """Files that get into no package for one reason."""

    failure: str
    scans: int
    files: int
    size_bytes: int
    since: datetime


def unplanned(session: Session) -> Sequence[Unplanned]:
    """What could not be planned when it was tried last, by reason."""
    of_group = sa.and_(
        _File.executed_obs_unit_id == _Trouble.executed_obs_unit_id,
        _File.instrument_module_id == _Trouble.instrument_module_id,
        _File.raw_data_package_id.is_(None),
        _File.lost_at.is_(None),
    )
    since = sa.func.min(_Trouble.created_at)
    rows = session.execute(
        sa.select(
            _Trouble.failure,
            sa.func.count(sa.distinct(_Trouble.executed_obs_unit_id)).label("scans"),
            sa.func.count().label("files"),
            sa.cast(sa.func.sum(_File.size_bytes), sa.BigInteger).label("size_bytes"),
            since.label("since"),
        )
        .join(_File, of_group)
        .group_by(_Trouble.failure)
        .order_by(since)
        .limit(_MOST)
    )
    return [Unplanned(**row) for row in rows.mappings()]
