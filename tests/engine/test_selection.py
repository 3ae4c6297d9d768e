"""Which packages a grouping selects, and what dimensions say of them."""

import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.grouping.checking import check_rules, fits
from ccat_ops_db.grouping.compile import as_sql, select_packages
from ccat_ops_db.grouping.dimensions import dimensions
from ccat_ops_db.grouping.paths import catalogue
from ccat_ops_db.grouping.rules import AllOf, Operator, parse_rules
from ccat_ops_db.grouping.telling import sentence
from ccat_ops_db.moves import advance
from ccat_ops_db.session import transaction
from ccat_ops_db.states import PackageState
from tests.engine.conftest import OpsDb
from tests.engine.database import archive, plan

NOON = datetime(2026, 4, 5, 16, 30, tzinfo=UTC)  # local noon at the telescope
EVENING, MORNING = NOON - timedelta(hours=12), NOON + timedelta(hours=12)


@pytest.fixture(scope="module")
def observed(clean_ops_db: OpsDb) -> Iterator[Session]:
    """Three packages: two of M17 in two nights, one of Saturn by another module; `line_id` is set for one only."""
    with clean_ops_db() as engine, transaction(engine) as session:
        plan(session, "M17 map", source="M17")
        plan(session, "Saturn scan", source="Saturn", program="Planets")
        session.scalars(sa.select(models.ObsUnit).filter_by(name="M17 map")).one().line_id = "CO43"
        archive(session, "m17-1", observation="M17 map", at=EVENING)
        archive(session, "m17-2", observation="M17 map", at=MORNING)
        archive(session, "saturn", observation="Saturn scan", at=MORNING, module="CHAI/HFA")
        yield session
        session.rollback()


@pytest.fixture
def session(observed: Session) -> Iterator[Session]:
    """What a test changes is undone."""
    with observed.begin_nested() as savepoint:
        yield observed
        savepoint.rollback()


def selected(session: Session, *rules: dict[str, Any]) -> list[str]:
    rows = session.execute(select_packages(check_rules(parse_rules(rules), catalogue()), [], now=MORNING))
    return [row.name for row in rows]


M17 = ["m17-1", "m17-2"]


@pytest.mark.parametrize(
    ("table", "column", "operator", "value", "expected"),
    [
        ("Source", "name", "eq", "M17", M17),
        ("Source", "name", "neq", "M17", ["saturn"]),
        ("Source", "name", "in", ["Saturn", "Mars"], ["saturn"]),
        ("Source", "name", "not_in", ["Saturn", "Mars"], M17),
        ("Source", "name", "like", "M%", M17),
        ("Source", "name", "like", "m%", []),
        ("Source", "name", "eq", "'; DROP TABLE source; --", []),
        ("Source", "type", "eq", "Fixed_Source", [*M17, "saturn"]),
        ("Source", "type", "not_in", ["fixed_source", "constant_elevation_source"], []),
        ("ObsUnit", "line_id", "eq", "CO43", M17),
        ("ObsUnit", "line_id", "neq", "CO43", ["saturn"]),  # where nothing is said, it is another one
        ("ObsUnit", "line_id", "not_in", ["CO43"], ["saturn"]),
        ("InstrumentModule", "frequency_min_ghz", "gt", 455, ["saturn"]),
        ("InstrumentModule", "frequency_min_ghz", "gte", 455, [*M17, "saturn"]),
        ("InstrumentModule", "frequency_min_ghz", "lt", 800.5, [*M17, "saturn"]),
        ("InstrumentModule", "frequency_min_ghz", "lte", 455.0, M17),
        ("Instrument", "name", "eq", "CHAI", [*M17, "saturn"]),
        ("Telescope", "name", "eq", "FYST", [*M17, "saturn"]),
        ("ObservingProgram", "short_name", "eq", "Planets", ["saturn"]),
        ("ExecutedObsUnit", "observing_night", "eq", "2026-04-04", ["m17-1"]),
        ("ExecutedObsUnit", "started_at", "gte", "2026-04-05T18:00:00+02:00", ["m17-2", "saturn"]),
        ("RawDataPackage", "state", "eq", "ARCHIVED", [*M17, "saturn"]),
        ("RawDataPackage", "part", "lt", 2**63 - 1, [*M17, "saturn"]),
    ],
)
def test_each_operator_selects_what_it_says(
    session: Session, table: str, column: str, operator: str, value: object, expected: list[str]
) -> None:
    said = {"table": table, "column": column, "operator": operator, "value": value}
    assert selected(session, said) == expected


