"""How many raw files belong to a scan: fewer may come than its instrument told, or it told a wrong number."""

import uuid
from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.moves import CHANNEL
from ccat_ops_db.verbs.reasons import require_reason

_Scan, _File = models.ExecutedObsUnit, models.RawDataFile


class FewerThanRegistered(CcatError):
    """A scan was said to have fewer raw files than are registered of it."""

    code = "fewer_than_registered"

    def __init__(self, scan_id: uuid.UUID, *, files: int, registered: int) -> None:
        super().__init__(
            f"Scan {scan_id} cannot have {files:,} raw files: {registered:,} are registered. Nothing was changed."
        )


def note_lack(session: Session, scan_ids: Collection[uuid.UUID]) -> None:
    """Write down of scans whether they lack raw files; one that got the last of them just now may say that it does."""
    of_scan = sa.select(sa.func.count()).where(_File.executed_obs_unit_id == _Scan.id)
    lacks = _Scan.expected_files > of_scan.correlate(_Scan).scalar_subquery()
    these = _Scan.id == sa.any_(sa.literal(list(scan_ids), sa.ARRAY(sa.Uuid)))
    were_told = _Scan.expected_files.is_not(None)
    noted = sa.update(_Scan).where(these, were_told, _Scan.lacks_files != lacks).values(lacks_files=lacks)
    session.execute(noted, execution_options={"synchronize_session": False})


def correct_number(session: Session, scan: models.ExecutedObsUnit, files: int, *, because: str, by: str) -> bool:
    """Say how many raw files belong to a scan, whatever was told before; False where just that was.

    The scan is locked. The audit keeps what was told before, who corrected it, and why. Raises ReasonMissing, and
    FewerThanRegistered.
    """
    require_reason(because, outcome="Nothing was changed.")
    registered = session.scalar(sa.select(sa.func.count()).where(_File.executed_obs_unit_id == scan.id)) or 0
    if files < registered:
        raise FewerThanRegistered(scan.id, files=files, registered=registered)
    if scan.expected_files == files:
        return False
    detail = {"before": scan.expected_files, "after": files, "because": because.strip(), "by": by}
    scan.expected_files = files
    entry = models.AuditEntry(action="correct", resource=_Scan.__tablename__, resource_id=str(scan.id), detail=detail)
    session.add(entry)
    session.flush()
    note_lack(session, {scan.id})
    session.execute(sa.select(sa.func.pg_notify(CHANNEL, "executed_obs_unit:ended")))
    return True
