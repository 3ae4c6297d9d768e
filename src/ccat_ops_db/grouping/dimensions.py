"""By what a step may divide its packages into sub-groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from ccat_ops_db.grouping.paths import catalogue, paths, table_of


@dataclass(frozen=True)
class Dimension:
    """Where the identity of a sub-group and its label for people are found."""

    table: str
    value: str
    label: str


_NAMED: Final[Mapping[str, Dimension]] = {
    "executed_obs_unit": Dimension("ExecutedObsUnit", "id", "started_at"),
    "obs_unit": Dimension("ObsUnit", "id", "name"),
    "source": Dimension("Source", "id", "name"),
    "instrument": Dimension("Instrument", "id", "name"),
    "instrument_module": Dimension("InstrumentModule", "id", "name"),
    "observing_program": Dimension("ObservingProgram", "id", "short_name"),
    "observing_night": Dimension("ExecutedObsUnit", "observing_night", "observing_night"),
}


@cache
def dimensions() -> Mapping[str, Dimension]:
    """Everything that `group_by` may name: what has a name of its own, and any `Table.column` that is one value.

    A table that may have many rows for a package, and a column that holds JSON, divide nothing.
    """
    columns = {
        f"{table}.{column}": Dimension(table, column, column)
        for table, kinds in catalogue().items()
        if not any(step.is_to_many for step in paths()[table])
        for column, kind in kinds.items()
        if kind is not dict
    }
    return {**_NAMED, **columns}


def is_finer(group_by: Sequence[str], than: Sequence[str]) -> bool:
    """Whether each sub-group by some dimensions lies within one sub-group by others, whatever the data are."""
    return all(any(_determines(one, other) for one in group_by) for other in than)


def _determines(one: str, other: str) -> bool:
    """Whether packages that agree in one dimension agree in another: it is the same, or on the way from the row."""
    ours, theirs = dimensions()[one], dimensions()[other]
    way = paths()[ours.table]
    if way == paths()[theirs.table] and ours.value == theirs.value:
        return True
    is_whole_row = [column.name for column in table_of(ours.table).primary_key] == [ours.value]
    return is_whole_row and paths()[theirs.table][: len(way)] == way