def test_a_package_matches_all_rules(session: Session) -> None:
    m17 = {"table": "Source", "column": "name", "operator": "eq", "value": "M17"}
    late = {"table": "ExecutedObsUnit", "column": "observing_night", "operator": "gt", "value": "2026-04-04"}
    assert selected(session, m17, late) == ["m17-2"]


def test_no_rule_selects_every_package(session: Session) -> None:
    assert selected(session) == [*M17, "saturn"]


EXAMPLES: dict[type, object] = {
    dict: {"a": 1},
    str: "x",
    int: 1,
    float: 1.5,
    bool: True,
    date: "2026-04-05",
    datetime: "2026-04-05T00:00:00Z",
    uuid.UUID: "5a0c0a4e-0000-4000-8000-000000000001",
}


@pytest.mark.parametrize("table", sorted(catalogue()))
def test_whatever_is_accepted_can_be_asked(session: Session, table: str) -> None:
    for column, kind in catalogue()[table].items():
        value = next(iter(kind)) if issubclass(kind, StrEnum) else EXAMPLES[kind]
        wanted = dict.fromkeys(Operator, value) | {
            Operator.IN: [value],
            Operator.NOT_IN: [value],
            Operator.BETWEEN: [value, value],
            Operator.IS_NULL: True,
        }
        for operator in Operator:
            if fits(operator, kind):
                said = {"table": table, "column": column, "operator": operator, "value": wanted[operator]}
                selected(session, said)


@pytest.mark.parametrize(
    "change",
    [
        {"excluded_at": NOON, "excluded_because": "clouds"},
        {"withdrawn_at": NOON, "withdrawn_because": "a wrong file"},
    ],
)
def test_an_excluded_or_withdrawn_package_does_not_count(session: Session, change: dict[str, object]) -> None:
    session.execute(sa.update(models.RawDataPackage).filter_by(name="m17-1").values(change))
    assert selected(session) == ["m17-2", "saturn"]


@pytest.mark.parametrize("state", [PackageState.WAITING, PackageState.TRANSFERRING, PackageState.FAILED])
def test_only_archived_packages_count(session: Session, state: PackageState) -> None:
    scan = session.scalars(sa.select(models.RawDataPackage).filter_by(name="m17-1")).one()
    package = models.RawDataPackage(
        executed_obs_unit_id=scan.executed_obs_unit_id,
        instrument_module_id=scan.instrument_module_id,
        name="on its way",
        part=2,
    )
    session.add(package)
    session.flush()
    if state is not PackageState.WAITING:
        advance(session, models.RawDataPackage, [package.id], to=state, because="a test", by="a test")
    assert selected(session) == [*M17, "saturn"]


DIMENSIONS = [name for name in dimensions() if "." not in name]


def test_dimensions_say_identity_and_label_of_each_package(session: Session) -> None:
    rows = session.execute(select_packages(AllOf(()), DIMENSIONS, now=MORNING)).mappings().all()
    first, last = rows[0], rows[-1]
    assert {name: first[f"{name}_label"] for name in DIMENSIONS} == {
        "executed_obs_unit": "2026-04-05 04:30:00+00",
        "obs_unit": "M17 map",
        "source": "M17",
        "instrument": "CHAI",
        "instrument_module": "LFA",
        "observing_program": "Cal",
        "observing_night": "2026-04-04",
    }
    assert first["observing_night_value"] == "2026-04-04"
    differs = {name for name in DIMENSIONS if first[f"{name}_value"] != last[f"{name}_value"]}
    assert differs == set(DIMENSIONS) - {"instrument"}


