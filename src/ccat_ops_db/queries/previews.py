import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.grouping.compile import Selection, selection
from ccat_ops_db.grouping.dimensions import dimensions
from ccat_ops_db.grouping.estimating import Sample
from ccat_ops_db.grouping.keys import DimensionValue, SubGroupName, name_sub_group
from ccat_ops_db.grouping.paths import catalogue
from ccat_ops_db.grouping.presets import check_written, presets
from ccat_ops_db.naming import list_problems
from ccat_ops_db.sets import is_among

_PACKAGE: Final = models.RawDataPackage
_DRAWN: Final = 5_000
"""Packages of a sample: looked at in a tenth of a second, and rules that select half of all are right to 3 %."""
_QUICK: Final = 20_000.0
"""Cost in the planner's unit, of what takes no longer than looking at a sample."""
_TELLING: Final = 30
"""Packages of a sub-group in a sample that its size is estimated from, then right to a third or better."""

Row = sa.Row[Any]


class Counts(StrEnum):
    """What a number of packages rests on."""

    EXACT = "exact"
    ESTIMATED = "estimated"
    AT_LEAST = "at_least"


class InvalidDimensions(CcatError):
    """Packages cannot be divided by what was named."""

    code = "invalid_dimensions"

    def __init__(self, problems: Iterable[str]) -> None:
        super().__init__("\n".join(problems))


@dataclass(frozen=True)
class PreviewedSubGroup:
    """A sub-group that there would be."""

    key: str
    labels: Mapping[str, str | None]
    packages: int
    counts: Counts


@dataclass(frozen=True)
class Preview:
    """What rules select, and how it would be divided."""

    counts: Counts
    """Whether the numbers of all packages and sub-groups are exact or estimated."""
    packages: int
    packages_margin: int
    """By more than this the number of packages is off in one case of twenty only; 0 where it is exact."""
    sub_groups: int
    first: Sequence[PreviewedSubGroup]
    """Sub-groups in the order of their first packages, at most as many as were asked for."""


def preview(
    session: Session, rules: Any, group_by: Sequence[str], *, now: datetime, limit: int = 50, exact: bool = False
) -> Preview:
    """What `rules`, as people write them, select at the moment `now`, and the first `limit` sub-groups of it.

    Unless `exact` it takes a fraction of a second, however many packages there are. All is exact nevertheless where the
    planner expects that an index leads to the packages quickly. Elsewhere numbers are estimated from 5,000 packages
    drawn at random, the same ones each time, and the sub-groups are those that the draw met, with their exact numbers
    of packages where these are found quickly. What is rare may be missed, see `packages_margin`; the number of
    sub-groups may be off by some ten percent, and by some factor where there are very many that no index leads to.

    Raises InvalidRule and InvalidDimensions, with the place and the nearest valid name.
    """
    if problems := list(list_problems(group_by, "group_by", known=dimensions(), what="dimension")):
        raise InvalidDimensions(problems)
    _, checked = check_written(rules, catalogue(), presets())
    selected = selection(checked, group_by, now=now)
    everything = _divided(selected).limit(limit)
    if exact or _is_quick(session, everything):
        return _counted(session, selected, everything)
    return _estimated(session, selected, limit=limit)


def _counted(session: Session, selected: Selection, everything: sa.Select[*tuple[Any, ...]]) -> Preview:
    rows = session.execute(everything).all()
    packages, sub_groups, _ = _totals(rows)
    return Preview(
        Counts.EXACT,
        packages,
        packages_margin=0,
        sub_groups=sub_groups,
        first=[_sub_group(name, row.packages, row.packages) for name, row in _named(rows, selected.values)],
    )


def _estimated(session: Session, selected: Selection, *, limit: int) -> Preview:
    ids = _ids(session)
    drawn = random.Random(0).sample(ids, min(_DRAWN, len(ids)))  # noqa: S311 - the same each time, and no secret
    met = session.execute(_divided(selected.where(is_among(_PACKAGE.id, drawn))).limit(limit)).all()
    packages, sub_groups, single = _totals(met)
    sample = Sample(len(drawn), len(ids), packages=packages, sub_groups=sub_groups, single=single)
    sizes = _quickly_counted(session, selected, met)
    named = [(name, row.packages, sizes.get(name.key)) for name, row in _named(met, selected.values)]
    return Preview(
        Counts.ESTIMATED,
        sample.estimated_packages(),
        packages_margin=sample.margin(),
        sub_groups=sample.estimated_sub_groups([(number, size) for _, number, size in named if size]),
        first=[_sub_group(*one, scale=sample.scale) for one in named],
    )


