from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from ccat_ops_db.models.base import Base

Row = TypeVar("Row", bound=Base)

Column: TypeAlias = tuple[sa.types.TypeEngine[Any], Sequence[Any]]
"""The type of a column, and its values."""


def once_more(noun: type[Row], *, name: str | None = None) -> type[Row]:
    """A table a second time in the same statement, to be kept by a module.

    Its columns are all looked up here: SQLAlchemy does it when each is first used, and where two threads do so at once
    one of them gets columns of the first table instead, in a statement that is then true of too many rows.
    """
    other = aliased(noun, name=name)
    for column in sa.inspect(noun).column_attrs:
        _ = getattr(other, column.key).expression
    return other


def is_among(column: Any, ids: Iterable[int]) -> sa.ColumnElement[bool]:
    """Condition: the column holds one of these numbers, of which there may be any number; none match none."""
    found: sa.ColumnElement[bool] = column == sa.any_(sa.literal(sorted(set(ids)), sa.ARRAY(sa.BigInteger)))
    return found


def is_given(column: Any, name: str) -> sa.ColumnElement[bool]:
    """The same condition in a statement that is made once: the numbers are its parameter of this name."""
    found: sa.ColumnElement[bool] = column == sa.any_(sa.bindparam(name, type_=sa.ARRAY(sa.BigInteger)))
    return found


def rows(name: str, ids: Sequence[int], **columns: Column) -> sa.TableValuedAlias:
    """A table of values that are brought along, one row for each id, for statements about many objects at once."""
    typed: dict[str, Column] = {"id": (sa.BigInteger(), ids), **columns}
    arrays = [sa.literal(list(values), sa.ARRAY(kind)) for kind, values in typed.values()]
    named = [sa.column(column, kind) for column, (kind, _) in typed.items()]
    return sa.func.unnest(*arrays).table_valued(*named, name=name).render_derived()
