from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import RelationshipDirection, class_mapper

from ccat_ops_db import models
from ccat_ops_db.grouping.rules import Catalogue, Operator, Rule

_ROOT: Final = models.RawDataPackage


@dataclass(frozen=True)
class Dimension:
    """What `group_by` may name: where its identity and its label are found."""

    table: str
    value: str
    label: str


DIMENSIONS: Final[Mapping[str, Dimension]] = {
    "executed_obs_unit": Dimension("ExecutedObsUnit", "id", "started_at"),
    "obs_unit": Dimension("ObsUnit", "id", "name"),
    "source": Dimension("Source", "id", "name"),
    "instrument": Dimension("Instrument", "id", "name"),
    "instrument_module": Dimension("InstrumentModule", "id", "name"),
    "observing_program": Dimension("ObservingProgram", "id", "short_name"),
    "observing_night": Dimension("ExecutedObsUnit", "observing_night", "observing_night"),
}


@cache
def _paths() -> Mapping[str, tuple[sa.orm.InstrumentedAttribute[Any], ...]]:
    """Table → to-one relationships that lead there from the raw package, the shortest path first found."""
    paths: dict[str, tuple[sa.orm.InstrumentedAttribute[Any], ...]] = {_ROOT.__name__: ()}
    open_ends = deque([_ROOT.__name__])
    mappers = {_ROOT.__name__: class_mapper(_ROOT)}
    while open_ends:
        name = open_ends.popleft()
        for relationship in mappers[name].relationships:
            target = relationship.mapper.class_.__name__
            if relationship.direction is RelationshipDirection.MANYTOONE and target not in paths:
                paths[target] = (*paths[name], relationship.class_attribute)
                mappers[target] = relationship.mapper
                open_ends.append(target)
    return paths


@cache
def catalogue() -> Catalogue:
    """Every table and column that a rule may name, derived from the models."""
    return {name: _columns(name) for name in _paths()}


def _columns(name: str) -> dict[str, type]:
    table = getattr(models, name).__table__
    return {column.name: _type_of(column) for column in table.columns if not isinstance(column.type, JSONB)}


def _type_of(column: sa.Column[Any]) -> type:
    if isinstance(column.type, sa.Enum) and column.type.enum_class is not None:
        return column.type.enum_class
    return column.type.python_type


def select_packages(rules: Sequence[Rule], dimensions: Sequence[str]) -> sa.Select[*tuple[Any, ...]]:
    """Usable packages that match all rules: id, name, checksum, archived_at, then value and label of each dimension.

    Usable = ARCHIVED and neither excluded nor withdrawn. Values and labels are text.
    """
    wanted = [DIMENSIONS[name] for name in dimensions]
    tables = [rule.table for rule in rules] + [dimension.table for dimension in wanted]
    columns = [
        sa.cast(_column(one.table, column), sa.Text).label(f"{name}_{part}")
        for name, one in zip(dimensions, wanted, strict=True)
        for part, column in (("value", one.value), ("label", one.label))
    ]
    packages: sa.Select[*tuple[Any, ...]] = sa.select(_ROOT.id, _ROOT.name, _ROOT.checksum, _ROOT.archived_at, *columns)
    query = _join(packages.select_from(_ROOT), tables)
    return query.where(
        _ROOT.state == models.PackageState.ARCHIVED,
        _ROOT.excluded_at.is_(None),
        _ROOT.withdrawn_at.is_(None),
        *(_condition(rule) for rule in rules),
    ).order_by(_ROOT.id)


def _join(query: sa.Select[*tuple[Any, ...]], tables: Sequence[str]) -> sa.Select[*tuple[Any, ...]]:
    joined: set[Any] = set()
    for table in tables:
        for relationship in _paths()[table]:
            if relationship not in joined:
                query = query.outerjoin(relationship)
                joined.add(relationship)
    return query


def _column(table: str, column: str) -> sa.ColumnElement[Any]:
    found: sa.ColumnElement[Any] = getattr(models, table).__table__.c[column]
    return found


_CONDITIONS: Final[Mapping[Operator, Callable[[sa.ColumnElement[Any], Any], sa.ColumnElement[bool]]]] = {
    Operator.EQ: lambda column, value: column == value,
    Operator.NEQ: lambda column, value: column.is_distinct_from(value),
    Operator.IN: lambda column, values: column.in_(values),
    Operator.NOT_IN: lambda column, values: sa.or_(column.not_in(values), column.is_(None)),
    Operator.GT: lambda column, value: column > value,
    Operator.GTE: lambda column, value: column >= value,
    Operator.LT: lambda column, value: column < value,
    Operator.LTE: lambda column, value: column <= value,
    Operator.LIKE: lambda column, value: column.like(value),
}


def _condition(rule: Rule) -> sa.ColumnElement[bool]:
    return _CONDITIONS[rule.operator](_column(rule.table, rule.column), rule.value)
