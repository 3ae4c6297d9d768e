"""Rules and dimensions that are accepted, however odd they are, can be evaluated, and mean what they say."""

from datetime import UTC, date, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.grouping.compile import select_packages
from ccat_ops_db.grouping.keys import DimensionValue, name_sub_group
from ccat_ops_db.grouping.rules import AllOf
from tests.engine.history import History

MAP: dict[str, Any] = {"key": "map", "group_by": ["RawDataPackage.id"]}
DESCRIBED: list[dict[str, Any]] = [{"a": {"b": 7}, "l": [1, 2]}, {"a": 10**400}, {"a": 1}, {"a": True}, {"a": "Ä"}, {}]
MANY = 70_000


def of_metadata(operator: str, value: Any, path: str | None = None) -> dict[str, Any]:
    said = {"table": "RawDataPackage", "column": "metadata", "operator": operator, "value": value}
    return said | ({"json_path": path} if path else {})


def of_source(operator: str, value: Any) -> dict[str, Any]:
    return {"table": "Source", "column": "name", "operator": operator, "value": value}


ALL = list(range(len(DESCRIBED)))


@pytest.mark.parametrize(
    ("rule", "selected"),
    [
        (of_metadata("contains", {"a": {"b": 7}}), [0]),
        (of_metadata("contains", [1], "l"), [0]),
        (of_metadata("contains", {"b": 7}, "a"), [0]),
        (of_metadata("eq", 1, "a"), [2]),
        (
            of_metadata("eq", value=True, path="a"),
            [3],
        ),  # after the one before: what was put together for 1 is not for `true`
        (of_metadata("gt", 5, "a"), [1]),
        (of_metadata("lt", 9223372036854775808, "a"), [2]),
        (of_metadata("gt", 1e308, "a"), [1]),
        (of_metadata("between", ["A", "Ö"], "a"), [4]),
        (of_metadata("in", list(range(MANY)), "a"), [2]),
        (of_metadata("not_in", list(range(MANY)), "a"), [0, 1, 3, 4, 5]),
        (of_source("in", [f"M{number}" for number in range(MANY)]), ALL),
        (of_source("not_in", [f"N{number}" for number in range(MANY)]), ALL),
        (of_source("like", "M%\\\\"), []),
        (of_source("between", ["M", "m"]), ALL),
    ],
    ids=lambda one: "-".join(map(str, [one["column"], one["operator"], one["value"]]))[:50] if "column" in one else "",
)
def test_a_pipeline_with_such_a_rule_runs_what_it_selects(
    history: History, rule: dict[str, Any], selected: list[int]
) -> None:
    for metadata in DESCRIBED:
        package = history.archive()
        described = sa.update(models.RawDataPackage).where(models.RawDataPackage.id == package)
        history.execute(described.values(metadata_=metadata))
    history.define(MAP, rules=[rule])
    assert history.create() == len(selected)
    expected = [f"RawDataPackage.id={history.packages[index]}" for index in selected]
    assert [run.sub_group_key for run in history.runs()] == expected


@pytest.mark.parametrize(
    ("dimension", "value", "key"),
    [
        ("ExecutedObsUnit.started_at", datetime(2026, 4, 5, 1, tzinfo=UTC), "2026-04-05%2001%3A00%3A00%2B00"),
        ("ExecutedObsUnit.observing_night", date(2026, 4, 5), "2026-04-05"),
        ("observing_night", date(2026, 4, 5), "2026-04-05"),
        ("InstrumentModule.frequency_max_ghz", 1e20, "1e%2B20"),
        ("RawDataPackage.part", 1, "1"),
        ("Instrument.available", True, "true"),
        ("source", None, None),
        ("executed_obs_unit", None, None),
    ],
)
def test_sub_groups_are_called_the_same_in_the_database_and_outside(
    history: History, dimension: str, value: Any, key: str | None
) -> None:
    package = history.archive()
    table, _, column = dimension.rpartition(".")
    if column == "frequency_max_ghz":
        history.execute(sa.update(models.InstrumentModule).values(frequency_max_ghz=value))
    elif "Obs" in table or "night" in column:
        history.scan_of(package, **{column: value})
    history.define({"key": "map", "group_by": [dimension]})
    assert history.create() == 1
    [row] = history.session(
        lambda session: session.execute(select_packages(AllOf(()), [dimension], now=history.now)).all()
    )
    name = name_sub_group([(dimension, DimensionValue(*row[4:]))])
    [run] = history.runs()
    assert (run.sub_group_key, run.sub_group_path) == (name.key, name.path)
    assert run.sub_group_key == f"{dimension}={row[4] if key is None else key}"
