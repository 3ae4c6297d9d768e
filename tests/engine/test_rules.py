"""What may be said in a rule, and what a person reads who said something else."""

import uuid
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccat_ops_db.grouping import paths
from ccat_ops_db.grouping.checking import Json, Now, check_rules, uses_now, without_now
from ccat_ops_db.grouping.paths import ambiguous, catalogue, table_of
from ccat_ops_db.grouping.rules import AllOf, AnyOf, Cone, InvalidRule, Not, Operator, parse_rules
from ccat_ops_db.states import PackageState

SCAN = "5a0c0a4e-0000-4000-8000-000000000001"


def rule(table: Any = "Source", column: str = "name", operator: str = "eq", value: Any = "M17") -> dict[str, Any]:
    return {"table": table, "column": column, "operator": operator, "value": value}


def parse(*rules: Any) -> tuple[Any, ...]:
    return check_rules(parse_rules(rules), catalogue()).members


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
    [test] = parse(said)
    assert (test.table, test.column, test.operator) == (said["table"], said["column"], said["operator"])
    assert test.values == (value if isinstance(value, tuple) else (value,))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (rule(table="Sorce"), "rules[0].table: there is no table `Sorce`. Did you mean `Source`?"),
        (rule(column="nmae"), "rules[0].column: there is no column of Source `nmae`. Did you mean `name`?"),
        (rule(operator="not-in"), "rules[0].operator: there is no operator `not-in`. Did you mean `not_in`?"),
        (rule(operator="~"), "rules[0].operator: there is no operator `~`. Known: `between`, `contains`, `eq`, "),
        (rule(table=["Source"]), "rules[0].table: there is no table `['Source']`. Did you mean `Source`?"),
        ({**rule(), "vaule": 1}, "rules[0].vaule: a rule has no key `vaule`. Did you mean `value`?"),
        (
            {"table": "Source"},
            "rules[0]: `column` is missing; a rule has `table`, `column`, `operator`, `value`, or one of `any`, ",
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
    assert {name for name in catalogue() if "." not in name} == {
        "RawDataPackage",
        "RawDataFile",
        "DataTransferPackage",
        "ExecutedObsUnit",
        "ObsMode",
        "ObsUnit",
        "ObservationConfiguration",
        "ObservingProgram",
        "SubObservingProgram",
        "Source",
        "FixedSource",
        "SolarSystemObject",
        "ConstantElevationSource",
        "Telescope",
        "Observatory",
        "InstrumentModule",
        "InstrumentModuleConfiguration",
        "Instrument",
    }
    assert {name.rpartition(".")[2] for name in catalogue()} == {name for name in catalogue() if "." not in name}


def test_no_table_is_ambiguous_and_other_ways_to_one_have_a_dotted_name() -> None:
    assert ambiguous() == {}
    assert {name for name in catalogue() if name.endswith("Telescope")} == {
        "Telescope",
        "ExecutedObsUnit.Telescope",
        "InstrumentModule.Instrument.Telescope",
    }


def test_where_nothing_is_preferred_an_ambiguous_name_is_refused_with_the_choices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paths, "_PREFERRED", {})
    monkeypatch.setattr(paths, "paths", paths.paths.__wrapped__)
    monkeypatch.setattr(paths, "catalogue", paths.catalogue.__wrapped__)
    choices = ["ExecutedObsUnit.Telescope", "InstrumentModule.Instrument.Telescope"]
    assert sorted(ambiguous()["Telescope"]) == choices
    with pytest.raises(InvalidRule) as refused:
        check_rules(parse_rules([rule("Telescope")]), paths.catalogue(), ambiguous=ambiguous())
    assert str(refused.value) == (
        "rules[0].table: several ways lead to `Telescope`; say which one is meant: "
        "`ExecutedObsUnit.Telescope` or `InstrumentModule.Instrument.Telescope`."
    )


@pytest.mark.parametrize("table", sorted(catalogue()))
def test_every_column_can_be_named(table: str) -> None:
    assert catalogue()[table].keys() == {column.name for column in table_of(table).columns}


# What goes beyond one condition


M17, SATURN = rule(), rule(value="Saturn")
LATE = rule("ExecutedObsUnit", "started_at", "gte", {"now": "-7d"})
CONE = {"cone": {"ra_deg": 275, "dec_deg": -16.5, "radius_deg": 0.5}}