def test_renaming_a_source_changes_its_label_only(session: Session) -> None:
    before = session.execute(select_packages(AllOf(()), ["source"], now=MORNING)).first()
    session.scalars(sa.select(models.Source).filter_by(name="M17")).one().name = "Omega Nebula"
    after = session.execute(select_packages(AllOf(()), ["source"], now=MORNING)).first()
    assert before
    assert after
    assert after.source_label == "Omega Nebula"
    assert after.source_value == before.source_value


EXAMPLE = [
    {"table": "Source", "column": "name", "operator": "eq", "value": "M17"},
    {"table": "ObsUnit", "column": "line_id", "operator": "eq", "value": "CO43"},
    {"table": "InstrumentModule", "column": "name", "operator": "eq", "value": "LFA"},
    {"table": "RawDataPackage", "column": "state", "operator": "eq", "value": "archived"},
]
"""As the reference system publishes it, with the name of one of our modules."""


def test_the_published_example_works_as_it_stands(session: Session) -> None:
    assert selected(session, *EXAMPLE) == M17


RULES: list[dict[str, Any]] = [
    EXAMPLE[0],
    {"any": [EXAMPLE[1], {"not": {"table": "ObsUnit", "column": "line_id", "operator": "is_null", "value": True}}]},
    {"table": "ExecutedObsUnit", "column": "started_at", "operator": "gte", "value": {"now": "-7d"}},
    {"table": "RawDataPackage", "column": "part", "operator": "between", "value": [1, 2]},
    {"table": "RawDataPackage", "column": "state", "operator": "in", "value": ["archived"]},
    {"table": "Source", "column": "name", "operator": "gte", "value": "M"},
    {"not": {"table": "RawDataPackage", "column": "metadata", "operator": "contains", "value": {"a": [1]}}},
    {
        "table": "RawDataPackage",
        "column": "metadata",
        "operator": "not_in",
        "value": ["x", 1, True],
        "json_path": "a",
    },
    {
        "any": [
            {"table": "RawDataPackage", "column": "metadata", "operator": "lt", "value": 500, "json_path": "ghz"},
            {"table": "Source", "column": "name", "operator": "eq", "value": "M17"},
        ]
    },
    {"cone": {"ra_deg": 10, "dec_deg": -20, "radius_deg": 0.5}},
]


def test_rules_are_told_in_one_sentence_and_as_sql(session: Session) -> None:
    checked = check_rules(parse_rules(RULES), catalogue())
    assert sentence(checked) == (
        "Archived packages for which Source.name is `M17` and (ObsUnit.line_id is `CO43` or it is not so that "
        "ObsUnit.line_id is missing) and ExecutedObsUnit.started_at is at least 7 days ago and RawDataPackage.part is "
        "between 1 and 2 and RawDataPackage.state is one of `archived` and Source.name is at least `M` and it is not "
        'so that RawDataPackage.metadata contains {"a": [1]} and RawDataPackage.metadata.a is none of `x`, 1, true and '
        "(RawDataPackage.metadata.ghz is below 500 or Source.name is `M17`) and the source is within 0.5° of "
        "RA 10°, Dec -20°."
    )
    assert sentence(AllOf(())) == "All archived packages."
    text = as_sql(checked, now=MORNING)
    assert [row.name for row in session.execute(sa.text(text.replace(":", r"\:")))] == selected(session, *RULES)


def test_a_percent_sign_stands_once_in_the_sql_that_people_see() -> None:
    rule = {"table": "Source", "column": "name", "operator": "like", "value": "M1%"}
    assert "LIKE 'M1%'" in as_sql(check_rules(parse_rules([rule]), catalogue()), now=MORNING)


def test_a_step_may_divide_by_any_column_that_is_one_value_for_a_package(session: Session) -> None:
    names = list(dimensions())
    [first, *_] = session.execute(select_packages(AllOf(()), names, now=MORNING)).mappings()
    assert (first["ObsUnit.line_id_value"], first["ObsUnit.line_id_label"]) == ("CO43", "CO43")
    assert first["InstrumentModule.Instrument.Telescope.name_value"] == "FYST"
    assert first["SolarSystemObject.naif_id_value"] is None
    assert not {name for name in names if name.startswith("RawDataFile.")}
    assert "RawDataPackage.metadata" not in names
