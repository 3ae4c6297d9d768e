"""A person takes a package out of all groupings, and lets it in again."""

import json
import re

from ccat_ops_db import models
from ccat_ops_db.session import transaction
from ccat_ops_db.states import ProductState, RunReason, Verdict
from ccat_ops_db.verbs.excluding import exclude_package
from tests.workflow.verbs.conftest import Say
from tests.workflow.verbs.works import Works

SCAN = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
GRID = {"key": "grid", "group_by": ["source"]}


def test_what_was_made_with_a_package_is_made_again_without_it_and_with_it_again(works: Works, say: Say) -> None:
    works.define(GRID)
    works.observe("one ")
    spoilt = works.observe("two ")
    works.settle()
    assert say("package", "exclude", spoilt, "--because", "clouds").stdout == f"package {spoilt} is excluded\n"
    works.settle()
    run = works.runs()[-1]
    assert (run.reason, works.text(run.products[0])) == (RunReason.INPUTS_CHANGED, "one ")
    [row] = [one for one in json.loads(say("packages", "--json").stdout) if one["id"] == spoilt]
    assert row["excluded"].startswith("clouds (")
    assert say("package", "readmit", spoilt).stdout == f"package {spoilt} is in again\n"
    works.settle()
    assert works.text(works.runs()[-1].products[0]) in {"one two ", "two one "}


def test_what_was_made_of_nothing_else_is_orphaned(works: Works, say: Say) -> None:
    works.define(GRID)
    only = works.observe("one ")
    works.settle()
    say("package", "exclude", only, "--because", "clouds")
    works.settle()
    assert [one.state for one in works.run().products] == [ProductState.ORPHANED]
    assert Verdict.UP_TO_DATE not in {one.verdict for one in works.gap().values()}


def test_what_changes_nothing_is_told(works: Works, say: Say) -> None:
    package = works.observe("one ")
    assert say("package", "readmit", package).stdout == f"package {package} was not excluded\n"
    say("package", "exclude", package, "--because", "clouds")
    again = say("package", "exclude", package, "--because", "wind", "--json")
    assert json.loads(again.stdout) == {"package": package, "changed": False}
    assert say("package", "exclude", package, "--because", "wind").stdout == (
        f"package {package} was excluded already; the first reason stays\n"
    )


def test_a_package_goes_by_its_name_as_well_as_by_its_number(works: Works, say: Say) -> None:
    number = works.observe("one ")
    name = works.all(models.RawDataPackage)[0].name
    assert say("package", "exclude", name, "--because", "clouds").stdout == f"package {name} is excluded\n"
    assert json.loads(say("package", "exclude", number, "--because", "x", "--json").stdout) == {
        "package": number,
        "changed": False,
    }
    assert json.loads(say("package", "readmit", name, "--json").stdout) == {"package": number, "changed": True}
    assert works.all(models.RawDataPackage)[0].excluded_at is None
    assert f"Package {name} is archived" in say("package", "retry", name).stderr


def test_who_looked_a_package_up_before_another_excluded_it_does_not_take_the_first_reason_away(works: Works) -> None:
    number = works.observe("one ")
    with transaction(works.engine) as later:
        seen = later.get_one(models.RawDataPackage, number)
        assert seen.excluded_at is None
        first = works.session(lambda session: exclude_package(session, number, because="clouds", by="me"))
        assert first is not None
        assert exclude_package(later, number, because="wind", by="you") is None
    assert works.all(models.RawDataPackage)[0].excluded_because == f"clouds (me; exclusion {first.id})"


def test_a_package_that_is_not_there_and_a_reason_that_is_empty_are_refused(works: Works, say: Say) -> None:
    unknown = "error: There is no raw package 4711; `ccat packages` lists them.\n"
    assert say("package", "exclude", 4711, "--because", "x").stderr == unknown
    assert say("package", "readmit", 4711).stderr == unknown
    named = "error: There is no raw package `nix`."
    for words in (("exclude", "nix", "--because", "x"), ("readmit", "nix"), ("retry", "nix")):
        refused = say("package", *words)
        assert (refused.exit_code, refused.stderr.startswith(named)) == (1, True)
    package = works.observe("one ")
    assert say("package", "exclude", package, "--because", " ").stderr == (
        "error: Say why, for those who read it later: `--because` is empty. Nothing was excluded.\n"
    )


# Data of a time


SECOND_SCAN = ("--module", "CHAI/LFA", "--from", "2026-04-05T01:02:00Z", "--to", "2026-04-05T03:03:00+02:00")


def test_what_was_made_with_bad_data_is_made_again_without_and_with_it_once_it_is_let_in(
    works: Works, say: Say
) -> None:
    works.define(SCAN, {**GRID, "depends_on": ["calibrate"]})
    works.observe("good ")
    works.observe("bad ")
    works.settle()
    assert works.text(works.runs()[-1].products[0]) in {"good bad ", "bad good "}
    asked = say("exclude", *SECOND_SCAN, "--because", "wet window", "--dry-run").stdout
    assert asked.splitlines()[1:] == [
        "toy/calibrate: 1 sub-group with them, 1 of which would be left with nothing",
        "toy/grid: 1 sub-group with them",
        "toy/grid: 1 run: inputs_changed",
    ]
    assert say("exclusions").stdout == "0 exclusions\n"
    told = say("exclude", *SECOND_SCAN, "--because", "wet window").stdout
    assert re.fullmatch(r"exclusion \d+ keeps out 1 raw package, .+, and what comes later\n", told)
    works.settle()
    states = {works.text(one).strip(): one.state for run in works.runs() for one in run.products}
    assert (states["bad"], states["good"]) == (ProductState.ORPHANED, ProductState.CURRENT)
    again = works.runs()[-1]
    assert (works.text(again.products[0]), again.reason) == ("good ", RunReason.INPUTS_CHANGED)
    [listed] = json.loads(say("exclusions", "--json").stdout)
    assert (
        f"wet window ({listed['by']}; exclusion {listed['id']})"
        in json.loads(say("packages", "--json").stdout)[0]["excluded"]
    )
    assert "excluded since run" in say("run", "why", again.id).stdout
    assert say("readmit", listed["id"], "--because", "it was dry").stdout.endswith("is lifted\n")
    works.settle()
    assert works.text(works.runs()[-1].products[0]) in {"good bad ", "bad good "}
    assert say("readmit", listed["id"], "--because", "x").stdout == (
        f"exclusion {listed['id']} was lifted before; the first reason stays\n"
    )
    [kept] = json.loads(say("exclusions", "--all", "--json").stdout)
    assert (kept["lifted_because"], kept["packages"]) == ("it was dry", 1)


