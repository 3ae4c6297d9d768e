from collections.abc import Iterable
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models

_MAIN: Final = (
    models.ExecutedObsUnit,
    models.RawDataFile,
    models.RawDataPackage,
    models.PhysicalCopy,
    models.PipelineRevision,
    models.ExecutedReductionStep,
    models.RunAttempt,
    models.RunInput,
    models.DataProduct,
    models.StatusChange,
)
MAIN_TABLES: Final = tuple(noun.__tablename__ for noun in _MAIN)
"""What a backup is judged by when it is restored."""


def count_rows(session: Session, tables: Iterable[str] = MAIN_TABLES) -> dict[str, int]:
    """How many rows tables have, as the session sees them."""
    counts = {name: sa.select(sa.func.count()).select_from(sa.table(name)) for name in tables}
    return {name: session.scalar(count) or 0 for name, count in counts.items()}
