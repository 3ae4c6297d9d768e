"""From a row that describes data back to the raw packages that it describes."""

from collections.abc import Iterable
from functools import cache

import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.grouping.paths import Path, paths

_PACKAGE = models.RawDataPackage


def packages_of(table: str, ids: Iterable[str]) -> sa.CompoundSelect[int]:
    """Ids of the archived packages that rows of a table, named by their ids as text, say something about."""
    wanted = sorted(set(ids))
    return sa.union(*(_along(path, wanted) for path in _ways_to(table)), sa.select(_PACKAGE.id).where(sa.false()))


@cache
def _ways_to(table: str) -> frozenset[Path]:
    return frozenset(path for path in paths().values() if path and path[-1].tables[-1].name == table)


def _along(path: Path, ids: Iterable[str]) -> sa.Select[int]:
    joined: sa.FromClause = _PACKAGE.__table__
    at: sa.FromClause = joined
    for step in path:
        for table, (near, far) in zip(step.tables, step.on, strict=True):
            found = table.alias()
            joined = joined.join(found, at.c[near.name] == found.c[far.name])
            at = found
    key = at.c.id
    listed = sa.cast(sa.literal(list(ids), sa.ARRAY(sa.Text)), sa.ARRAY(key.type))  # there may be any number
    return sa.select(_PACKAGE.id).select_from(joined).where(_PACKAGE.archived_at.is_not(None), key == sa.any_(listed))
