"""Random rules over random packages select in SQL what they select when they are read word by word."""

import math
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.grouping.checking import check_rules
from ccat_ops_db.grouping.compile import select_packages
from ccat_ops_db.grouping.paths import catalogue
from ccat_ops_db.grouping.rules import parse_rules
from ccat_ops_db.session import transaction
from tests.engine.conftest import OpsDb
from tests.engine.database import archive, plan

NOW = datetime(2026, 4, 20, 12, tzinfo=UTC)
POSITIONS = [(0.0, 0.0), (359.99, 0.2), (0.01, -0.2), (180.0, 89.95), (10.0, 89.9), (77.0, -90.0), (120.0, 45.0)]
LINES = [None, "CO43", "CO76", "co43", "50%_x", "Éa", "éa", "za", "a\\b"]
METADATA: list[dict[str, Any]] = [
    {},
    {"band": "LFA", "ghz": 461},
    {"band": "HFA", "ghz": 806.5, "tags": ["otf", "deep"]},
    {"band": None, "ghz": "461"},
    {"band": 7, "ghz": True, "deep": {"x": [1, {"y": "z"}]}},
    {"band": "L%", "tags": "otf run"},
    {"band": True, "ghz": 10**400, "tags": [1, True]},
    {"band": 1, "ghz": 2**63, "tags": "Éa"},
]
FILES = [[], ["a.fits"], ["b/c.fits", "d.fits"]]


@dataclass
class Package:
    """What the oracle knows of a package: `table.column` → value, or the values of several rows."""

    name: str
    facts: dict[str, Any]
    files: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def world(clean_ops_db: OpsDb) -> Iterator[tuple[Session, list[Package]]]:
    chance = random.Random(7)  # noqa: S311 - made anew alike
    with clean_ops_db() as engine, transaction(engine) as session:
        session.add(models.SolarSystemObject(name="Mars"))
        sources = [f"S{number}" for number in range(len(POSITIONS))]
        for name, (ra, dec) in zip(sources, POSITIONS, strict=True):
            session.add(models.FixedSource(name=name, ra_deg=ra, dec_deg=dec))
        session.flush()
        packages = [_package(session, chance, f"p{number}", chance.choice([*sources, "Mars"])) for number in range(40)]
        yield session, packages
        session.rollback()


def _package(session: Session, chance: random.Random, name: str, source: str) -> Package:
    line, metadata = chance.choice(LINES), chance.choice(METADATA)
    at = NOW - timedelta(hours=chance.randrange(0, 400))
    plan(session, f"unit {name}", source=source)
    unit = session.scalars(sa.select(models.ObsUnit).filter_by(name=f"unit {name}")).one()
    unit.line_id = line
    package = session.get_one(models.RawDataPackage, archive(session, name, observation=unit.name, at=at))
    package.metadata_ = metadata
    files = chance.choice(FILES)
    for path in files:
        session.add(
            models.RawDataFile(
                id=uuid.UUID(int=chance.getrandbits(128)),
                executed_obs_unit_id=package.executed_obs_unit_id,
                instrument_module_id=package.instrument_module_id,
                raw_data_package_id=package.id,
                relative_path=path,
                size_bytes=1,
                checksum=f"sha256:{'0' * 64}",
            )
        )
    session.flush()
    position = dict(zip([f"S{n}" for n in range(len(POSITIONS))], POSITIONS, strict=True)).get(source)
    facts = {
        "Source.name": source,
        "ObsUnit.line_id": line,
        "ExecutedObsUnit.started_at": at,
        "ExecutedObsUnit.observing_night": package.executed_obs_unit.observing_night,
        "FixedSource.ra_deg": position and position[0],
        "FixedSource.dec_deg": position and position[1],
        "RawDataPackage.metadata": metadata,
    }
    return Package(name, facts, files)


# The oracle


def selects(rule: Any, package: Package) -> bool:
    """What a rule says of a package, read word by word."""
    if "any" in rule:
        return any(selects(one, package) for one in rule["any"])
    if "all" in rule:
        return all(selects(one, package) for one in rule["all"])
    if "not" in rule:
        return not selects(rule["not"], package)
    if "cone" in rule:
        return _in_cone(rule["cone"], package)
    return _holds(rule, package)


def _holds(rule: dict[str, Any], package: Package) -> bool:
    if rule["table"] == "RawDataFile":
        return any(_compare(rule, path) for path in package.files)
    found = package.facts[f"{rule['table']}.{rule['column']}"]
    if "json_path" in rule:
        return _compare_json(rule, _dig(found, rule["json_path"]))
    return _contains(found, rule["value"]) if rule["column"] == "metadata" else _compare(rule, found)


def _in_cone(cone: dict[str, float], package: Package) -> bool:
    ra, dec = package.facts["FixedSource.ra_deg"], package.facts["FixedSource.dec_deg"]
    if ra is None:
        return False
    one, other = _vector(ra, dec), _vector(cone["ra_deg"], cone["dec_deg"])
    across = math.dist(one, other) / 2
    return math.degrees(2 * math.asin(min(1, across))) <= cone["radius_deg"] + 1e-9


