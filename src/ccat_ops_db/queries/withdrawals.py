from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models


@dataclass(frozen=True)
class ListedWithdrawal:
    """A withdrawal as a list shows it."""

    id: int
    what: str
    because: str
    by: str
    at: datetime
    products: int
    """How many it marks."""
    reinstated_at: datetime | None
    reinstated_by: str | None


def list_withdrawals(
    session: Session, *, everything: bool, limit: int, before: int | None = None
) -> Sequence[ListedWithdrawal]:
    """The newest withdrawals that hold, or all; `before` is the id where the last page ended."""
    one, mark = models.Withdrawal, models.WithdrawnProduct
    marked = sa.select(sa.func.count()).where(mark.withdrawal_id == one.id).scalar_subquery()
    columns = (one.id, one.what, one.because, one.by, one.created_at, marked, one.reinstated_at, one.reinstated_by)
    query = (
        sa.select(*columns)
        .where(
            *([] if everything else [one.reinstated_at.is_(None)]),
            *([] if before is None else [one.id < before]),
        )
        .order_by(one.id.desc())
        .limit(limit)
    )
    return [ListedWithdrawal(*row) for row in session.execute(query)]