def test_rules_nest() -> None:
    [either, no] = parse({"any": [M17, {"all": [SATURN, LATE]}]}, {"not": {"any": [CONE, M17]}})
    assert isinstance(either, AnyOf)
    assert isinstance(either.members[1], AllOf)
    assert isinstance(no, Not)
    assert no.member.members[0] == Cone("rules[1].not.any[0].cone", 275.0, -16.5, 0.5)  # type: ignore[union-attr]  # an AnyOf


@pytest.mark.parametrize(
    ("said", "values"),
    [
        (rule("RawDataPackage", "part", "between", [1, 3]), (1, 3)),
        (rule("ObsUnit", "line_id", "is_null", value=True), (True,)),
        (rule("Source", "name", "contains", "17"), ("17",)),
        (rule("Source", "name", "ilike", "m%"), ("m%",)),
        (rule("ExecutedObsUnit", "started_at", "gt", {"now": "-1d12h"}), (Now(-timedelta(days=1, hours=12)),)),
        (rule("ExecutedObsUnit", "observing_night", "lte", {"now": "2w"}), (Now(timedelta(weeks=2)),)),
        (rule("RawDataPackage", "metadata", "contains", {"a": [1]}), (Json('{"a": [1]}'),)),
        (rule("RawDataPackage", "metadata", "gt", 455.5) | {"json_path": "frequency.ghz"}, (455.5,)),
        (rule("RawDataPackage", "metadata", "in", ["a", 1, True]) | {"json_path": "x"}, ("a", 1, Json("true"))),
        (rule("RawDataPackage", "metadata", "contains", [1]) | {"json_path": "x"}, (Json("[1]"),)),
        (rule("Source", "name", "like", "50%\\\\"), ("50%\\\\",)),
    ],
)
def test_further_operators_and_values(said: dict[str, Any], values: tuple[object, ...]) -> None:
    [test] = parse(said)
    assert test.values == values
    assert test.json_path == tuple(said.get("json_path", "").split(".")) * bool(said.get("json_path"))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("M17", "rules[0]: a rule is a mapping, not 'M17'."),
        ({"any": []}, "rules[0].any: it is empty, and would select nothing."),
        ({"all": []}, "rules[0].all: it is empty, and would select everything."),
        ({"any": M17}, "rules[0].any: it is a list of rules, not {'table': 'Source', "),
        ({"any": [M17], "table": "Source"}, "rules[0].table: beside `any` a rule has no other key."),
        ({"any": [M17, rule(column="nmae")]}, "rules[0].any[1].column: there is no column of Source `nmae`."),
        ({"not": [M17]}, "rules[0].not: a rule is a mapping, not [{"),
        ({"anny": [M17]}, "rules[0].anny: a rule has no key `anny`. Did you mean `any`?"),
        (
            {"cone": [1, 2, 3]},
            "rules[0].cone: a cone is a mapping with `ra_deg`, `dec_deg`, `radius_deg`, not [1, ",
        ),
        (
            {"cone": {"ra_deg": 1, "dec_deg": 2}},
            "rules[0].cone: `radius_deg` is missing; a cone has `ra_deg`, `dec_deg`, `radius_deg`.",
        ),
        (
            {"cone": {"ra": 1, "dec_deg": 2, "radius_deg": 1}},
            "rules[0].cone.ra: a cone has no key `ra`. Known: `dec_deg`, `ra_deg`, `radius_deg`.",
        ),
        (
            {"cone": {"ra_deg": 360, "dec_deg": 2, "radius_deg": 1}},
            "rules[0].cone.ra_deg: it is a number of degrees from 0 to 360, not 360.",
        ),
        (
            {"cone": {"ra_deg": 1, "dec_deg": -91, "radius_deg": 1}},
            "rules[0].cone.dec_deg: it is a number of degrees from -90 to 90, not -91.",
        ),
        (
            {"cone": {"ra_deg": 1, "dec_deg": 2, "radius_deg": float("nan")}},
            "rules[0].cone.radius_deg: it is a number of degrees from 0 to 180, not nan.",
        ),
        (
            rule() | {"json_path": "a.b"},
            "rules[0].json_path: Source.name holds no JSON, but str.",
        ),
        (
            rule("RawDataPackage", "metadata") | {"json_path": "a..b"},
            "rules[0].json_path: it is names joined by dots, such as `observation.frequency_ghz`, not 'a..b'.",
        ),
        (
            rule("RawDataPackage", "metadata"),
            "rules[0].operator: RawDataPackage.metadata is JSON: name what lies in it by `json_path`, or use",
        ),
        (
            rule("RawDataPackage", "metadata", "gt", value=True) | {"json_path": "a"},
            "rules[0].value: this operator takes a number or text, not True.",
        ),
        (
            rule("RawDataPackage", "metadata", "like", 1) | {"json_path": "a"},
            "rules[0].value: this operator takes text, not 1.",
        ),
        (
            rule("RawDataPackage", "metadata", "eq", None) | {"json_path": "a"},
            "rules[0].value: this operator takes a number, text, true or false, not None.",
        ),
        (rule(operator="is_null", value="yes"), "rules[0].value: this operator takes true or false, not 'yes'."),
        (
            rule("RawDataPackage", "part", "between", [1]),
            "rules[0].value: this operator takes a list of the lower and the upper end, not [1].",
        ),
        (
            rule("RawDataPackage", "part", "between", [3, 1]),
            "rules[0].value: the lower end comes first: [3, 1] is an empty range.",
        ),
        (
            rule("ExecutedObsUnit", "started_at", "between", [{"now": "0d"}, {"now": "-1d"}]),
            "rules[0].value: the lower end comes first: [{'now': '0d'}, {'now': '-1d'}] is an empty range.",
        ),
        (
            rule("RawDataPackage", "metadata", "between", [1, "b"]) | {"json_path": "a"},
            "rules[0].value: both ends are of one type, not [1, 'b'].",
        ),
        (
            rule("ExecutedObsUnit", "started_at", "gt", {"now": "last week"}),
            'rules[0].value: a relative time is written {"now": "-7d"}, in units of w, d, h, m and s.',
        ),
        (
            rule("ExecutedObsUnit", "started_at", "gt", {"now": "-٧d"}),  # noqa: RUF001 - a seven, but not of ours
            'rules[0].value: a relative time is written {"now": "-7d"}, in units of w, d, h, m and s.',
        ),
        (
            rule("Source", "name", "like", "%\\"),
            "rules[0].value: `%\\` ends in a backslash with nothing after it; a backslash itself is written `\\\\`.",
        ),
        (
            rule("RawDataPackage", "metadata", "ilike", "\\\\\\") | {"json_path": "a"},
            "rules[0].value: `\\\\\\` ends in a backslash with nothing after it; a backslash itself is written `\\\\`.",
        ),
        (
            rule("InstrumentModule", "frequency_min_ghz", "gt", float("inf")),
            "rules[0].value: inf is no finite number.",
        ),
        (
            rule("RawDataPackage", "metadata", "gt", float("nan")) | {"json_path": "a"},
            "rules[0].value: it is no value that JSON can hold: Out of range float values are not JSON compliant",
        ),
        (
            rule("RawDataPackage", "metadata", "contains", {"a": {1}}),
            "rules[0].value: it is no value that JSON can hold: Object of type set is not JSON serializable.",
        ),
        (
            rule("RawDataPackage", "metadata", "contains", {"a": ["\x00"]}),
            "rules[0].value: {'a': ['\\x00']} has a character that the database cannot hold.",
        ),
        (
            rule("Source", "name", "in", ["a", "\ud800"]),
            "rules[0].value[1]: '\\ud800' has a character that the database cannot hold.",
        ),
        (
            rule("ExecutedObsUnit", "started_at", "gt", {"now": "-9999w"}),
            "rules[0].value: `-9999w` is more than a hundred years.",
        ),
        (
            rule(value={"now": "-7d"}),
            "rules[0].value: a relative time is for moments and dates; the column is of type str.",
        ),
    ],
)
def test_what_else_cannot_be_meant_is_refused_with_its_place(said: Any, message: str) -> None:
    with pytest.raises(InvalidRule) as caught:
        parse(said)
    assert str(caught.value).startswith(message)


def test_rules_that_are_nested_without_end_are_refused() -> None:
    said: dict[str, Any] = M17
    for _ in range(25):
        said = {"not": said}
    with pytest.raises(InvalidRule, match="rules are nested more than 20 levels deep"):
        parse(said)


def test_what_a_relative_time_leaves_out_is_known() -> None:
    both = check_rules(parse_rules([M17, LATE]), catalogue())
    assert uses_now(both)
    assert without_now(both).members == (AllOf((both.members[0], AllOf(()))),)
    unless_late = check_rules(parse_rules([{"not": LATE}]), catalogue())
    assert without_now(unless_late).members == (AllOf((Not(AnyOf(())),)),)
    assert not uses_now(check_rules(parse_rules([M17, CONE]), catalogue()))


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
