"""Which raw packages went into a run, told where its upstream divides them otherwise."""

import json
from typing import Any

import pytest

from ccat_ops_db import models
from tests.workflow.verbs.conftest import Say
from tests.workflow.verbs.works import Works

FLAT = {"key": "flat", "group_by": ["observing_night"]}
MAP = {"key": "map", "group_by": ["source"], "depends_on": ["flat"]}


@pytest.fixture
def mapped(works: Works) -> Works:
    """Two sources observed in one night, each with a map of that night's flat."""
    works.define(FLAT, MAP)
    works.observe("one ", source="M17")
    works.observe("two ", source="W51")
    works.settle()
    return works


def run_of(works: Works, source: str) -> models.ExecutedReductionStep:
    [found] = [one for one in works.runs() if one.sub_group_labels.get("source") == source]
    return found


def told(say: Say, *words: object) -> Any:
    return json.loads(say(*words, "--json").stdout)


def test_the_lineage_of_a_map_names_what_came_from_other_sources(mapped: Works, say: Say) -> None:
    run = run_of(mapped, "M17")
    found = told(say, "lineage", run.products[0].id)
    node = found["runs"][str(run.id)]
    [excess] = node["excess_ids"]
    assert found["packages"][str(excess)]["source"] == "W51"
    said = " ".join(say("lineage", run.products[0].id).stdout.split())
    name = found["packages"][str(excess)]["name"]
    assert f"what it takes was made from other sub-groups' packages too: {name}" in said


def test_a_run_says_how_many_packages_it_was_made_from(mapped: Works, say: Say) -> None:
    run = run_of(mapped, "W51")
    assert told(say, "run", "show", run.id)["coverage"] == {"packages": 2, "excess": 1}
    assert "made from: 2 raw packages, 1 of them of other sub-groups\n" in say("run", "show", run.id).stdout
    [flat] = [one for one in mapped.runs() if one.reduction_step.key == "flat"]
    assert "made from: 2 raw packages\n" in say("run", "show", flat.id).stdout


def test_what_is_of_the_sub_group_itself_is_no_excess(mapped: Works, say: Say) -> None:
    [flat] = [one for one in mapped.runs() if one.reduction_step.key == "flat"]
    assert told(say, "lineage", flat.products[0].id)["runs"][str(flat.id)]["excess_ids"] == []


def test_a_run_that_waits_was_made_from_nothing_yet(mapped: Works, say: Say) -> None:
    mapped.observe("three ", source="M17", night=1)
    mapped.create()
    run = mapped.runs()[-1]
    assert "made from: nothing yet, its inputs are chosen when it starts\n" in say("run", "show", run.id).stdout
