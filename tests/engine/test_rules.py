"""What may be said in a rule, and what a person reads who said something else."""

import uuid
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccat_ops_db import models
from ccat_ops_db.grouping.compile import catalogue
from ccat_ops_db.grouping.rules import InvalidRule, Operator, Rule, parse_rules
from ccat_ops_db.states import PackageState

SCAN = "5a0c0a4e-0000-4000-8000-000000000001"


def rule(table: Any = "Source", column: str = "name", operator: str = "eq", value: Any = "M17") -> dict[str, Any]:
    return {"table": table, "column": column, "operator": operator, "value": value}


def parse(*rules: dict[str, Any]) -> tuple[Rule, ...]:
    return parse_rules(rules, catalogue())


@pytest.mark.parametrize(
    ("said", "value"),
    [
        (rule(), "M17"),
        (rule(operator="like", value="M%"), "M%"),
        (rule(operator="in", value=["M17", "Saturn"]), ("M17", "Saturn")),
        (rule("RawDataPackage", "part", "gte", 2), 2),
        (rule("RawDataPackage", "state", "eq", "archived"), PackageState.ARCHIVED),
        (rule("RawDataPackage", "state", "eq", "ARCHIVED"), PackageState.ARCHIVED),
        (rule("RawDataPackage", "state", "in", ["Archived", "failed"]), (PackageState.ARCHIVED, PackageState.FAILED)),
        (rule("ExecutedObsUnit", "observing_night", "eq", "2026-04-05"), date(2026, 4, 5)),
        (rule("ExecutedObsUnit", "started_at", "lt", "2026-04-05T01:00:00Z"), datetime(2026, 4, 5, 1, tzinfo=UTC)),
        (rule("ExecutedObsUnit", "id", "eq", SCAN), uuid.UUID(SCAN)),
        (rule("InstrumentModule", "frequency_min_ghz", "gt", 455), 455),
        (rule("InstrumentModule", "frequency_min_ghz", "gt", 455.5), 455.5),
    ],
)
def test_a_value_becomes_one_of_the_columns_type(said: dict[str, Any], value: object) -> None:
    assert parse(said) == (Rule(said["table"], said["column"], Operator(said["operator"]), value),)  # type: ignore[arg-type]  # the table above holds values of every type


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (rule(table="Sorce"), "rules[0].table: there is no table `Sorce`. Did you mean `Source`?"),
        (rule(column="nmae"), "rules[0].column: there is no column of Source `nmae`. Did you mean `name`?"),
        (rule(operator="not-in"), "rules[0].operator: there is no operator `not-in`. Did you mean `not_in`?"),
        (rule(operator="between"), "rules[0].operator: there is no operator `between`."),
        (rule(table=["Source"]), "rules[0].table: there is no table `['Source']`. Did you mean `Source`?"),
        ({**rule(), "vaule": 1}, "rules[0].vaule: a rule has no key `vaule`. Did you mean `value`?"),
        (
            {"table": "Source"},
            "rules[0]: `column` is missing; a rule has `table`, `column`, `operator`, `value`.",
        ),
        (
            rule("RawDataPackage", "state", value="archvied"),
            "rules[0].value: `archvied` is no PackageState. Did you mean `archived`?",
        ),
        (
            rule("RawDataPackage", "state", value=3),
            "rules[0].value: `3` is no PackageState. Known: `archived`, `failed`, `transferring`, `waiting`.",
        ),
        (
            rule("RawDataPackage", "state", "in", ["archived", "lost"]),
            "rules[0].value[1]: `lost` is no PackageState. Known: `archived`, `failed`, `transferring`, `waiting`.",
        ),
        (rule(value=17), "rules[0].value: 17 is not of type str, as the column is."),
        (rule(value=None), "rules[0].value: None is not of type str, as the column is."),
        (rule(value=["M17"]), "rules[0].value: ['M17'] is not of type str, as the column is."),
        (rule("RawDataPackage", "part", value="2"), "rules[0].value: '2' is not of type int, as the column is."),
        (rule("RawDataPackage", "part", value=2.5), "rules[0].value: 2.5 is not of type int, as the column is."),
        (
            rule("RawDataPackage", "part", value=2**63),
            "rules[0].value: 9223372036854775808 is larger than any value of the column.",
        ),
        (rule("RawDataPackage", "part", value=True), "rules[0].value: True is not of type int, as the column is."),
        (
            rule("ExecutedObsUnit", "started_at", value="2026-04-05"),
            "rules[0].value: `2026-04-05` has no time zone; write `2026-04-05T00:00:00Z` for UTC.",
        ),
        (
            rule("ExecutedObsUnit", "started_at", value="yesterday"),
            "rules[0].value: `yesterday` is no datetime; moments and dates are ISO 8601.",
        ),
        (
            rule("ExecutedObsUnit", "observing_night", value="2026-04-05T01:00:00Z"),
            "rules[0].value: `2026-04-05T01:00:00Z` is no date; moments and dates are ISO 8601.",
        ),
        (
            rule("ExecutedObsUnit", "id", value="scan 1"),
            "rules[0].value: `scan 1` is no UUID; moments and dates are ISO 8601.",
        ),
        (rule(operator="in", value="M17"), "rules[0].value: this operator takes a list of values, not 'M17'."),
        (rule(operator="not_in", value=[]), "rules[0].value: this operator takes a list of values, not []."),
        (
            rule("RawDataPackage", "part", "like", 2),
            "rules[0].operator: `like` does not go with RawDataPackage.part, which is of type int.",
        ),
        (
            rule("RawDataPackage", "state", "like", "arch%"),
            "rules[0].operator: `like` does not go with RawDataPackage.state, which is of type PackageState.",
        ),
        (
            rule("Instrument", "available", "gt", value=True),
            "rules[0].operator: `gt` does not go with Instrument.available, which is of type bool.",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(said: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRule) as caught:
        parse(said)
    assert str(caught.value).startswith(message)


def test_the_place_counts_the_rules() -> None:
    with pytest.raises(InvalidRule, match=r"^rules\[2\]\.value: 5 is not of type str"):
        parse(rule(), rule(), rule(value=5))


def test_no_table_with_secrets_or_people_can_be_reached() -> None:
    assert set(catalogue()) == {
        "RawDataPackage",
        "ExecutedObsUnit",
        "ObsMode",
        "ObsUnit",
        "ObservingProgram",
        "Source",
        "Telescope",
        "Observatory",
        "InstrumentModule",
        "Instrument",
    }


@pytest.mark.parametrize("table", sorted(catalogue()))
def test_every_column_can_be_named_but_those_that_hold_json(table: str) -> None:
    columns = getattr(models, table).__table__.columns
    assert catalogue()[table].keys() == {one.name for one in columns if one.type.__class__.__name__ != "JSONB"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)
COLUMNS = st.sampled_from([(table, column) for table, columns in catalogue().items() for column in columns])


@settings(derandomize=True)
@given(COLUMNS, st.sampled_from(Operator), JSON)
def test_any_value_is_either_understood_or_refused(place: tuple[str, str], operator: Operator, value: object) -> None:
    try:
        (parsed,) = parse(rule(*place, operator, value))
    except InvalidRule as error:
        assert str(error).startswith("rules[0].")  # noqa: PT017 - whether it is raised is what varies
    else:
        assert (parsed.table, parsed.column) == place


@settings(derandomize=True)
@given(st.dictionaries(st.sampled_from(["table", "column", "operator", "value", "sql"]), JSON))
def test_whatever_else_is_said_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(InvalidRule):
        parse(said)
