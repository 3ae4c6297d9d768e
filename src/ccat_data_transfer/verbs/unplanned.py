"""Why raw files get into no package is written down, for whoever waits for them."""

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ccat_data_transfer import plan
from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_service.retries import first_line

_Trouble = models.PlanningTrouble


def note_trouble(session: Session, group: plan.Group, error: Exception) -> None:
    """Write down why files of a scan and module could not be planned; since when stays as it was."""
    scan_id, module_id = group
    failure = str(error) if isinstance(error, CcatError) else f"a defect of ours: {first_line(error)}"
    new = insert(_Trouble).values(executed_obs_unit_id=scan_id, instrument_module_id=module_id, failure=failure)
    key = [_Trouble.executed_obs_unit_id, _Trouble.instrument_module_id]
    is_other = _Trouble.failure != failure
    session.execute(new.on_conflict_do_update(index_elements=key, set_={"failure": failure}, where=is_other))


def forget_trouble(session: Session, groups: Collection[plan.Group]) -> None:
    """Nothing is wrong with the files of these scans and modules any more."""
    if session.scalar(sa.select(sa.exists(sa.select(_Trouble)))):
        these = sa.tuple_(_Trouble.executed_obs_unit_id, _Trouble.instrument_module_id).in_(list(groups))
        session.execute(sa.delete(_Trouble).where(these))
