from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa


def is_among(column: Any, ids: Iterable[int]) -> sa.ColumnElement[bool]:
    """Condition: the column holds one of these numbers, of which there may be any number; none match none."""
    found: sa.ColumnElement[bool] = column == sa.any_(sa.literal(sorted(set(ids)), sa.ARRAY(sa.BigInteger)))
    return found