def _vector(ra_deg: float, dec_deg: float) -> tuple[float, float, float]:
    ra, dec = math.radians(ra_deg), math.radians(dec_deg)
    return math.cos(dec) * math.cos(ra), math.cos(dec) * math.sin(ra), math.sin(dec)


def _resolved(value: Any, like: Any) -> Any:
    if isinstance(value, dict):
        moment = NOW + timedelta(hours=int(value["now"][:-1]))
        return moment if isinstance(like, datetime) else moment.date()
    if isinstance(value, str) and isinstance(like, datetime):
        return datetime.fromisoformat(value)
    return date.fromisoformat(value) if isinstance(value, str) and isinstance(like, date) else value


ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "gt": lambda found, value: found > value,
    "gte": lambda found, value: found >= value,
    "lt": lambda found, value: found < value,
    "lte": lambda found, value: found <= value,
    "between": lambda found, value: value[0] <= found <= value[1],
}


def _like(text: str, pattern: str) -> bool:
    """SQL's LIKE, letter by letter."""
    if not pattern:
        return not text
    if pattern[0] == "\\":
        return bool(text) and pattern[1] == text[0] and _like(text[1:], pattern[2:])
    if pattern[0] == "%":
        return any(_like(text[n:], pattern[1:]) for n in range(len(text) + 1))
    return bool(text) and pattern[0] in {"_", text[0]} and _like(text[1:], pattern[1:])


def _compare(rule: dict[str, Any], found: Any) -> bool:
    operator, said = rule["operator"], rule["value"]
    value: Any = [_resolved(one, found) for one in said] if isinstance(said, list) else _resolved(said, found)
    if operator == "is_null":
        return (found is None) is value
    if found is None:
        return operator in {"neq", "not_in"}
    if operator in ORDER:
        return ORDER[operator](found, value)
    simple: dict[str, Callable[[], bool]] = {
        "eq": lambda: found == value,
        "neq": lambda: found != value,
        "in": lambda: found in value,
        "not_in": lambda: found not in value,
        "like": lambda: _like(found, value),
        "ilike": lambda: _like(found.lower(), value.lower()),
        "contains": lambda: value in found,
    }
    return simple[operator]()


MISSING = object()


def _dig(found: Any, path: str) -> Any:
    for part in path.split("."):
        if isinstance(found, list) and part.isdigit() and int(part) < len(found):
            found = found[int(part)]
        elif isinstance(found, dict) and part in found:
            found = found[part]
        else:
            return MISSING
    return found


def _same(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) is isinstance(other, bool)


def _contains(found: Any, value: Any) -> bool:
    """Whether each part of a mapping or list is part of another one."""
    if isinstance(value, dict):
        return isinstance(found, dict) and all(key in found and _contains(found[key], value[key]) for key in value)
    if isinstance(value, list):
        return isinstance(found, list) and all(any(_contains(one, part) for one in found) for part in value)
    return _same(found, value)


def _compare_json(rule: dict[str, Any], found: Any) -> bool:
    operator, value = rule["operator"], rule["value"]
    values = value if isinstance(value, list) else [value]
    if operator in {"eq", "in"}:
        return any(_same(found, one) for one in values)
    if operator in {"neq", "not_in"}:
        return not any(_same(found, one) for one in values)
    if operator == "is_null":
        return (found is MISSING or found is None) is value
    if operator == "contains":
        if isinstance(found, str) and isinstance(value, str):
            return value in found
        is_within = not isinstance(value, dict | list) and isinstance(found, list)
        return any(_same(one, value) for one in found) if is_within else _contains(found, value)
    kind = str if isinstance(values[0], str) else (int, float)
    return isinstance(found, kind) and not isinstance(found, bool) and _compare(rule, found)


# Random rules

HOURS = st.integers(-400, 10).map(lambda hours: {"now": f"{hours}h"})
SAID_MOMENTS = st.integers(0, 400).map(lambda hours: (NOW - timedelta(hours=hours)).isoformat())
SAID_NIGHTS = st.integers(0, 18).map(lambda days: (NOW - timedelta(days=days)).date().isoformat())
MOMENTS, NIGHTS = HOURS | SAID_MOMENTS, HOURS | SAID_NIGHTS
NAMES = st.sampled_from(["S0", "S3", "Mars", "s0", "Nowhere"])
LINE = st.sampled_from([*(line for line in LINES if line), "CO", "É"])
PATTERN = st.sampled_from(["S%", "%0", "_ars", "co%", "%43", "50%", "%x", "C_43", "", "50\\%%", "a\\\\%", "a\\b"])
PATH = st.sampled_from(["a.fits", "d.fits", "b/c.fits", "none"])
IN_JSON = st.sampled_from(["LFA", "L%", 461, 806.5, 7, True, "461", "otf", "z", 1, 2**63, 10**400])
PARTS = st.recursive(
    st.sampled_from(["otf", "z", 1, True, "x", None, "LFA"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["x", "y", "band"]), inner, max_size=2),
    max_leaves=3,
).filter(lambda part: isinstance(part, dict | list))
JSON_PATHS = st.sampled_from(["band", "ghz", "tags", "tags.0", "deep.x.1.y", "deep.x", "none.at.all"])


