"""From checked rules to SQL. What a condition cannot be asked of, it does not select; so `not` is the complement.

Only `not` spells this out: elsewhere NULL selects as little as false does, and plain conditions can use an index.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import reduce
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB

from ccat_ops_db import models
from ccat_ops_db.grouping.checking import ORDER, Json, Now, Test, Value, tests, uses_now, without_now
from ccat_ops_db.grouping.dimensions import dimensions
from ccat_ops_db.grouping.names import key_of, labels_of
from ccat_ops_db.grouping.paths import ROOT, Path, paths, table_of
from ccat_ops_db.grouping.rules import AllOf, AnyOf, Cone, Node, Not, Operator

_PACKAGE: Final = models.RawDataPackage
_USABLE: Final = (
    _PACKAGE.state == models.PackageState.ARCHIVED,
    _PACKAGE.excluded_at.is_(None),
    _PACKAGE.withdrawn_at.is_(None),
)
Condition = sa.ColumnElement[bool]
Column = sa.ColumnElement[Any]


@dataclass(frozen=True)
class Selection:
    """Usable packages that match all rules, before anything is asked of them.

    Usable = ARCHIVED and neither excluded nor withdrawn.
    """

    tables: sa.FromClause
    condition: Condition
    values: Mapping[str, Column]
    """Dimension → the column that tells its sub-groups apart."""
    labels: Mapping[str, Column]
    """Dimension → the column that names them for people."""

    def where(self, condition: Condition) -> "Selection":
        """Those packages of it for which this holds too."""
        return replace(self, condition=sa.and_(self.condition, condition))


def selection(rules: AllOf, group_by: Sequence[str], *, now: datetime) -> Selection:
    """What checked rules select, with the columns of these dimensions. Relative times count from `now`."""
    joins = _Joins()
    values, labels = _named(joins, group_by)
    condition = sa.and_(*_USABLE, _Compiler(joins, now).compile(rules))
    return Selection(joins.joined, condition, values, labels)


def _named(joins: "_Joins", names: Sequence[str]) -> tuple[Mapping[str, Column], Mapping[str, Column]]:
    """Of each dimension the column that tells its sub-groups apart, and the one that names them."""
    known = {name: dimensions()[name] for name in names}
    values = {name: joins.table(paths()[one.table]).c[one.value] for name, one in known.items()}
    labels = {name: joins.table(paths()[one.table]).c[one.label] for name, one in known.items()}
    return values, labels


def packages_with(names: Sequence[str]) -> tuple[sa.FromClause, Mapping[str, Column]]:
    """All raw packages, joined with what dimensions say of them, and the columns that hold it."""
    joins = _Joins()
    values, _ = _named(joins, names)
    return joins.joined, values


def select_packages(rules: AllOf, group_by: Sequence[str], *, now: datetime) -> sa.Select[*tuple[Any, ...]]:
    """Usable packages that match all rules: id, name, checksum, archived_at, then value and label of each dimension.

    Usable = ARCHIVED and neither excluded nor withdrawn. Values and labels are text. Relative times count from `now`.
    """
    selected = selection(rules, group_by, now=now)
    columns = [
        sa.cast(column, sa.Text).label(f"{name}_{part}")
        for name in group_by
        for part, column in (("value", selected.values[name]), ("label", selected.labels[name]))
    ]
    packages: sa.Select[*tuple[Any, ...]] = sa.select(
        _PACKAGE.id, _PACKAGE.name, _PACKAGE.checksum, _PACKAGE.archived_at, *columns
    )
    return packages.select_from(selected.tables).where(selected.condition).order_by(_PACKAGE.id)


def select_members(rules: AllOf, group_by: Sequence[str], *, now: datetime) -> sa.Select[*tuple[Any, ...]]:
    """Packages with the names of their sub-groups: those that are selected, and those that only a relative time leaves.

    Columns: raw_data_package_id, archived_at, is_faded (not selected now), excluded_pixels, key, labels.
    """
    joins = _Joins()
    values, labels = _named(joins, group_by)
    selects = _Compiler(joins, now).compile
    is_faded: Condition = sa.false()
    ever = selects(rules)
    if uses_now(rules):
        is_faded = ever.is_not(sa.true())
        ever = sa.or_(ever, selects(without_now(rules)))
    named = [(name, values[name], labels[name]) for name in group_by]
    members: sa.Select[*tuple[Any, ...]] = sa.select(
        _PACKAGE.id.label("raw_data_package_id"),
        _PACKAGE.archived_at,
        is_faded.label("is_faded"),
        _PACKAGE.excluded_pixels,
        key_of(named).label("key"),
        labels_of(named).label("labels"),
    )
    return members.select_from(joins.joined).where(*_USABLE, ever)


def select_moved(rules: AllOf, *, since: datetime, until: datetime) -> sa.CompoundSelect[int]:
    """Ids of the packages that relative times of checked rules may have let come or go between two moments.

    These are all of which a value lies where such a time went by, so that an index finds them.
    """
    joins = _Joins()
    before, after = _Compiler(joins, since), _Compiler(joins, until)
    passed = [
        after.within(test, before.value(bound, test.kind), after.value(bound, test.kind))
        for test in tests(rules)
        for bound in test.values
        if isinstance(bound, Now)
    ]
    ids = sa.select(_PACKAGE.id).select_from(joins.joined).where(_PACKAGE.archived_at.is_not(None))
    return sa.union(*(ids.where(condition) for condition in passed))


def as_sql(rules: AllOf, *, now: datetime) -> str:
    """The statement that selects the packages, for people who want to see it."""
    statement = select_packages(rules, [], now=now)
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]  # SQLAlchemy's own; others double %
    return str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))


class _Joins:
    """Tables that lie on ways to one row each, joined once whatever needs them."""

    def __init__(self) -> None:
        self.joined: sa.FromClause = table_of(ROOT)
        self._known: dict[Path, sa.FromClause] = {(): table_of(ROOT)}

    def table(self, path: Path) -> sa.FromClause:
        """The table at the end of a way, which has no step to many rows."""
        if path not in self._known:
            before, step = self.table(path[:-1]), path[-1]
            [target], [(near, far)] = step.tables, step.on
            found = target.alias("_".join(one.target.lower() for one in path))
            self.joined = self.joined.outerjoin(found, before.c[near.name] == found.c[far.name])
            self._known[path] = found
        return self._known[path]


@dataclass(frozen=True)
class _Compiler:
    joins: _Joins
    now: datetime

    def compile(self, node: Node | Test) -> Condition:
        """The condition on a package that a rule stands for."""
        match node:
            case AllOf():
                return sa.and_(sa.true(), *map(self.compile, node.members))
            case AnyOf():
                return sa.or_(sa.false(), *map(self.compile, node.members))
            case Not():
                return self.compile(node.member).is_not(sa.true())
            case Cone():
                return self._at("FixedSource", lambda table: _in_cone(node, table.c.ra_deg, table.c.dec_deg))
            case Test():
                return self._at(node.table, lambda table: self._test(node, table.c[node.column]))
            case _:
                raise TypeError(f"{node} was not checked")

    def _at(self, name: str, condition: Callable[[sa.FromClause], Condition]) -> Condition:
        """The condition on a table: on the one row that belongs to the package, or on any of several."""
        path = paths()[name]
        if not path or not path[-1].is_to_many:
            return condition(self.joins.table(path))
        step, before = path[-1], self.joins.table(path[:-1])
        aliases = [table.alias() for table in step.tables]
        ends = [before, *aliases]
        on = [ends[i].c[near.name] == ends[i + 1].c[far.name] for i, (near, far) in enumerate(step.on)]
        return sa.exists(sa.select(sa.literal(1)).select_from(*aliases).where(*on, condition(aliases[-1])))

    def _test(self, test: Test, column: Column) -> Condition:
        values = [self.value(value, test.kind) for value in test.values]
        if test.json_path:
            found = sa.cast(column, JSONB).op("#>", return_type=JSONB)(
                postgresql.array(list(test.json_path), type_=sa.Text)
            )
            return _on_json(test.operator, found, values)
        if test.kind is dict and test.operator is Operator.CONTAINS:
            return column.op("@>", return_type=sa.Boolean)(_jsonb(values[0]))
        return _ON_COLUMN[test.operator](_ordered(column) if test.operator in ORDER else column, values)

    def within(self, test: Test, low: Any, high: Any) -> Condition:
        """The condition that what is compared lies between two values, whatever it is compared with."""
        return self._at(test.table, lambda table: table.c[test.column].between(low, high))

    def value(self, value: Value, kind: type) -> Any:
        """What a value is at the moment."""
        if not isinstance(value, Now):
            return float(value) if kind is float and isinstance(value, int) else value
        moment = self.now + value.offset
        return moment if issubclass(kind, datetime) else moment.date()


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


_ON_COLUMN: Final[Mapping[Operator, Callable[[Column, Sequence[Any]], Condition]]] = {
    Operator.EQ: lambda column, values: column == values[0],
    Operator.NEQ: lambda column, values: column.is_distinct_from(values[0]),
    Operator.IN: lambda column, values: column == sa.any_(_array(column, values)),
    Operator.NOT_IN: lambda column, values: sa.or_(column != sa.all_(_array(column, values)), column.is_(None)),
    Operator.GT: lambda column, values: column > values[0],
    Operator.GTE: lambda column, values: column >= values[0],
    Operator.LT: lambda column, values: column < values[0],
    Operator.LTE: lambda column, values: column <= values[0],
    Operator.LIKE: lambda column, values: column.like(values[0]),
    Operator.ILIKE: lambda column, values: column.ilike(values[0]),
    Operator.BETWEEN: lambda column, values: sa.and_(column >= values[0], column <= values[1]),
    Operator.IS_NULL: lambda column, values: column.is_(None) if values[0] else column.is_not(None),
    Operator.CONTAINS: lambda column, values: column.like(f"%{_escaped(values[0])}%", escape="\\"),
}


def _array(column: Column, values: Sequence[Any]) -> Column:
    """The values as one parameter: of single ones there may be no more than 65,535."""
    return sa.literal(list(values), sa.ARRAY(column.type))


def _ordered(column: Column) -> Column:
    """The column, if it holds text, in the order of code points, whatever the order of the database is."""
    return sa.collate(column, "C") if isinstance(column.type, sa.String) else column


def _jsonb(value: object) -> Column:
    return sa.cast(sa.literal(_json_text(value), sa.Text), JSONB(none_as_null=False))


def _jsonbs(values: Sequence[object]) -> Column:
    """The values as one parameter."""
    return sa.cast(sa.literal([_json_text(value) for value in values], sa.ARRAY(sa.Text)), sa.ARRAY(JSONB))


def _json_text(value: object) -> str:
    return value.text if isinstance(value, Json) else json.dumps(value)


def _on_json(operator: Operator, found: Column, values: Sequence[Any]) -> Condition:
    """A comparison with what lies within JSON: numbers with numbers, text with text; another type does not compare."""
    match operator:
        case Operator.EQ | Operator.IN:
            return found == sa.any_(_jsonbs(values))
        case Operator.NEQ | Operator.NOT_IN:
            return sa.or_(found != sa.all_(_jsonbs(values)), found.is_(None))
        case Operator.IS_NULL:
            is_null = sa.func.coalesce(sa.func.jsonb_typeof(found), "null") == "null"
            return is_null if values[0] else sa.not_(is_null)
        case Operator.CONTAINS:
            return _json_contains(found, values[0])
        case _:
            if isinstance(values[0], str):
                return _ON_COLUMN[operator](_text(found), values)
            return _ON_COLUMN[operator](_number(found), [_numeric(str(value)) for value in values])


def _json_contains(found: Column, value: object) -> Condition:
    """Part of a list or mapping; of text where both are text."""
    within: Condition = found.op("@>", return_type=sa.Boolean)(_jsonb(value))
    if not isinstance(value, str):
        return within
    is_text = sa.func.jsonb_typeof(found) == "string"
    return sa.case((is_text, _ON_COLUMN[Operator.CONTAINS](_text(found), [value])), else_=within)


def _plain(found: Column) -> Column:
    return found.op("#>>", return_type=sa.Text)(sa.literal_column("'{}'::text[]"))


def _text(found: Column) -> Column:
    plain: Column = sa.case((sa.func.jsonb_typeof(found) == "string", _plain(found)))
    return sa.collate(plain, "C")


def _number(found: Column) -> Column:
    return sa.case((sa.func.jsonb_typeof(found) == "number", _numeric(_plain(found))))


def _numeric(text: Column | str) -> Column:
    """A number as JSON has it, of any size: no other type holds them all."""
    return sa.cast(sa.literal(text, sa.Text) if isinstance(text, str) else text, sa.Numeric)


def _in_cone(cone: Cone, ra: Column, dec: Column) -> Condition:
    """Within the circle: a band of declination, which an index narrows down, and there the exact distance."""
    radius = cone.radius_deg
    sind, cosd = sa.func.sind, sa.func.cosd
    half = sa.func.power(sind((dec - cone.dec_deg) / 2), 2) + cosd(dec) * math.cos(math.radians(cone.dec_deg)) * (
        sa.func.power(sind((ra - cone.ra_deg) / 2), 2)
    )
    distance = 2 * sa.func.asind(sa.func.sqrt(sa.func.least(1.0, half)))
    band = dec.between(max(cone.dec_deg - radius, -90.0) - _ROUNDING, min(cone.dec_deg + radius, 90.0) + _ROUNDING)
    return reduce(sa.and_, (band, distance <= radius + _ROUNDING))


_ROUNDING: Final = 1e-9
"""Degrees: far below any pointing accuracy, and above the errors of the arithmetic."""
