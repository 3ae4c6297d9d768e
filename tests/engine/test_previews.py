"""What people are shown of a grouping before anything is made of it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.grouping.checking import check_rules
from ccat_ops_db.grouping.compile import select_packages
from ccat_ops_db.grouping.keys import DimensionValue, name_sub_group
from ccat_ops_db.grouping.paths import catalogue
from ccat_ops_db.grouping.rules import InvalidRule, parse_rules
from ccat_ops_db.queries import previews
from ccat_ops_db.queries.previews import Counts, InvalidDimensions, Preview, PreviewedSubGroup, preview
from ccat_ops_db.session import transaction
from tests.engine.conftest import OpsDb
from tests.engine.database import archive, plan

NOW = datetime(2026, 4, 20, 12, tzinfo=UTC)
SOURCES = 8
PACKAGES = 120


@pytest.fixture(scope="module")
def observed(clean_ops_db: OpsDb) -> Iterator[Session]:
    """Fifteen scans of each of eight sources, in turn, one every hour; a spectral line is named for half of them."""
    with clean_ops_db() as engine, transaction(engine) as session:
        for number in range(SOURCES):
            plan(session, f"map {number}", source=f"S{number}")
        session.execute(sa.update(models.ObsUnit).where(models.ObsUnit.id % 2 == 0).values(line_id="CO43"))
        for number in range(PACKAGES):
            at = NOW - timedelta(hours=PACKAGES - number)
            archive(session, f"p{number}", observation=f"map {number % SOURCES}", at=at)
        session.execute(sa.text("ANALYZE"))
        yield session
        session.rollback()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is found quickly, as in a large database."""
    monkeypatch.setattr(previews, "_QUICK", 0.0)


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, and a sample is 60 packages, of which eight of a sub-group are enough to judge its size by."""
    monkeypatch.setattr(previews, "_QUICK", 0.0)
    monkeypatch.setattr(previews, "_DRAWN", 60)
    monkeypatch.setattr(previews, "_TELLING", 8)


def source(name: str) -> dict[str, Any]:
    return {"table": "Source", "column": "name", "operator": "eq", "value": name}


def read_one_by_one(session: Session, rules: list[Any], group_by: list[str]) -> dict[str, int]:
    """Sub-groups and their numbers of packages, as the runs of a pipeline would have them."""
    checked = check_rules(parse_rules(rules), catalogue())
    found: dict[str, int] = {}
    for row in session.execute(select_packages(checked, group_by, now=NOW)):
        values = [DimensionValue(*pair) for pair in zip(row[4::2], row[5::2], strict=True)]
        key = name_sub_group(list(zip(group_by, values, strict=True))).key
        found[key] = found.get(key, 0) + 1
    return found


RECENT = {"table": "ExecutedObsUnit", "column": "started_at", "operator": "gt", "value": {"now": "-25h"}}
CONE = {"cone": {"ra_deg": 10, "dec_deg": -20, "radius_deg": 1}}
SELECTIONS: list[tuple[list[Any], list[str]]] = [
    ([], []),
    ([], ["source"]),
    ([source("S3")], ["observing_night", "source"]),
    ([RECENT], ["ObsUnit.line_id"]),
    ([{"not": RECENT}, {"any": [source("S1"), source("S2")]}], ["executed_obs_unit"]),
    ([CONE], ["instrument_module", "ExecutedObsUnit.started_at", "RawDataPackage.state"]),
    ([source("nowhere")], []),
    ([source("nowhere")], ["source"]),
]


@pytest.mark.parametrize(("rules", "group_by"), SELECTIONS)
@pytest.mark.parametrize("exact", [True, False])
def test_sub_groups_are_those_that_runs_would_have(
    observed: Session, rules: list[Any], group_by: list[str], *, exact: bool
) -> None:
    expected = read_one_by_one(observed, rules, group_by)
    found = preview(observed, rules, group_by, now=NOW, limit=PACKAGES, exact=exact)
    assert [(one.key, one.packages) for one in found.first] == list(expected.items())
    assert {one.counts for one in found.first} <= {Counts.EXACT}
    assert (found.counts, found.packages, found.packages_margin) == (Counts.EXACT, sum(expected.values()), 0)
    assert found.sub_groups == len(expected)


@pytest.mark.parametrize(("rules", "group_by"), SELECTIONS)
@pytest.mark.usefixtures("slow")
def test_a_sample_of_all_finds_the_same(observed: Session, rules: list[Any], group_by: list[str]) -> None:
    expected = read_one_by_one(observed, rules, group_by)
    found = preview(observed, rules, group_by, now=NOW, limit=PACKAGES)
    assert found.counts is Counts.ESTIMATED
    assert (found.packages, found.packages_margin, found.sub_groups) == (sum(expected.values()), 0, len(expected))
    assert [(one.key, one.packages) for one in found.first] == list(expected.items())
    assert Counts.EXACT not in {one.counts for one in found.first}


@pytest.mark.usefixtures("sampled")
def test_a_sample_says_what_its_numbers_are_worth(observed: Session) -> None:
    found = preview(observed, [], ["source"], now=NOW)
    assert found == preview(observed, [], ["source"], now=NOW)  # the same packages are drawn each time
    assert (found.counts, found.packages) == (Counts.ESTIMATED, PACKAGES)
    assert found.packages_margin == 3
    assert found.sub_groups == len(found.first) == SOURCES
    for one in found.first:
        assert (one.packages >= 16) == (one.counts is Counts.ESTIMATED), one
        assert (one.packages < 8) == (one.counts is Counts.AT_LEAST), one
    assert {one.counts for one in found.first} == {Counts.ESTIMATED, Counts.AT_LEAST}


@pytest.mark.parametrize(("dimension", "number"), [("source", SOURCES), ("ObsUnit.line_id", 2)])
def test_sub_groups_of_a_sample_are_counted_where_that_is_quick(
    observed: Session, monkeypatch: pytest.MonkeyPatch, dimension: str, number: int
) -> None:
    answers = iter([False, True])
    monkeypatch.setattr(previews, "_is_quick", lambda *_: next(answers))
    monkeypatch.setattr(previews, "_DRAWN", 30)
    found = preview(observed, [], [dimension], now=NOW)
    assert found.counts is Counts.ESTIMATED
    assert found.sub_groups == number
    assert {(one.packages, one.counts) for one in found.first} == {(PACKAGES // number, Counts.EXACT)}


@pytest.mark.usefixtures("sampled")
def test_what_a_sample_never_met_may_be_there_all_the_same(observed: Session) -> None:
    assert preview(observed, [source("nowhere")], ["source"], now=NOW) == Preview(
        Counts.ESTIMATED, 0, packages_margin=3, sub_groups=0, first=[]
    )


@pytest.mark.parametrize("exact", [True, False])
def test_only_the_first_sub_groups_are_shown_and_all_are_counted(observed: Session, *, exact: bool) -> None:
    found = preview(observed, [], ["executed_obs_unit"], now=NOW, exact=exact)
    assert (len(found.first), found.sub_groups) == (50, PACKAGES)
    assert found.first[0].labels == {"executed_obs_unit": f"{NOW - timedelta(hours=PACKAGES):%F %T}+00"}


def test_no_value_makes_a_sub_group_too(observed: Session) -> None:
    found = preview(observed, [source("S0")], ["ObsUnit.sub_observing_program_id"], now=NOW)
    key = "ObsUnit.sub_observing_program_id"
    assert found.first == [PreviewedSubGroup(f"{key}=~", {key: None}, PACKAGES // SOURCES, Counts.EXACT)]


def test_without_rules_and_dimensions_all_is_one(observed: Session) -> None:
    assert preview(observed, [], [], now=NOW).first == [PreviewedSubGroup("all", {}, PACKAGES, Counts.EXACT)]


def test_rules_may_be_presets(observed: Session) -> None:
    found = preview(observed, [{"preset": "by-source", "with": {"source": "S5"}}], ["source"], now=NOW)
    assert [(one.labels, one.packages) for one in found.first] == [({"source": "S5"}, PACKAGES // SOURCES)]


@pytest.mark.parametrize(
    ("rules", "group_by", "error", "message"),
    [
        (
            [],
            ["sorce"],
            InvalidDimensions,
            "group_by[0]: there is no dimension `sorce`. Did you mean `source`?",
        ),
        (
            [],
            ["source", "ObsUnit.lineid", "source"],
            InvalidDimensions,
            (
                "group_by[1]: there is no dimension `ObsUnit.lineid`. Did you mean `ObsUnit.line_id`?\n"
                "group_by[2]: `source` stands twice."
            ),
        ),
        (
            [source("S1") | {"table": "Sorce"}],
            [],
            InvalidRule,
            "rules[0].table: there is no table `Sorce`. Did you mean `Source`?",
        ),
        (
            [{"preset": "by-sorce"}],
            [],
            InvalidRule,
            "rules[0].preset: there is no preset `by-sorce`. Did you mean `by-source`?",
        ),
        (
            [{"preset": "cone", "with": {"ra_deg": 1, "dec_deg": 2, "radius_deg": -1}}],
            [],
            InvalidRule,
            "rules[0].with.radius_deg: it is a number of degrees from 0 to 180, not -1.",
        ),
        ({"any": []}, [], InvalidRule, 'rules: it is a list of rules, not {"any": []}.'),
    ],
)
def test_what_cannot_be_meant_is_refused(
    observed: Session, rules: Any, group_by: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as refused:
        preview(observed, rules, group_by, now=NOW)
    assert str(refused.value) == message