def condition(table: str, column: str, values: st.SearchStrategy[Any], *operators: str) -> st.SearchStrategy[Any]:
    def with_value(operator: str) -> st.SearchStrategy[Any]:
        value = st.lists(values, min_size=1, max_size=3) if operator in {"in", "not_in"} else values
        said = {"table": table, "column": column, "operator": operator}
        return value.map(lambda one: said | {"value": one})

    return st.sampled_from(operators).flatmap(with_value)


def between(table: str, column: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def earlier(value: Any) -> Any:
        return int(value["now"][:-1]) if isinstance(value, dict) else value

    pairs = st.lists(values, min_size=2, max_size=2).map(lambda pair: sorted(pair, key=earlier))
    said = {"table": table, "column": column, "operator": "between"}
    return pairs.map(lambda pair: said | {"value": pair})


def within(conditions: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """The same of what lies within JSON."""
    return st.tuples(conditions, JSON_PATHS).map(lambda both: both[0] | {"json_path": both[1]})


def null(table: str, column: str) -> st.SearchStrategy[Any]:
    return condition(table, column, st.booleans(), "is_null")


EQUAL, ORDERED = ("eq", "neq", "in", "not_in"), ("gt", "gte", "lt", "lte")
METADATA_COLUMN = ("RawDataPackage", "metadata")
NUMBERS, TEXTS = (
    st.sampled_from([461, 500, 806.5, 7, 2**63, -(2**70), 10**400]),
    st.sampled_from(["LFA", "L", "461", "É"]),
)
DEGREES = st.sampled_from([-90.0, 0.0, 0.2, 45, 89.9])
CONDITIONS = st.one_of(
    condition("Source", "name", NAMES, *EQUAL, *ORDERED, "contains"),
    between("Source", "name", NAMES),
    condition("Source", "name", PATTERN, "like", "ilike"),
    condition("ObsUnit", "line_id", LINE, *EQUAL, *ORDERED, "contains"),
    between("ObsUnit", "line_id", LINE),
    condition("ObsUnit", "line_id", PATTERN, "like", "ilike"),
    null("ObsUnit", "line_id"),
    null("FixedSource", "ra_deg"),
    condition("FixedSource", "dec_deg", DEGREES, *EQUAL, *ORDERED),
    between("FixedSource", "dec_deg", DEGREES),
    condition("ExecutedObsUnit", "started_at", MOMENTS, *EQUAL, *ORDERED),
    between("ExecutedObsUnit", "started_at", HOURS) | between("ExecutedObsUnit", "started_at", SAID_MOMENTS),
    condition("ExecutedObsUnit", "observing_night", NIGHTS, *EQUAL, *ORDERED),
    between("ExecutedObsUnit", "observing_night", HOURS) | between("ExecutedObsUnit", "observing_night", SAID_NIGHTS),
    condition("RawDataFile", "relative_path", PATH, *EQUAL, *ORDERED, "contains"),
    within(condition(*METADATA_COLUMN, IN_JSON, *EQUAL, "contains")),
    within(condition(*METADATA_COLUMN, PARTS, "contains")),
    within(condition(*METADATA_COLUMN, NUMBERS | TEXTS, *ORDERED)),
    within(between(*METADATA_COLUMN, NUMBERS) | between(*METADATA_COLUMN, TEXTS)),
    within(null(*METADATA_COLUMN)),
    condition(*METADATA_COLUMN, PARTS, "contains"),
    st.tuples(
        st.sampled_from([0.0, 0.005, 10.0, 179.0, 359.995]),
        st.sampled_from([-90.0, -89.0, -0.1, 0.0, 45.0, 89.97, 90.0]),
        st.sampled_from([0.0, 0.04, 0.25, 1.0, 45.0, 90.0, 180.0]),
    ).map(lambda c: {"cone": {"ra_deg": c[0], "dec_deg": c[1], "radius_deg": c[2]}}),
)
TREES = st.recursive(
    CONDITIONS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda rules: {"any": rules}),
        st.lists(inner, min_size=1, max_size=3).map(lambda rules: {"all": rules}),
        inner.map(lambda rule: {"not": rule}),
    ),
    max_leaves=6,
)


@settings(max_examples=200)
@given(rules=st.lists(TREES, max_size=3))
def test_rules_select_what_they_say(world: tuple[Session, list[Package]], rules: list[Any]) -> None:
    session, packages = world
    checked = check_rules(parse_rules(rules), catalogue())
    found = [row.name for row in session.execute(select_packages(checked, [], now=NOW))]
    assert found == [package.name for package in packages if all(selects(rule, package) for rule in rules)]
