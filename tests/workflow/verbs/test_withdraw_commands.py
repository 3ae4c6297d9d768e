"""A person withdraws what was wrong, and takes that back: commands, on runs that really ran."""

import json
import re
import shlex
from pathlib import Path

import pytest

from ccat_ops_db import models
from ccat_ops_db.states import ProductState, RunReason, RunStatus
from tests.workflow.verbs.conftest import Say
from tests.workflow.verbs.works import Works

SCAN = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
PAGE = Path(__file__).parents[3] / "docs" / "lineage.md"
MAP = {"key": "grid", "group_by": ["source"], "depends_on": ["calibrate"]}


def test_a_scan_that_was_wrong_is_taken_out_of_the_map_and_put_in_again(works: Works, say: Say) -> None:
    works.define(SCAN, MAP)
    works.observe("one ")
    wrong = works.observe("two ")
    works.settle()
    name = works.all(models.RawDataPackage, id=wrong)[0].name
    would = say("withdraw", "package", name, "--because", "wrong telescope", "--dry-run")
    assert would.stdout.splitlines()[0] == f"would be invalid with raw package {name}: 2 products"
    done = say("withdraw", "package", name, "--because", "wrong telescope")
    assert done.stdout == f"raw package {name} is withdrawn: 2 products invalid\n"
    works.settle()
    newest = works.runs()[-1]
    assert (newest.reason, works.text(newest.products[0])) == (RunReason.INVALIDATED, "one ")
    [row] = json.loads(say("withdrawals", "--json").stdout)
    assert (row["what"], row["because"], row["products"]) == (f"raw package {name}", "wrong telescope", 2)
    assert say("reinstate", "package", name).stdout == f"raw package {name} is reinstated: 2 products valid again\n"
    works.settle()
    assert works.text(works.runs()[-1].products[0]) in {"one two ", "two one "}
    assert say("withdrawals").stdout == "0 withdrawals\n"
    assert "wrong telescope" in say("withdrawals", "--all").stdout


def test_much_is_not_made_invalid_unasked(works: Works, say: Say) -> None:
    works.define(SCAN)
    works.observe("one ")
    works.settle()
    asked = say("withdraw", "version", "toy-calibrate/1.0", "--because", "x", "--ask-above", 0)
    assert (asked.exit_code, asked.stdout) == (1, "")
    assert asked.stderr.startswith(
        "error: Withdrawing version toy-calibrate/1.0 would make 1 product invalid, more than 0."
    )
    done = say("withdraw", "version", "toy-calibrate/1.0", "--because", "x", "--ask-above", 0, "--yes")
    assert done.stdout.splitlines() == [
        "version toy-calibrate/1.0 is withdrawn: 1 product invalid",
        "write `state: withdrawn` for it in its file of definitions, or `ccat apply` refuses that file from now on",
    ]
    assert [one.state for one in works.run().products] == [ProductState.WITHDRAWN]


def test_what_changes_nothing_and_what_lacks_a_reason_are_told(works: Works, say: Say) -> None:
    package = works.observe("one ")
    [row] = works.all(models.RawDataPackage, id=package)
    assert say("reinstate", "package", package).stdout == f"raw package {row.name} was not withdrawn\n"
    assert say("withdraw", "package", package, "--because", " ").stderr == (
        "error: Say why, for those who read it later: `--because` is empty. Nothing was withdrawn.\n"
    )
    say("withdraw", "package", package, "--because", "x")
    assert say("withdraw", "package", package, "--because", "y").stdout == (
        f"raw package {row.name} was withdrawn already; the first reason stays\n"
    )


def test_of_a_config_with_several_revisions_one_has_to_be_named(works: Works, say: Say) -> None:
    for order in (1, 2):
        works.apply({"configs": [{"name": "deep", "parameters": {"order": order}}]})
    assert say("withdraw", "config", "deep", "--because", "x").stderr == (
        "error: Config deep has 2 revisions; name the one that is meant: deep/1, deep/2.\n"
    )
    assert say("withdraw", "config", "deep/1", "--because", "x").exit_code == 0
    assert works.runs(status=RunStatus.COMPLETED) == []


def test_what_the_page_says_can_be_typed(
    works: Works, say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works.apply({"configs": [{"name": "deep", "parameters": {"order": 3}}]})
    works.define(SCAN, MAP | {"config": "deep"})
    [package] = works.all(models.RawDataPackage, id=works.observe("one "))
    works.settle()
    calibrate, grid = works.runs()
    real = {"17": str(grid.products[0].id), "3": str(calibrate.id), "4": str(grid.id)}
    real |= {"gridder/1.0": "toy-grid/1.0", "scan-0042-p1": package.name}
    monkeypatch.chdir(tmp_path)
    lines = [
        line for block in re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL) for line in block.splitlines()
    ]
    assert len(lines) == 13
    for line in lines:
        _, *words = (real.get(word, word) for word in shlex.split(line))
        answer = say(*words)
        assert answer.exit_code == 0, (line, answer.output)
    assert (tmp_path / "crate" / "ro-crate-metadata.json").exists()
