"""A person takes a package out of all groupings, and lets it in again."""

import json
from datetime import UTC, datetime

from ccat_ops_db import models
from ccat_ops_db.session import transaction
from ccat_ops_db.states import ProductState, RunReason, Verdict
from ccat_ops_db.verbs.excluding import exclude_package
from tests.workflow.verbs.conftest import Say
from tests.workflow.verbs.works import Works

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
    number, now = works.observe("one "), datetime.now(UTC)
    with transaction(works.engine) as later:
        seen = later.get_one(models.RawDataPackage, number)
        assert seen.excluded_at is None
        first = works.session(lambda session: exclude_package(session, number, because="clouds", now=now, by="me"))
        assert (first, exclude_package(later, number, because="wind", now=now, by="you")) == (True, False)
    assert works.all(models.RawDataPackage)[0].excluded_because == "clouds (me)"


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
