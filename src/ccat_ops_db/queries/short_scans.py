"""Scans that have ended, and of which fewer raw files came than their instrument told."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.plan.alerts import Condition
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.states import AlertKind

_Scan, _File = models.ExecutedObsUnit, models.RawDataFile
_ON_THEIR_WAY: Final = timedelta(minutes=5)
"""For so long after its end the last files of a scan may still come."""
_REMEDY: Final = (
    "register the others (`ccat scan add`), or say how many there are (`ccat scan correct SCAN --files NUMBER`)"
)


@dataclass(frozen=True)
class ShortScan:
    """A scan that lacks raw files."""

    id: uuid.UUID
    expected: int
    """Raw files that it was told to have."""
    registered: int

    @property
    def sentence(self) -> str:
        """What is said of it."""
        return f"scan {self.id} told {counted(self.expected, 'file', 'files')}, {self.registered:,} came; {_REMEDY}"


def short_scans(session: Session, *which: sa.ColumnElement[bool]) -> Sequence[ShortScan]:
    """Scans of these that have ended and lack raw files, the oldest first."""
    of_scan = sa.select(sa.func.count().label("number")).where(_File.executed_obs_unit_id == _Scan.id)
    came = of_scan.correlate(_Scan).lateral()
    rows = session.execute(
        sa.select(_Scan.id, _Scan.expected_files, came.c.number)
        .join(came, _Scan.expected_files > came.c.number)
        .where(sa.text("executed_obs_unit.lacks_files"), _Scan.ended_at.is_not(None), *which)  # as the index says it
        .order_by(_Scan.started_at, _Scan.id)
    )
    return [ShortScan(*row) for row in rows]


def troubled_scans(session: Session) -> Iterator[Condition]:
    """Scans that nothing more is on its way of, as all that came is in packages."""
    waits = sa.exists().where(
        _File.executed_obs_unit_id == _Scan.id, _File.raw_data_package_id.is_(None), _File.lost_at.is_(None)
    )
    found = short_scans(session, _Scan.ended_at < sa.func.clock_timestamp() - _ON_THEIR_WAY, sa.not_(waits))
    if found:
        scans = counted(len(found), "scan lacks raw files, and is packed", "scans lack raw files, and are packed")
        such = found[0].sentence if len(found) == 1 else f"such as: {found[0].sentence}; `ccat night DATE` has all"
        yield Condition(
            kind=AlertKind.BACKLOG,
            key="scans that lack files",
            sentence=f"{scans} without them: {such}",
            number=len(found),
        )
