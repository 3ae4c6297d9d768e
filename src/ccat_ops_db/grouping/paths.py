"""How tables hang together, seen from the raw package: derived from the foreign keys of the models."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from ccat_ops_db import models
from ccat_ops_db.grouping.checking import Catalogue
from ccat_ops_db.states import SourceKind

ROOT: Final = "RawDataPackage"
_REACHABLE: Final[Sequence[type[models.Base]]] = (
    models.RawDataPackage,
    models.RawDataFile,
    models.DataTransferPackage,
    models.ExecutedObsUnit,
    models.ObsUnit,
    models.ObsMode,
    models.ObservationConfiguration,
    models.ObservingProgram,
    models.SubObservingProgram,
    models.Source,
    models.FixedSource,
    models.SolarSystemObject,
    models.ConstantElevationSource,
    models.Instrument,
    models.InstrumentModule,
    models.InstrumentModuleConfiguration,
    models.Telescope,
    models.Observatory,
)
"""What describes data. People, tokens, and what the system does with data are not among them."""

_GROWING: Final = frozenset({"ExecutedObsUnit", "RawDataFile"})
"""Of which there are more with every observation."""

_PREFERRED: Final[Mapping[str, Sequence[str]]] = {
    "RawDataFile": ("RawDataFile",),
    "Telescope": ("ExecutedObsUnit", "Telescope"),
    "Observatory": ("ExecutedObsUnit", "Telescope", "Observatory"),
    "ObservingProgram": ("ExecutedObsUnit", "ObsUnit", "ObservingProgram"),
    "InstrumentModuleConfiguration": ("ExecutedObsUnit", "ObsUnit", "InstrumentModuleConfiguration"),
}
"""Where several ways lead to a table, the one that is meant by its bare name."""


@dataclass(frozen=True)
class Step:
    """One foreign key on the way, followed forwards, or backwards from what it refers to."""

    target: str
    """Name of the table class that it leads to."""
    tables: tuple[sa.Table, ...]
    """The tables that are joined: the target, after an association table where one lies between."""
    on: tuple[tuple[sa.Column[Any], sa.Column[Any]], ...]
    """For each of them the pair of columns that must be equal."""
    is_to_many: bool


Path = tuple[Step, ...]


def _name(path: Path) -> str:
    return ".".join(step.target for step in path)


@cache
def paths() -> Mapping[str, Path]:
    """Every name of a table that a rule may use → the way there from the raw package.

    Bare names, and dotted ones such as `InstrumentModule.Instrument.Telescope` that say which way is meant.
    """
    by_target: dict[str, list[Path]] = {}
    for path in _walk(ROOT, ()):
        by_target.setdefault(path[-1].target, []).append(path)
    dotted = {_name(path): path for found in by_target.values() for path in found if len(path) > 1}
    chosen = {target: _choose(target, found) for target, found in by_target.items()}
    bare = {target: path for target, path in chosen.items() if path is not None}
    return {ROOT: (), **dotted, **bare}


def _choose(target: str, found: Sequence[Path]) -> Path | None:
    """The only way, the preferred one, or the only one on which every step leads to one row."""
    preferred = [path for path in found if tuple(step.target for step in path) == _PREFERRED.get(target)]
    to_one = [path for path in found if not any(step.is_to_many for step in path)]
    for candidates in (preferred, to_one, found):
        if candidates:
            return candidates[0] if len(candidates) == 1 else None
    return None


def _walk(at: str, before: Path) -> Iterator[Path]:
    """All ways that meet no table twice and go to many rows at most once, at their end.

    What grows is looked at from a package and its scan only: seen from an instrument, one more scan would say something
    about all packages that there are.
    """
    if before and before[-1].is_to_many:
        return
    met = {ROOT, *(step.target for step in before)}
    for step in _steps()[at]:
        is_flood = step.is_to_many and step.target in _GROWING and at not in {ROOT, *_GROWING}
        if step.target not in met and not is_flood:
            path = (*before, step)
            yield path
            yield from _walk(step.target, path)


_NO_WAYS: Final = (models.RawDataFile.__table__.c.lost_from_id,)
"""Columns that refer to a row which has nothing of them any more."""


@cache
def _steps() -> Mapping[str, Sequence[Step]]:
    classes = {model.__table__: model.__name__ for model in _REACHABLE}
    steps: dict[str, list[Step]] = {name: [] for name in classes.values()}
    for table, name in classes.items():
        for key in sorted(table.foreign_keys, key=lambda key: str(key.parent)):
            target = key.column.table
            if target in classes and key.parent not in _NO_WAYS:
                is_detail = key.parent.primary_key
                steps[name].append(Step(classes[target], (target,), ((key.parent, key.column),), is_to_many=False))
                back = Step(name, (table,), ((key.column, key.parent),), is_to_many=not is_detail)  # type: ignore[arg-type]  # a Table
                steps[classes[target]].append(back)
    for association in (models.obs_unit_module_configuration,):
        one, other = sorted(association.foreign_keys, key=lambda key: str(key.parent))
        for near, far in ((one, other), (other, one)):
            on = ((near.column, near.parent), (far.parent, far.column))
            tables = (association, far.column.table)
            steps[classes[near.column.table]].append(Step(classes[far.column.table], tables, on, is_to_many=True))
    return steps


def table_of(name: str) -> sa.Table:
    """The table that a name stands for."""
    path = paths()[name]
    return path[-1].tables[-1] if path else models.RawDataPackage.__table__  # type: ignore[return-value]  # a Table


@cache
def catalogue() -> Catalogue:
    """Every table and column that a rule may name, with the type of its values."""
    return {name: {column.name: _type_of(column) for column in _columns(name)} for name in paths()}


def _columns(name: str) -> Iterator[sa.Column[Any]]:
    """Those of a table that say something of its own; what is worked out from other rows as a list is not asked for."""
    return (column for column in table_of(name).columns if not isinstance(column.type, sa.ARRAY))


def _type_of(column: sa.Column[Any]) -> type:
    if column is models.Source.__table__.c.type:
        return SourceKind
    if isinstance(column.type, JSONB):
        return dict
    if isinstance(column.type, sa.Enum) and column.type.enum_class is not None:
        return column.type.enum_class
    return column.type.python_type