def _sub_group(name: SubGroupName, met: int, size: int | None, *, scale: float = 1.0) -> PreviewedSubGroup:
    if size is not None:
        return PreviewedSubGroup(name.key, name.labels, size, Counts.EXACT)
    if met >= _TELLING:
        return PreviewedSubGroup(name.key, name.labels, round(met * scale), Counts.ESTIMATED)
    return PreviewedSubGroup(name.key, name.labels, met, Counts.AT_LEAST)


def _divided(selected: Selection) -> sa.Select[*tuple[Any, ...]]:
    """Sub-groups in the order of their first packages: values, texts and labels, number of packages; totals of all."""
    values = [column.label(f"value_{name}") for name, column in selected.values.items()]
    labels = [sa.func.any_value(column).label(f"label_{name}") for name, column in selected.labels.items()]
    number, first = sa.func.count().label("packages"), sa.func.min(_PACKAGE.id).label("first")
    groups = (
        sa.select(*values, *labels, number, first)
        .select_from(selected.tables)
        .where(selected.condition)
        .group_by(*selected.values.values())
        .having(sa.func.count() > 0)  # without dimensions there would be a sub-group of nothing
        .subquery()
    )
    return sa.select(
        *(groups.c[column.name] for column in values),
        _texts(groups.c[column.name] for column in values).label("texts"),
        _texts(groups.c[column.name] for column in labels).label("labels"),
        groups.c.packages,
        sa.func.sum(groups.c.packages).over().label("all_packages"),
        sa.func.count().over().label("all_sub_groups"),
        sa.func.count().filter(groups.c.packages == 1).over().label("single"),
    ).order_by(groups.c.first)


def _texts(columns: Iterable[sa.ColumnElement[Any]]) -> sa.ColumnElement[Any]:
    return postgresql.array([sa.cast(column, sa.Text) for column in columns], type_=sa.Text)


def _totals(rows: Sequence[Row]) -> tuple[int, int, int]:
    """Packages, sub-groups, and sub-groups of one package, those included that are not among the rows."""
    return (int(rows[0].all_packages), rows[0].all_sub_groups, rows[0].single) if rows else (0, 0, 0)


def _named(rows: Iterable[Row], group_by: Iterable[str]) -> Iterator[tuple[SubGroupName, Row]]:
    for row in rows:
        values = map(DimensionValue, row.texts, row.labels)
        yield name_sub_group(list(zip(group_by, values, strict=True))), row


def _quickly_counted(session: Session, selected: Selection, met: Sequence[Row]) -> Mapping[str, int]:
    """Numbers of packages of these sub-groups by their key; of none where it would take long to count them."""
    for index, column in enumerate(selected.values.values()):
        selected = selected.where(_is_one_of(column, {row[index] for row in met}))
    statement = _divided(selected)
    if not _is_quick(session, statement):
        return {}
    return {name.key: row.packages for name, row in _named(session.execute(statement), selected.values)}


def _is_one_of(column: sa.ColumnElement[Any], values: set[Any]) -> sa.ColumnElement[bool]:
    known = column.in_(values - {None})
    return sa.or_(known, column.is_(None)) if None in values else known


def _ids(session: Session) -> range:
    lowest, highest = session.execute(sa.select(sa.func.min(_PACKAGE.id), sa.func.max(_PACKAGE.id))).one()
    return range(lowest, highest + 1) if lowest is not None else range(0)


class _Explained(sa.Executable, sa.ClauseElement):
    """The plan of a statement in place of its rows."""

    inherit_cache = False

    def __init__(self, statement: sa.Select[*tuple[Any, ...]]) -> None:
        self.statement = statement


@compiles(_Explained)
def _explain(explained: _Explained, compiler: SQLCompiler, **options: Any) -> str:
    return f"EXPLAIN (FORMAT JSON) {compiler.process(explained.statement, **options)}"


def _is_quick(session: Session, statement: sa.Select[*tuple[Any, ...]]) -> bool:
    [explained] = session.scalars(_Explained(statement)).one()
    return bool(explained["Plan"]["Total Cost"] <= _QUICK)
