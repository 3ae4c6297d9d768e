"""Logs, plots and statistics are inputs of those steps only that list them."""

import pytest

from ccat_ops_db import models
from ccat_ops_db.states import RunReason
from tests.workflow.verbs.works import Works

GRID = {"key": "grid", "group_by": ["source"], "products": "final"}
SUM_UP = {"key": "sum-up", "group_by": ["source"], "depends_on": ["grid"]}
WRITE = """
    cd "$WORKFLOW_OUTPUT_DIR"
    mkdir -p science statistics logs
    echo map >science/map.txt; echo {statistics} >statistics/noise.txt; echo seen >logs/log.txt
"""


def define(works: Works, *inputs: str, statistics: str = "1.5") -> None:
    step = {**SUM_UP, "inputs": list(inputs)} if inputs else SUM_UP
    works.define(GRID, step, scripts={"grid": WRITE.format(statistics=statistics)})


def taken(works: Works) -> list[str]:
    """Paths of what the newest run that sums up took."""
    run = [one for one in works.runs() if one.reduction_step.key == "sum-up"][-1]
    ids = [one.data_product_id for one in works.all(models.RunInput, run_id=run.id)]
    return sorted(one.relative_path for one in works.all(models.DataProduct) if one.id in ids)


@pytest.fixture
def observed(works: Works) -> Works:
    define(works)
    works.observe("one ")
    works.settle()
    return works


def test_a_step_that_lists_none_takes_none(observed: Works) -> None:
    assert taken(observed) == ["science/map.txt"]


def test_a_step_that_begins_to_list_statistics_runs_again_with_them(observed: Works) -> None:
    define(observed, "upstream", "statistics")
    observed.settle()
    assert observed.runs()[-1].reason is RunReason.RECIPE_CHANGED
    assert taken(observed) == ["science/map.txt", "statistics/noise.txt"]


def test_other_statistics_of_the_same_map_redo_what_listed_them(observed: Works) -> None:
    define(observed, "upstream", "statistics")
    observed.settle()
    observed.apply({"software": [{"name": "toy-grid", "versions": [observed.version(_other(), "2.0", series="2")]}]})
    observed.settle()
    last = observed.runs()[-1]
    assert (last.reduction_step.key, last.reason) == ("sum-up", RunReason.UPSTREAM_CHANGED)
    assert last.because.startswith("logs, plots or statistics that it takes differ from those of run ")


def test_other_statistics_of_the_same_map_redo_nothing_elsewhere(observed: Works) -> None:
    observed.apply({"software": [{"name": "toy-grid", "versions": [observed.version(_other(), "2.0", series="2")]}]})
    observed.settle()
    assert [run.reduction_step.key for run in observed.runs()] == ["grid", "sum-up", "grid"]


def _other() -> str:
    return WRITE.format(statistics="2.5")


def test_the_software_finds_what_was_listed(observed: Works) -> None:
    define(observed, "upstream", "log")
    observed.settle()
    [product] = observed.runs()[-1].products
    assert observed.text(product) in {"map\nseen\n", "seen\nmap\n"}
