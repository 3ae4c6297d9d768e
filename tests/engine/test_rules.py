"""What may be said in a rule, and what a person reads who said something else."""

import json
import uuid
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from ccat_ops_db import models
from ccat_ops_db.grouping.checking import Json, Now, check_rules, uses_now, without_now
from ccat_ops_db.grouping.paths import catalogue, table_of
from ccat_ops_db.grouping.rules import AllOf, AnyOf, Cone, InvalidRule, Not, Operator, parse_rules
from ccat_ops_db.states import PackageState, SourceKind

SCAN = "5a0c0a4e-0000-4000-8000-000000000001"
TRUE = "YAML reads `yes`, `on` and `true` as true; write it in quotes."
FALSE = "YAML reads `no`, `off` and `false` as false; write it in quotes."
A_RULE = "a rule has `table`, `column`, `operator`, `value`, or one of `any`, `all`, `not`, `cone`."
KEYS = "Known: `all`, `any`, `column`, `cone`, `json_path`, `not`, `operator`, `preset`, `table`, `value`."
OPERATORS = (
    "Known: `between`, `contains`, `eq`, `gt`, `gte`, `ilike`, `in`, `is_null`, `like`, `lt`, `lte`, `neq`, `not_in`."
)
TABLES = (
    "Known: `ConstantElevationSource`, `DataTransferPackage`, `ExecutedObsUnit`, `FixedSource`, `Instrument`, "
    "`InstrumentModule`, `InstrumentModuleConfiguration`, `ObsMode`, `ObsUnit`, `ObservationConfiguration`, "
    "`Observatory`, `ObservingProgram`, `RawDataFile`, `RawDataPackage`, `SolarSystemObject`, `Source`, "
    "`SubObservingProgram`, `Telescope`."
)
STATES = "Known: `archived`, `failed`, `transferring`, `waiting`."
STATE = "one of `waiting`, `transferring`, `archived`, `failed`"
MOMENT, DATE = "such as `2026-04-01T18:30:00Z`", "such as `2026-04-01`"
EXAMPLE = "5a0c0a4e-0000-4000-8000-000000000001"


