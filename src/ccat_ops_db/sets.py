from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa


def is_among(column: Any, ids: Iterable[int]) -> sa.ColumnElement[bool]:
    """Condition: the column holds one of these numbers, of which there may be any number; none match none."""
    found: sa.ColumnElement[bool] = column == sa.any_(sa.literal(sorted(set(ids)), sa.ARRAY(sa.BigInteger)))
    return found


def listed(name: str, **columns: tuple[sa.types.TypeEngine[Any], Sequence[Any]]) -> sa.TableValuedAlias:
    """A table of values that are given by column: the type and the values, of all alike many."""
    arrays = [sa.literal(list(values), sa.ARRAY(kind)) for kind, values in columns.values()]
    named = [sa.column(column, kind) for column, (kind, _) in columns.items()]
    return sa.func.unnest(*arrays).table_valued(*named, name=name).render_derived()


def each_its(column: Any, values: Mapping[int, Any], kind: sa.types.TypeEngine[Any]) -> sa.ColumnElement[Any]:
    """The value that belongs to the number in the column, of some values of a type; NULL where none does."""
    told = listed("told", number=(sa.BigInteger(), list(values)), value=(kind, list(values.values())))
    return sa.select(told.c.value).where(told.c.number == column).scalar_subquery()
