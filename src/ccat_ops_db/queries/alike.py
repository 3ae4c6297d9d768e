"""Which failures are alike, where nothing but their sentences is kept."""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute

_NUMBERED: Final = "[^ ]*[0-9][^ ]*"
"""Numbers, and words that have some: names of packages and their paths."""


def alike(failure: sa.ColumnElement[str | None] | InstrumentedAttribute[str | None]) -> sa.ColumnElement[str]:
    """What failures have in common that differ in numbers and names only."""
    return sa.func.regexp_replace(sa.func.coalesce(failure, ""), _NUMBERED, "#", "g")