def test_software_is_told_which_pixels_to_leave_out_and_runs_again_when_these_change(works: Works, say: Say) -> None:
    script = 'cp "$WORKFLOW_MANIFEST" "$WORKFLOW_OUTPUT_DIR/manifest.json"'
    works.define(GRID, scripts={"grid": script})
    works.observe("one ")
    works.settle()
    [first] = works.runs()
    night = ("--instrument", "CHAI", "--night", "2026-04-04", "--pixel", "7", "--pixel", "12")
    told = say("exclude", *night, "--because", "noise").stdout
    assert "leaves pixels out of 1 raw package" in told
    works.settle()
    _, second = works.runs()
    before, after = (json.loads(works.text(run.products[0]))["inputs"]["raw"] for run in (first, second))
    assert (before[0]["excluded_pixels"], after[0]["excluded_pixels"]) == ([], ["12", "7"])
    assert second.because.endswith("now of " + after[0]["path"].split("/")[1] + ": 12, 7")
    differences = json.loads(say("diff", first.id, second.id, "--json").stdout)["parts"]["inputs"]["changes"]
    assert [(one["kind"], one["path"][-1], one["new"]) for one in differences] == [
        ("added", "excluded_pixels", ["12", "7"])
    ]
    assert "without pixels 12, 7" in say("lineage", second.products[0].id).stdout
    [listed] = json.loads(say("packages", "--json").stdout)
    assert (listed["excluded"], listed["excluded_pixels"]) == (None, ["12", "7"])
    [number] = [one["id"] for one in json.loads(say("exclusions", "--json").stdout)]
    say("readmit", number, "--because", "it was the window")
    works.settle()
    assert works.runs()[-1].input_digest == first.input_digest


def test_pixels_of_one_package_are_left_out_too(works: Works, say: Say) -> None:
    package = works.observe("one ")
    told = say("package", "exclude", package, "--because", "noise", "--pixel", "7").stdout
    assert told == f"package {package} is excluded: its pixels 7\n"
    assert "7" in say("packages").stdout
    assert say("package", "readmit", package, "--because", "fine").stdout == f"package {package} is in again\n"


def test_a_package_that_its_time_keeps_out_stays_out_and_says_why(works: Works, say: Say) -> None:
    package = works.observe("one ")
    say("exclude", "--instrument", "CHAI", "--to", "2027-01-01T00:00:00Z", "--because", "no cable")
    told = say("package", "readmit", package).stdout
    assert told.startswith(f"package {package} stays out: no cable (")


def test_what_would_cause_many_runs_is_refused_where_nobody_can_be_asked_and_done_where_somebody_says_so(
    works: Works, say: Say
) -> None:
    works.define(GRID)
    works.observe("one ")
    works.observe("two ")
    works.settle()
    refused = say("exclude", *SECOND_SCAN, "--because", "fog", "--ask-above", "0")
    assert refused.exit_code == 1
    assert refused.stderr == (
        "error: That would cause 1 run, more than 0: 1 of toy/grid. `--dry-run` shows why; `--yes` does it all the "
        "same, `--ask-above 1` unless there are still more. Nothing was changed.\n"
    )
    assert say("exclusions").stdout == "0 exclusions\n"
    assert say("exclude", *SECOND_SCAN, "--because", "fog", "--ask-above", "0", "--yes").exit_code == 0


def test_what_is_excluded_before_it_was_taken_is_done_with_a_warning(works: Works, say: Say) -> None:
    done = say("exclude", "--instrument", "CHAI", "--from", "2026-04-01T00:00:00Z", "--because", "broken")
    assert (done.exit_code, done.stderr) == (
        0,
        "warning: there is no such raw package yet; is it the right time and module?\n",
    )
    package = works.observe("one ")
    assert [one.id for one in works.all(models.RawDataPackage) if one.excluded_at] == [package]
    again = say("exclude", "--instrument", "CHAI", "--from", "2026-04-01T02:00:00+02:00", "--because", "so it is")
    assert again.stdout == "that is excluded already; the first reason stays\n"
    assert len(works.all(models.Exclusion)) == 1


def test_times_without_a_zone_and_wrong_names_are_refused_with_what_to_write(say: Say) -> None:
    naive = say("exclude", "--instrument", "CHAI", "--from", "2026-04-01T02:00", "--because", "x")
    assert naive.exit_code == 2
    assert "write 2026-04-01T02:00:00Z for UTC" in " ".join(re.sub("[│\n]", " ", naive.stderr).split())
    unknown = say("exclude", "--module", "CHAI/LFX", "--night", "2026-04-01", "--because", "x")
    assert unknown.stderr == "error: There is no instrument module `CHAI/LFX`. Did you mean `CHAI/LFA`?\n"
    gone = say("readmit", 4711, "--because", "x")
    assert gone.stderr == "error: There is no exclusion 4711; `ccat exclusions --all` lists them.\n"
