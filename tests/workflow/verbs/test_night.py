"""`ccat night`: what became of an observing night, in one screen."""

import json
from datetime import date

import pytest
import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.plan.nights import Night, Observed
from ccat_ops_db.queries.night import look_up_night
from ccat_ops_db.verbs.pausing import pause, resume
from tests.workflow.verbs.conftest import Say
from tests.workflow.verbs.works import Works

CALIBRATE = {"key": "calibrate", "group_by": ["executed_obs_unit"], "max_retries": 0}
GRID = {"key": "grid", "group_by": ["source"], "depends_on": ["calibrate"]}
NO_LINES = (
    'text=$(cat $(find -L "$WORKFLOW_INPUT_DIR" -type f)); [ "$text" != bad ] || { echo "no lines" >&2; exit 65; }; '
)
FIRST, SECOND = "2026-04-04", "2026-04-05"


def look(works: Works, night: str | None = None) -> Night:
    return works.session(lambda session: look_up_night(session, date.fromisoformat(night) if night else None))


def places(found: Night) -> dict[str, dict[str, int]]:
    return {one.step: {str(place): number for place, number in one.places.items()} for one in found.steps}


def whys(found: Night) -> list[tuple[str, str, int, str]]:
    return [(one.where, one.place, one.number, one.sentence) for one in found.hindrances]


@pytest.fixture
def two_nights(works: Works) -> Works:
    """A night without trouble, and one of whose three scans one cannot be calibrated."""
    works.define(CALIBRATE, GRID, scripts={"calibrate": f'{NO_LINES}echo "$text" >"$WORKFLOW_OUTPUT_DIR/out.txt"'})
    works.observe("first", source="Saturn")
    for text in ("good", "bad", "fine"):
        works.observe(text, source="M17", night=1)
    works.settle()
    return works


def test_a_night_says_what_was_observed_archived_and_reduced_and_what_is_in_the_way(
    two_nights: Works, say: Say
) -> None:
    found = look(two_nights)
    assert str(found.night) == SECOND
    assert (found.is_complete, found.verdict) == (False, "3 of 3 scans not done: 3 not reduced")
    assert found.observed == [Observed(instrument="CHAI", source="M17", scans=3, files=3, size_bytes=11)]
    assert found.packages == {"archived": 3}
    assert places(found) == {"calibrate": {"reduced": 2, "failed": 1}, "grid": {"blocked": 1}}
    assert whys(found) == [
        ("toy/calibrate", "failed", 1, "no lines"),
        ("toy/grid", "blocked", 1, "waits for what failed or was cancelled upstream"),
    ]
    said = say("night").stdout
    assert said.startswith("night of 2026-04-05: 3 of 3 scans not done: 3 not reduced\n")
    assert "2 of 3 reduced, 1 failed" in said
    assert "████████████████████!!!!!!!!!!" in said
    told = json.loads(say("night", SECOND, "--json").stdout)
    assert (told["verdict"], told["steps"][0]["places"]) == (found.verdict, {"reduced": 2, "failed": 1})
    night = look(two_nights, FIRST)
    assert night.verdict == "complete: its one scan is archived and reduced"
    assert whys(night) == []
    [bad] = two_nights.all_of(sa.select(models.RawDataFile.raw_data_package_id).filter_by(size_bytes=len("bad")))
    two_nights.exclude(bad or 0)
    two_nights.settle()
    found = look(two_nights, SECOND)
    assert found.verdict == "complete: all 3 scans are archived and reduced"
    assert found.packages == {"archived": 2, "excluded": 1}
    assert whys(found) == []


def test_what_goes_on_is_told_apart_from_what_is_stuck(works: Works, say: Say) -> None:
    assert look(works).verdict == "nothing was ever observed"
    assert say("night", "2020-01-01").stdout == "night of 2020-01-01: no scan was taken\n"
    works.define(CALIBRATE, GRID)
    works.archived("one", "two")
    works.create()
    assert places(look(works)) == {"calibrate": {"waiting": 2}, "grid": {"blocked": 1}}
    assert whys(look(works)) == [
        ("toy/calibrate", "waiting", 2, "is about to start"),
        ("toy/grid", "blocked", 1, "waits for what is still to be made upstream"),
    ]
    works.session(lambda session: pause(session, pipeline="toy", location=None, because="clouds", by="a test"))
    works.advance()
    assert "clouds" in look(works).hindrances[0].sentence
    works.session(lambda session: resume(session, pipeline="toy", location=None))
    works.advance()
    assert places(look(works))["calibrate"] == {"running": 2}


def test_what_waits_for_nothing_upstream_says_for_what_it_waits(works: Works) -> None:
    works.define(CALIBRATE)
    works.archived("one", "two")
    works.execute(sa.update(models.ReductionSoftwareVersion).values(state="retired"))
    works.create()
    assert whys(look(works)) == [
        ("toy/calibrate", "blocked", 2, "waits for a version of toy-calibrate to be released"),
    ]


def test_scans_that_have_not_ended_or_are_not_in_the_archive_are_not_done(works: Works) -> None:
    works.archived("one", "two", "three")
    scans = works.all_of(sa.select(models.ExecutedObsUnit.id).order_by(models.ExecutedObsUnit.started_at))
    scan, package = models.ExecutedObsUnit, models.RawDataPackage
    works.execute(sa.update(scan).where(scan.id == scans[0]).values(ended_at=None))
    failed = sa.update(package).where(package.executed_obs_unit_id == scans[1])
    works.execute(failed.values(state="failed", archived_at=None, failure="its copy 17 is damaged"))
    assert look(works).verdict == "2 of 3 scans not done: 1 not ended, 1 not in the archive"
    assert whys(look(works)) == [("raw packages", "failed", 1, "its copy 17 is damaged")]


def test_a_scan_of_which_files_are_lacking_is_not_in_the_archive(works: Works) -> None:
    works.observe("one")
    works.execute(sa.update(models.ExecutedObsUnit).values(expected_files=10))
    assert look(works).verdict == "1 of 1 scans not done: 1 not in the archive"


def test_what_nobody_has_divided_into_sub_groups_is_not_said_to_be_reduced(works: Works) -> None:
    works.archived("one")
    found = look(works)
    assert (found.is_complete, found.verdict) == (
        False,
        "its one scan is archived and not reduced, as none is taken by a pipeline that runs by itself",
    )
    works.define(CALIBRATE)
    assert look(works).verdict == "1 of 1 scans not done: 1 not looked at yet by a trigger-manager"
    works.create()
    assert look(works).verdict == "1 of 1 scans not done: 1 not reduced"
    works.archived("two")
    assert look(works).verdict == ("2 of 2 scans not done: 1 not looked at yet by a trigger-manager, 1 not reduced")
    works.execute(sa.update(models.Pipeline).values(enabled=False))
    assert not look(works).is_complete
    assert "all 2 scans are archived and not reduced" in look(works).verdict


def test_a_night_is_not_complete_while_what_changed_long_ago_is_not_looked_at(two_nights: Works) -> None:
    an_hour_ago = sa.func.now() - sa.text("interval '1 hour'")
    change = {"noun": "raw_data_package", "object_id": "1", "created_at": an_hour_ago}
    two_nights.execute(sa.insert(models.PendingChange).values(**change))
    found = look(two_nights, FIRST)
    assert not found.is_complete
    assert found.verdict.endswith("but what changed since is not looked at yet: is a trigger-manager up?")


def test_a_day_that_is_none_is_refused_as_usage(say: Say) -> None:
    assert say("night", "yesterday").exit_code == 2
