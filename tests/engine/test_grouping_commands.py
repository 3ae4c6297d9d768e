"""What `ccat grouping` prints, for people and for programs."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

from ccat.cli import app
from ccat_ops_db import models
from ccat_ops_db.queries import previews
from ccat_ops_db.session import transaction
from tests.engine.conftest import OpsDb
from tests.engine.database import archive, plan

GROUPINGS = {"everything": [], "m17": ["M17"], "nothing": ["Sgr B2"]}


def rules(*sources: str) -> list[dict[str, Any]]:
    return [{"table": "Source", "column": "name", "operator": "eq", "value": name} for name in sources]


@pytest.fixture(scope="module")
def database(clean_ops_db: OpsDb) -> Iterator[str]:
    """Address of a database with three packages and three groupings, one of which had other rules before."""
    with clean_ops_db() as engine:
        with transaction(engine) as session:
            for source, number in (("M17", 2), ("Saturn", 1)):
                plan(session, f"{source} map", source=source)
                for hour in range(number):
                    at = datetime(2026, 4, 5, hour, tzinfo=UTC)
                    archive(session, f"{source}-{hour}", observation=f"{source} map", at=at)
            for name, sources in GROUPINGS.items():
                grouping = models.DataGrouping(name=name)
                for number, written in enumerate([rules("before"), rules(*sources)], start=1):
                    digest = f"sha256:{number:064}"
                    revision = models.DataGroupingRevision(number=number, filter_rules=written, digest=digest)
                    revision.data_grouping = grouping
                    session.add(revision)
        yield engine.url.render_as_string(hide_password=False)


@pytest.fixture
def run(database: str) -> Any:
    """`ccat grouping WORDS…`."""

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(app, ["grouping", *words], env={"CCAT_OPS_DB_URL": database})

    return invoke


def test_a_preview_shows_the_sub_groups_with_their_keys(run: Any, database: str) -> None:
    engine = sa.create_engine(database)
    with engine.connect() as connection:
        m17, saturn = connection.scalars(sa.select(models.ObsUnit.source_id).order_by(models.ObsUnit.id))
    engine.dispose()
    title, header, *lines = run(
        "preview", "everything", "--by", "source", "--by", "observing_night"
    ).stdout.splitlines()
    assert title == "Packages: 3, sub-groups: 2."
    assert header.split() == ["sub_group", "packages", "key"]
    assert [line.split() for line in lines] == [
        ["M17,", "2026-04-04", "2", f"source={m17},observing_night=2026-04-04"],
        ["Saturn,", "2026-04-04", "1", f"source={saturn},observing_night=2026-04-04"],
    ]


def test_without_a_dimension_all_is_one_sub_group_by_the_newest_rules(run: Any) -> None:
    title, _, line = run("preview", "m17", "--exact").stdout.splitlines()
    assert title == "Packages: 2, sub-groups: 1."
    assert line.split() == ["all", "2", "all"]


def test_a_grouping_that_matches_nothing_says_so(run: Any) -> None:
    assert run("preview", "nothing").stdout == "No archived package matches all of its rules.\n"


def test_numbers_that_rest_on_a_sample_are_marked(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previews, "_QUICK", 0.0)
    monkeypatch.setattr(previews, "_TELLING", 2)
    monkeypatch.setattr(previews, "_DRAWN", 3)
    title, _, *lines = run("preview", "everything", "--by", "source").stdout.splitlines()
    assert title == "Packages: about 3 (±0), sub-groups: about 2, judged by a sample. --exact counts them."
    assert [line.split()[:-1] for line in lines] == [["M17", "about", "2"], ["Saturn", "at", "least", "1"]]
    monkeypatch.setattr(previews, "_DRAWN", 1)
    said = "No package of a sample matches all of its rules; there are about 6 at most. --exact counts them.\n"
    assert run("preview", "nothing").stdout == said


def test_programs_get_a_preview_as_json(run: Any) -> None:
    assert json.loads(run("preview", "m17", "--by", "instrument_module", "--json").stdout) == {
        "grouping": "m17",
        "group_by": ["instrument_module"],
        "counts": "exact",
        "packages": 2,
        "packages_margin": 0,
        "sub_groups": 1,
        "first": [
            {"key": "instrument_module=1", "labels": {"instrument_module": "LFA"}, "packages": 2, "counts": "exact"}
        ],
    }


def test_a_grouping_is_explained_with_its_number_of_packages(run: Any) -> None:
    explained = json.loads(run("explain", "m17", "--json").stdout)
    assert (explained["selects"], explained["packages"]) == ("Archived packages for which Source.name is `M17`.", 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("m71",), "There is no grouping `m71`. Did you mean `m17`?"),
        (
            ("m17", "--by", "observing_nihgt"),
            "group_by[0]: there is no dimension `observing_nihgt`. Did you mean `observing_night`?",
        ),
        (
            ("m17", "--by", "Source.nmae"),
            "group_by[0]: there is no dimension `Source.nmae`. Did you mean `Source.name`?",
        ),
    ],
)
def test_what_does_not_exist_is_told_with_the_nearest_name(run: Any, words: tuple[str, ...], message: str) -> None:
    done = run("preview", *words)
    assert (done.exit_code, done.stderr) == (1, f"error: {message}\n")
