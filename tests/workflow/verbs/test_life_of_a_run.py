"""From an archived package to products, and what each failure does on the way."""

from ccat_ops_db.states import DataProductType, ProductState, RunReason, RunStatus
from tests.workflow.verbs.works import Works

CALIBRATE = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
GRID = {"key": "grid", "group_by": ["source"], "depends_on": ["calibrate"]}


def test_packages_become_products_of_every_step(works: Works) -> None:
    works.define(CALIBRATE, GRID)
    works.observe("one ")
    works.observe("two ")
    works.settle()
    first, second, last = works.runs()
    assert [run.reduction_step.key for run in (first, second, last)] == ["calibrate", "calibrate", "grid"]
    assert {run.status for run in works.runs()} == {RunStatus.COMPLETED}
    assert [move for move in works.moves(last) if move != "running"] == [
        "staging_data",
        "submitted",
        "collecting_results",
        "completed",
    ]
    [product] = last.products
    assert works.text(product) in {"one two ", "two one "}
    assert (product.type, product.state) == (DataProductType.INTERMEDIATE, ProductState.CURRENT)
    assert last.reason is RunReason.MISSING
    assert last.failure is None
