"""What an instrument tells the operations database: a scan starts, writes files, ends.

Every verb is idempotent by the identifiers that the instrument made: telling the same twice changes nothing, telling
something else under a used identifier is refused.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.lookup import LOCATION, MODULE, OBS_UNIT, TELESCOPE, UnknownName, find
from ccat_ops_db.moves import CHANNEL, advance
from ccat_ops_db.nights import observing_night
from ccat_ops_db.states import PhysicalCopyStatus


class Contradiction(CcatError):
    """The same identifier was used before for something else."""

    code = "contradiction"

    def __init__(self, what: str, identifier: uuid.UUID, field: str, *, recorded: object, told: object) -> None:
        super().__init__(
            f"{what} {identifier} is recorded with {field} {recorded}, now told {told}. "
            "Use a new identifier for something new; nothing was changed."
        )


class UnknownScan(CcatError):
    """A scan was named that was never started."""

    code = "unknown_scan"

    def __init__(self, scan_id: uuid.UUID) -> None:
        super().__init__(f"There is no scan {scan_id}; record its start first (`ccat scan start`).")


@dataclass(frozen=True)
class NewFile:
    """A raw file as its instrument describes it."""

    id: uuid.UUID
    relative_path: str
    """Path below the root of the source location."""
    size_bytes: int
    checksum: str
    """`sha256:` and 64 hexadecimal digits, computed where the file was written."""


def start_scan(
    session: Session,
    scan_id: uuid.UUID,
    obs_unit: str,
    *,
    started_at: datetime,
    telescope: str | None = None,
    conditions: dict[str, Any] | None = None,
) -> models.ExecutedObsUnit:
    """Record that a planned observation began to be executed; `telescope` may be left out where there is only one."""
    planned = find(session, OBS_UNIT, obs_unit)
    where = _only_telescope(session) if telescope is None else find(session, TELESCOPE, telescope)
    session.execute(
        insert(models.ExecutedObsUnit)
        .values(
            id=scan_id,
            obs_unit_id=planned.id,
            telescope_id=where.id,
            started_at=started_at,
            observing_night=observing_night(started_at, where.observatory.longitude_deg),
            conditions=conditions or {},
        )
        .on_conflict_do_nothing(index_elements=["id"])
    )
    scan = session.get_one(models.ExecutedObsUnit, scan_id)
    _agree("Scan", scan_id, {"observation": (scan.obs_unit_id, planned.id), "start": (scan.started_at, started_at)})
    return scan


def add_files(
    session: Session, scan_id: uuid.UUID, files: Sequence[NewFile], *, module: str, location: str, by: str
) -> int:
    """Record raw files that a module wrote to a SOURCE location, and return how many were new.

    `module` is `Instrument/Module`, `location` is `site/name`.
    """
    scan = _scan(session, scan_id)
    module_id, location_id = find(session, MODULE, module).id, find(session, LOCATION, location).id
    rows = [
        {
            "id": file.id,
            "executed_obs_unit_id": scan.id,
            "instrument_module_id": module_id,
            "relative_path": file.relative_path,
            "size_bytes": file.size_bytes,
            "checksum": file.checksum,
        }
        for file in files
    ]
    statement = insert(models.RawDataFile).on_conflict_do_nothing(index_elements=["id"])
    new = set(session.scalars(statement.returning(models.RawDataFile.id), rows))
    _check_known(session, [file for file in files if file.id not in new])
    _register_copies(session, [file for file in files if file.id in new], location_id, by=by)
    return len(new)


def finish_scan(session: Session, scan_id: uuid.UUID, *, ended_at: datetime, expected_files: int | None = None) -> None:
    """Record the end of a scan and, where the instrument knows it, the number of files that belong to it."""
    scan = _scan(session, scan_id)
    _agree("Scan", scan_id, {"end": (scan.ended_at or ended_at, ended_at)})
    scan.ended_at = ended_at
    scan.expected_files = expected_files
    session.execute(sa.select(sa.func.pg_notify(CHANNEL, "executed_obs_unit:ended")))


def _scan(session: Session, scan_id: uuid.UUID) -> models.ExecutedObsUnit:
    scan = session.get(models.ExecutedObsUnit, scan_id)
    if scan is None:
        raise UnknownScan(scan_id)
    return scan


def _only_telescope(session: Session) -> models.Telescope:
    telescopes = session.scalars(sa.select(models.Telescope)).all()
    if len(telescopes) != 1:
        raise UnknownName("telescope", "", [telescope.name for telescope in telescopes])
    return telescopes[0]


def _agree(what: str, identifier: uuid.UUID, facts: Mapping[str, tuple[object, object]]) -> None:
    for field, (recorded, told) in facts.items():
        if recorded != told:
            raise Contradiction(what, identifier, field, recorded=recorded, told=told)


def _check_known(session: Session, files: Sequence[NewFile]) -> None:
    known = {
        row.id: row
        for row in session.scalars(
            sa.select(models.RawDataFile).where(models.RawDataFile.id.in_([f.id for f in files]))
        )
    }
    for file in files:
        recorded = known[file.id]
        _agree(
            "Raw file",
            file.id,
            {
                "path": (recorded.relative_path, file.relative_path),
                "size": (recorded.size_bytes, file.size_bytes),
                "checksum": (recorded.checksum, file.checksum),
            },
        )


def _register_copies(session: Session, files: Sequence[NewFile], location_id: int, *, by: str) -> None:
    if not files:
        return
    rows = [
        {
            "type": "raw_data_file",
            "raw_data_file_id": file.id,
            "data_location_id": location_id,
            "path": file.relative_path,
            "size_bytes": file.size_bytes,
        }
        for file in files
    ]
    copies = session.scalars(insert(models.PhysicalCopy).returning(models.PhysicalCopy.id), rows).all()
    advance(
        session,
        models.PhysicalCopy,
        copies,
        to=PhysicalCopyStatus.PRESENT,
        because="registered by its instrument",
        by=by,
    )
