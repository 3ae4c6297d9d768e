from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.lookup import GROUPING, find


def rules_of(session: Session, grouping: str) -> Sequence[Any]:
    """The rules of a grouping as its newest revision has them; raises UnknownName with the nearest one."""
    revision = models.DataGroupingRevision
    of_grouping = sa.select(revision.filter_rules).filter_by(data_grouping_id=find(session, GROUPING, grouping).id)
    return session.scalars(of_grouping.order_by(revision.number.desc()).limit(1)).one()
