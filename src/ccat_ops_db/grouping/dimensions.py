"""By what a step may divide its packages into sub-groups."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from ccat_ops_db.grouping.paths import catalogue, paths


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
