import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from ccat_ops_db.models.base import Base

Row = TypeVar("Row", bound=Base)


def table_of(noun: type[Base]) -> sa.Table:
    """The table itself, for statements that are no business of the session."""
    assert isinstance(noun.__table__, sa.Table)  # noqa: S101 - what a declarative class maps to; narrows the type
    return noun.__table__


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


class Brought:
    """A table of values, one row for each `id`, that is brought along by statements about many objects at once.

    It is made once, as these statements are; `rows` makes the parameter that each execution brings.
    """

    def __init__(self, name: str, **kinds: sa.types.TypeEngine[Any]) -> None:
        self._parameter = f"{name}_rows"
        self._names = kinds.keys()
        columns = [sa.column(column, kind) for column, kind in {"id": sa.BigInteger(), **kinds}.items()]
        given = sa.cast(sa.bindparam(self._parameter, type_=sa.Text()), sa.JSON)
        found = sa.func.json_to_recordset(given).table_valued(*columns, name=name)
        self.table: sa.TableValuedAlias = found.render_derived(with_types=True)
        """To select from, and to join."""
        self.c = self.table.c

    def rows(self, ids: Iterable[int], **columns: Iterable[Any]) -> "Rows":
        """Values of every column, in the order of the ids. Those of JSON columns stand as they are; null is NULL there.

        Raises ValueError where a column is missing or strange, as the database would take NULL for it.
        """
        if columns.keys() != self._names:
            raise ValueError(f"{sorted(columns)} are not the columns {sorted(self._names)}")
        names = ["id", *columns]
        listed = [dict(zip(names, row, strict=True)) for row in zip(ids, *columns.values(), strict=True)]
        return Rows(self.table, {self._parameter: json.dumps(listed, default=datetime.isoformat)})


@dataclass(frozen=True)
class Rows:
    """What one execution brings along."""

    table: sa.TableValuedAlias
    parameters: Mapping[str, str]