def rule(table: Any = "Source", column: Any = "name", operator: Any = "eq", value: Any = "M17") -> dict[str, Any]:
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
        (rule(column="type", value="fixed_source"), SourceKind.FIXED_SOURCE),
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
        *(
            (rule(operator=said), f"rules[0].operator: there is no operator `{shown}`. {OPERATORS}")
            for said, shown in (("~", "~"), (">", ">"), ("", ""), (None, "null"), (5, "5"), ([], "[]"))
        ),
        *(
            (rule(operator=said), f"rules[0].operator: there is no operator `{said}`. Did you mean `{meant}`?")
            for said, meant in (("EQ", "eq"), ("GtE", "gte"), ("in ", "in"), ("isnull", "is_null"))
        ),
        (rule(table=["Source"]), 'rules[0].table: there is no table `["Source"]`. Did you mean `Source`?'),
        (rule(table="source"), "rules[0].table: there is no table `source`. Did you mean `Source`?"),
        (
            rule(table="Telescope.Instrument"),
            (
                "rules[0].table: there is no table `Telescope.Instrument`. "
                "Did you mean `ExecutedObsUnit.Telescope.Instrument`?"
            ),
        ),
        *(
            (rule(table=said), f"rules[0].table: there is no table `{shown}`. {TABLES}")
            for said, shown in (
                (None, "null"),
                ("", ""),
                (True, "true"),
                ({"a": 1}, '{"a": 1}'),
                ("ApiToken", "ApiToken"),
            )
        ),
        (rule(column="Name"), "rules[0].column: there is no column of Source `Name`. Did you mean `name`?"),
        *(
            (
                rule(column=said),
                f"rules[0].column: there is no column of Source `{shown}`. Known: `id`, `name`, `type`.",
            )
            for said, shown in ((None, "null"), ("", ""), (5, "5"), (["x"], '["x"]'))
        ),
        ({**rule(), "vaule": 1}, "rules[0].vaule: a rule has no key `vaule`. Did you mean `value`?"),
        (
            {"table": "Source"},
            f"rules[0]: `column` is missing; {A_RULE}",
        ),
        ({}, f"rules[0]: `table` is missing; {A_RULE}"),
        ({"table": "Source", "column": "name", "operator": "eq"}, f"rules[0]: `value` is missing; {A_RULE}"),
        ({"with": 1}, f"rules[0].with: a rule has no key `with`. {KEYS}"),
        (rule() | {"5": 1}, f"rules[0].5: a rule has no key `5`. {KEYS}"),
        (
            rule("RawDataPackage", "state", value="archvied"),
            "rules[0].value: `archvied` is no PackageState. Did you mean `archived`?",
        ),
        (
            rule("RawDataPackage", "state", value=True),
            f"rules[0].value: `true` is no PackageState. {TRUE}",
        ),
        *(
            (rule("RawDataPackage", "state", value=said), f"rules[0].value: `{shown}` is no PackageState. {STATES}")
            for said, shown in ((3, "3"), (None, "null"), ("", ""), ([], "[]"))
        ),
        (
            rule(column="type", value="fixed_sorce"),
            "rules[0].value: `fixed_sorce` is no SourceKind. Did you mean `fixed_source`?",
        ),
        (
            rule(column="type", value="planet"),
            (
                "rules[0].value: `planet` is no SourceKind. "
                "Known: `constant_elevation_source`, `fixed_source`, `solar_system_object`."
            ),
        ),
        (
            rule("RawDataPackage", "state", value=["archived"]),
            'rules[0].value: `["archived"]` is no PackageState. Did you mean `archived`?',
        ),
        (
            rule("RawDataPackage", "state", value={"now": "-7d"}),
            f'rules[0].value: the column holds {STATE}, not {{"now": "-7d"}}.',
        ),
        (
            rule("RawDataPackage", "state", "in", ["archived", "lost"]),
            f"rules[0].value[1]: `lost` is no PackageState. {STATES}",
        ),
        *(
            (rule(value=said), f"rules[0].value: the column holds text, not {shown}.")
            for said, shown in (
                (17, "17"),
                (None, "null"),
                (["M17"], '["M17"]'),
                ({}, "{}"),
                ({"now": "-7d"}, '{"now": "-7d"}'),
            )
        ),
        (rule(value=False), f"rules[0].value: the column holds text, not false. {FALSE}"),
        *(
            (
                rule("RawDataPackage", "part", value=said),
                f"rules[0].value: the column holds whole numbers, not {shown}.",
            )
            for said, shown in (("2", '"2"'), (2.5, "2.5"), (1.0, "1.0"), (True, "true"), (None, "null"), ([1], "[1]"))
        ),
        *(
            (
                rule("InstrumentModule", "frequency_min_ghz", "gt", said),
                f"rules[0].value: the column holds numbers, not {shown}.",
            )
            for said, shown in (("455", '"455"'), (False, "false"), (None, "null"), ({}, "{}"))
        ),
        *(
            (
                rule("Instrument", "available", value=said),
                f"rules[0].value: the column holds true or false, not {shown}.",
            )
            for said, shown in ((1, "1"), ("yes", '"yes"'), (None, "null"))
        ),
        *(
            (
                rule("RawDataPackage", "part", value=said),
                f"rules[0].value: {str(said)[:80]} is beyond any value of the column.",
            )
            for said in (2**63, -(2**63) - 1, 10**400)
        ),
        *(
            (
                rule("ExecutedObsUnit", "started_at", "gt", said),
                f"rules[0].value: `{said}` is no moment that there is, {MOMENT}.",
            )
            for said in (
                "yesterday",
                "",
                "now",
                "1775001600",
                "2026-13-01T00:00:00Z",
                "2026-04-01T25:00:00Z",
                "2026-04-01T24:00:00Z",
                "2026-04-01T23:60:00Z",
                "2026-02-30T00:00:00Z",
                "2026-02-30",
                "2026-4-1",
                "01.04.2026",
                "2026/04/01",
                "2026-04-01T00:00:00+25:00",
                "0000-01-01T00:00:00Z",
            )
        ),
        *(
            (
                rule("ExecutedObsUnit", "started_at", "gt", said),
                f"rules[0].value: `{said}` has no time zone; write `{meant}` for UTC.",
            )
            for said, meant in (
                ("2026-04-05", "2026-04-05T00:00:00Z"),
                ("2026-04-05T01:30:00", "2026-04-05T01:30:00Z"),
                ("2026-04-05 01:30", "2026-04-05T01:30:00Z"),
                ("2026-W14-7", "2026-04-05T00:00:00Z"),
            )
        ),
        *(
            (
                rule("ExecutedObsUnit", "started_at", "gt", said),
                f"rules[0].value: the column holds moments, {MOMENT}, not {shown}.",
            )
            for said, shown in ((20260401, "20260401"), (None, "null"), (True, "true"), ([], "[]"))
        ),
        *(
            (
                rule("ExecutedObsUnit", "observing_night", value=said),
                f"rules[0].value: `{said}` is no date that there is, {DATE}.",
            )
            for said in ("2026-04-05T01:00:00Z", "2026-13-01", "2026-02-30", "2026-4-1", "01.04.2026", "tonight", "")
        ),
        *(
            (
                rule("ExecutedObsUnit", "observing_night", value=said),
                f"rules[0].value: the column holds dates, {DATE}, not {shown}.",
            )
            for said, shown in ((20260401, "20260401"), (None, "null"))
        ),
        *(
            (rule("ExecutedObsUnit", "id", value=said), f"rules[0].value: `{said}` is no UUID, such as `{EXAMPLE}`.")
            for said in ("scan 1", "", SCAN[:-1])
        ),
        (
            rule("ExecutedObsUnit", "id", value=7),
            f"rules[0].value: the column holds UUIDs, such as `{EXAMPLE}`, not 7.",
        ),
        *(
            (rule(operator=operator, value=said), f"rules[0].value: this operator takes a list of values, not {shown}.")
            for operator in ("in", "not_in")
            for said, shown in (("M17", '"M17"'), ([], "[]"), (None, "null"), ({"a": 1}, '{"a": 1}'))
        ),
        (
            rule("RawDataPackage", "part", "in", [1, "2"]),
            'rules[0].value[1]: the column holds whole numbers, not "2".',
        ),
        *(
            (
                rule("RawDataPackage", "part", operator, 2),
                (
                    f"rules[0].operator: `{operator}` does not go with RawDataPackage.part, which holds whole numbers; "
                    "these do: `eq`, `neq`, `in`, `not_in`, `gt`, `gte`, `lt`, `lte`, `between`, `is_null`."
                ),
            )
            for operator in ("like", "ilike", "contains")
        ),
        *(
            (
                rule("RawDataPackage", "state", operator, "archived"),
                (
                    f"rules[0].operator: `{operator}` does not go with RawDataPackage.state, which holds {STATE}; "
                    "these do: `eq`, `neq`, `in`, `not_in`, `is_null`."
                ),
            )
            for operator in ("gt", "gte", "lt", "lte", "between", "like", "ilike", "contains")
        ),
        *(
            (
                rule("Instrument", "available", operator, value=True),
                (
                    f"rules[0].operator: `{operator}` does not go with Instrument.available, which holds true or "
                    "false; these do: `eq`, `neq`, `in`, `not_in`, `is_null`."
                ),
            )
            for operator in ("gt", "between", "like")
        ),
        *(
            (
                rule("ExecutedObsUnit", "id", operator, SCAN),
                (
                    f"rules[0].operator: `{operator}` does not go with ExecutedObsUnit.id, which holds UUIDs, such as "
                    f"`{EXAMPLE}`; these do: `eq`, `neq`, `in`, `not_in`, `is_null`."
                ),
            )
            for operator in ("lt", "between", "like")
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(said: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRule) as caught:
        parse(said)
    assert str(caught.value) == message


def test_the_place_counts_the_rules() -> None:
    with pytest.raises(InvalidRule, match=r"^rules\[2\]\.value: the column holds text, not 5\.$"):
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


def test_every_kind_of_source_can_be_named() -> None:
    assert set(SourceKind) == models.Source.__mapper__.polymorphic_map.keys()


def test_no_table_is_ambiguous_and_other_ways_to_one_have_a_dotted_name() -> None:
    assert {name for name in catalogue() if name.endswith("Telescope")} == {
        "Telescope",
        "ExecutedObsUnit.Telescope",
        "InstrumentModule.Instrument.Telescope",
    }


@pytest.mark.parametrize("table", sorted(catalogue()))
def test_every_column_that_holds_one_value_can_be_named(table: str) -> None:
    values = [column for column in table_of(table).columns if not isinstance(column.type, sa.ARRAY)]
    assert catalogue()[table].keys() == {column.name for column in values}


# What goes beyond one condition


M17, SATURN = rule(), rule(value="Saturn")
LATE = rule("ExecutedObsUnit", "started_at", "gte", {"now": "-7d"})
CONE: dict[str, dict[str, Any]] = {"cone": {"ra_deg": 275, "dec_deg": -16.5, "radius_deg": 0.5}}
A_PATH = "it is names joined by dots, with numbers for items of lists, such as `spectra.0.frequency_ghz`"
RELATIVE = 'a relative time is written {"now": "-7d"}, in units of w, d, h, m and s, the larger ones first'


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
        *(
            (said, f"rules[0]: a rule is a mapping, not {shown}.")
            for said, shown in (("M17", '"M17"'), (None, "null"), (5, "5"), ([], "[]"))
        ),
        ({"any": []}, "rules[0].any: it is empty, and would select nothing."),
        ({"all": []}, "rules[0].all: it is empty, and would select everything."),
        *(
            ({key: said}, f"rules[0].{key}: it is a list of rules, not {shown}.")
            for key in ("any", "all")
            for said, shown in ((M17, json.dumps(M17)), (None, "null"), ("x", '"x"'))
        ),
        ({"any": [None]}, "rules[0].any[0]: a rule is a mapping, not null."),
        ({"not": {}}, f"rules[0].not: `table` is missing; {A_RULE}"),
        ({"not": None}, "rules[0].not: a rule is a mapping, not null."),
        ({"any": [M17], "all": [M17]}, "rules[0].all: beside `any` a rule has no other key."),
        (CONE | M17, "rules[0].table: beside `cone` a rule has no other key."),
        ({"any": [M17], "table": "Source"}, "rules[0].table: beside `any` a rule has no other key."),
        (
            {"any": [M17, rule(column="nmae")]},
            "rules[0].any[1].column: there is no column of Source `nmae`. Did you mean `name`?",
        ),
        ({"not": [M17]}, f"rules[0].not: a rule is a mapping, not {json.dumps([M17])}."),
        ({"anny": [M17]}, "rules[0].anny: a rule has no key `anny`. Did you mean `any`?"),
        *(
            (
                {"cone": said},
                f"rules[0].cone: a cone is a mapping with `ra_deg`, `dec_deg`, `radius_deg`, not {shown}.",
            )
            for said, shown in (([1, 2, 3], "[1, 2, 3]"), (None, "null"), (True, "true"), ("M17", '"M17"'), (5, "5"))
        ),
        *(
            (
                {"cone": {key: 1 for key in CONE["cone"] if key != missing}},
                f"rules[0].cone: `{missing}` is missing; a cone has `ra_deg`, `dec_deg`, `radius_deg`.",
            )
            for missing in CONE["cone"]
        ),
        *(
            (
                {"cone": CONE["cone"] | {key: 1}},
                f"rules[0].cone.{key}: a cone has no key `{key}`. Known: `dec_deg`, `ra_deg`, `radius_deg`.",
            )
            for key in ("ra", "frame", "")
        ),
        (
            {"cone": CONE["cone"] | {"radius": 1}},
            "rules[0].cone.radius: a cone has no key `radius`. Did you mean `radius_deg`?",
        ),
        *(
            (
                {"cone": CONE["cone"] | {key: said}},
                f"rules[0].cone.{key}: it is a number of degrees from {low} to {high}, not {shown}.",
            )
            for key, low, high in (("ra_deg", 0, 360), ("dec_deg", -90, 90), ("radius_deg", 0, 180))
            for said, shown in (
                (low - 0.5, f"{low - 0.5}"),
                (high + 0.5, f"{high + 0.5}"),
                (float("nan"), "NaN"),
                (float("inf"), "Infinity"),
                (-float("inf"), "-Infinity"),
                (None, "null"),
                (True, "true"),
                ("5:30", '"5:30"'),
                ("1", '"1"'),
                ([1], "[1]"),
            )
        ),
        (
            {"cone": CONE["cone"] | {"ra_deg": 360}},
            "rules[0].cone.ra_deg: it is a number of degrees from 0 to 360, not 360.",
        ),
        (
            rule() | {"json_path": "a.b"},
            "rules[0].json_path: Source.name holds no JSON, but text.",
        ),
        *(
            (
                rule("RawDataPackage", "metadata") | {"json_path": said},
                f"rules[0].json_path: {A_PATH}, not {json.dumps(said)}. Did you mean `{meant}`?",
            )
            for said, meant in (
                ("$.a", "a"),
                ("$.a.b", "a.b"),
                ("$..a", "a"),
                ('$["a"].b', "a.b"),
                ("$a", "a"),
                ("a[0]", "a.0"),
                ("a[0].b", "a.0.b"),
                ("/a/b", "a.b"),
                ("{a,b}", "a.b"),
                ("a->b->>c", "a.b.c"),
                ("a..b", "a.b"),
                (".a", "a"),
                ("a.", "a"),
                ("a. b", "a.b"),
            )
        ),
        *(
            (
                rule("RawDataPackage", "metadata") | {"json_path": said},
                f"rules[0].json_path: {A_PATH}, not {json.dumps(said)}.",
            )
            for said in ("", " ", ".", "$", "*", "a.*", "a[*]", "a\x00b", None, 5, True, ["a"], {"a": 1})
        ),
        *(
            (
                rule("RawDataPackage", "metadata", operator),
                (
                    "rules[0].operator: RawDataPackage.metadata is JSON: name what lies in it by `json_path`, or use "
                    "`contains` or `is_null`."
                ),
            )
            for operator in ("eq", "in", "like", "between")
        ),
        (
            rule("RawDataPackage", "metadata", "gt", value=True) | {"json_path": "a"},
            "rules[0].value: this operator takes a number or text, not true.",
        ),
        (
            rule("RawDataPackage", "metadata", "like", 1) | {"json_path": "a"},
            "rules[0].value: this operator takes text, not 1.",
        ),
        (
            rule("RawDataPackage", "metadata", "eq", None) | {"json_path": "a"},
            "rules[0].value: this operator takes a number, text, true or false, not null.",
        ),
        *(
            (rule(operator="is_null", value=said), f"rules[0].value: this operator takes true or false, not {shown}.")
            for said, shown in (("yes", '"yes"'), (None, "null"), (1, "1"))
        ),
        *(
            (
                rule("RawDataPackage", "part", "between", said),
                f"rules[0].value: this operator takes a list of the lower and the upper end, not {shown}.",
            )
            for said, shown in (([1], "[1]"), ([1, 2, 3], "[1, 2, 3]"), (None, "null"), (1, "1"), ({}, "{}"))
        ),
        (
            rule("RawDataPackage", "part", "between", [1, None]),
            "rules[0].value[1]: the column holds whole numbers, not null.",
        ),
        (
            rule("RawDataPackage", "part", "between", [3, 1]),
            "rules[0].value: the lower end comes first: [3, 1] is an empty range.",
        ),
        (
            rule("ExecutedObsUnit", "started_at", "between", [{"now": "0d"}, {"now": "-1d"}]),
            'rules[0].value: the lower end comes first: [{"now": "0d"}, {"now": "-1d"}] is an empty range.',
        ),
        (
            rule("RawDataPackage", "metadata", "between", [1, "b"]) | {"json_path": "a"},
            'rules[0].value: both ends are of one type, not [1, "b"].',
        ),
        *(
            (
                rule("ExecutedObsUnit", column, "gt", said),
                f"rules[0].value: {RELATIVE}, not {json.dumps(said, ensure_ascii=False)}.",
            )
            for column in ("started_at", "observing_night")
            for said in (
                {"now": "last week"},
                {"now": "-٧d"},  # noqa: RUF001 - a seven, but not of ours
                {"now": "7D"},
                {"now": "--7d"},
                {"now": "-7d7d"},
                {"now": "-7d1w"},
                {"now": "-"},
                {"now": "7 d"},
                {"now": "1y"},
                {"now": "-1.5d"},
                {"now": "-7"},
                {"now": -7},
                {"now": ""},
                {"now": None},
                {"now": ["-7d"]},
                {},
            )
        ),
        *(
            (
                rule("ExecutedObsUnit", "started_at", "gt", said),
                f"rules[0].value.{key}: a relative time has no key `{key}`. {hint}",
            )
            for said, key, hint in (
                ({"now": "-7d", "x": 1}, "x", "Known: `now`."),
                ({"ago": "7d"}, "ago", "Known: `now`."),
                ({"Now": "-7d"}, "Now", "Did you mean `now`?"),
            )
        ),
        *(
            (said, "rules[0].value: it is empty, and every text contains that; `is_null` says whether there is one.")
            for said in (
                rule(operator="contains", value=""),
                rule("RawDataPackage", "metadata", "contains", "") | {"json_path": "a"},
            )
        ),
        *(
            (
                rule("RawDataPackage", "metadata", "contains", said),
                f"rules[0].value: without `json_path` this operator takes a part of JSON, not {json.dumps(said)}.",
            )
            for said in ("a", "", 5, True, None)
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
            "rules[0].value: NaN is no value that JSON can hold.",
        ),
        (
            rule("RawDataPackage", "metadata", "contains", {"a": {1}}),
            "rules[0].value: {'a': {1}} is no value that JSON can hold.",
        ),
        (
            rule("RawDataPackage", "metadata", "contains", {"a": ["\x00"]}),
            'rules[0].value: {"a": ["\\u0000"]} has a character that the database cannot hold.',
        ),
        (
            rule("Source", "name", "in", ["a", "\ud800"]),
            'rules[0].value[1]: "\\ud800" has a character that the database cannot hold.',
        ),
        (
            rule("ExecutedObsUnit", "started_at", "gt", {"now": "-9999w"}),
            "rules[0].value: `-9999w` is more than a hundred years.",
        ),
    ],
)
def test_what_else_cannot_be_meant_is_refused_with_its_place(said: Any, message: str) -> None:
    with pytest.raises(InvalidRule) as caught:
        parse(said)
    assert str(caught.value) == message


def test_rules_that_are_nested_without_end_are_refused() -> None:
    said: dict[str, Any] = M17
    for _ in range(25):
        said = {"not": said}
    with pytest.raises(InvalidRule) as refused:
        parse(said)
    assert str(refused.value) == f"rules[0]{'.not' * 21}: rules are nested more than 20 levels deep."


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
