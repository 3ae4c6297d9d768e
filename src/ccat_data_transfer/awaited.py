"""Scans whose registered files are not put into packages yet: what each waits for, and until when."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer import plan
from ccat_data_transfer.verbs.planning import unpacked_files
from ccat_ops_db import models
from ccat_ops_db.lookup import MODULE


@dataclass(frozen=True, kw_only=True)
class Awaited:
    """Registered files of a scan and module that are in no package yet, and that nothing is wrong with."""

    scan: uuid.UUID
    module: str
    files: int
    came: int
    """Raw files of the scan that are registered, of all its modules."""
    expected: int | None
    """Raw files that it was told to have; None where nobody said."""
    last_file_at: datetime
    waits_for: str
    packed_at: datetime
    """When what came is packed at the latest, if nothing more comes."""


def awaited(session: Session) -> Sequence[Awaited]:
    """What waits for its scan, the scan that started first coming first; without what cannot be planned."""
    trouble, module = models.PlanningTrouble, models.InstrumentModule
    held = {
        tuple(row) for row in session.execute(sa.select(trouble.executed_obs_unit_id, trouble.instrument_module_id))
    }
    names = dict(session.execute(MODULE.rows.with_only_columns(module.id, MODULE.label)).all())
    found = unpacked_files(session)
    return [
        Awaited(
            scan=one.group[0],
            module=names[one.group[1]],
            files=one.number,
            came=one.registered_files,
            expected=one.expected_files,
            last_file_at=one.last_file_at,
            waits_for=plan.waits_for(one, now=found.now, quiet_period=plan.QUIET_PERIOD),
            packed_at=one.last_file_at + plan.QUIET_PERIOD,
        )
        for one in found.groups
        if one.group not in held
    ]
