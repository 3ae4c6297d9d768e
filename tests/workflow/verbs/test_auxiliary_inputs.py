"""Calibrations on their way into a directory, a manifest and a lineage."""

import json

from ccat_ops_db import models
from ccat_ops_db.queries.lineage import lineage
from ccat_ops_db.states import InputRole, ProductState, RunReason, RunStatus
from tests.workflow.verbs.conftest import Say
from tests.workflow.verbs.works import Works

FLAT = {"key": "flat", "group_by": ["executed_obs_unit"]}
RULE = {"name": "flat_field", "from": "calibration/flat", "max_age": "1d"}
MAP = {"key": "grid", "group_by": ["source"], "auxiliary": [RULE], "products": "final"}
SCRIPTS = {
    "flat": 'echo bright >"$WORKFLOW_OUTPUT_DIR/science/flat.txt"; echo seen >"$WORKFLOW_OUTPUT_DIR/logs/log.txt"',
    "grid": """
        cp "$WORKFLOW_MANIFEST" "$WORKFLOW_OUTPUT_DIR/science/"
        cat $(find -L "$WORKFLOW_INPUT_DIR/auxiliary/flat_field" -type f) >"$WORKFLOW_OUTPUT_DIR/science/flats.txt"
    """,
}


def test_the_software_finds_them_by_the_name_of_the_rule(works: Works) -> None:
    works.define(FLAT, name="calibration", scripts=SCRIPTS)
    works.define(MAP, name="maps", scripts=SCRIPTS)
    works.observe("counts ")
    works.settle()
    flat, grid = works.runs(status=RunStatus.COMPLETED)
    assert [flat.reduction_step.key, grid.reduction_step.key] == ["flat", "grid"]
    made = {one.relative_path: one for one in flat.products}
    products = {one.relative_path: one for one in grid.products}
    assert works.text(products["science/flats.txt"]) == "bright\n"
    [told] = json.loads(works.text(products["science/manifest.json"]))["inputs"]["auxiliary"]
    assert told == {
        "product_id": made["science/flat.txt"].id,
        "run_id": flat.id,
        "path": f"auxiliary/flat_field/{flat.sub_group_path}/science/flat.txt",
        "type": "science",
        "checksum": made["science/flat.txt"].checksum,
        "name": "flat_field",
    }
    [taken] = [one for one in works.all(models.RunInput, run_id=grid.id) if one.role is InputRole.AUXILIARY]
    assert (taken.name, taken.data_product_id) == ("flat_field", made["science/flat.txt"].id)
    found = works.session(lambda session: lineage(session, products["science/flats.txt"].id))
    assert found.runs[grid.id].auxiliary == {"flat_field": (made["science/flat.txt"].id,)}


def test_a_calibration_that_was_wrong_takes_the_maps_along_that_took_it(works: Works, say: Say) -> None:
    works.define(FLAT, name="calibration", scripts=SCRIPTS)
    works.define(MAP, name="maps", scripts=SCRIPTS)
    works.observe("counts ")
    works.settle()
    flat, grid = works.runs(status=RunStatus.COMPLETED)
    [taken] = [one.id for one in flat.products if one.relative_path == "science/flat.txt"]
    told = json.loads(say("uses", "product", taken, "--json").stdout)
    assert [(one["run"], one["pipeline"], one["step"]) for one in told["used_by"]] == [(grid.id, "maps", "grid")]
    [below] = json.loads(say("lineage", taken, "--down", "--json").stdout)["made_from_it"]
    assert (below["level"], below["pipeline"], below["runs"], below["valid"]) == (1, "maps", 1, len(grid.products))
    say("withdraw", "product", taken, "--because", "the shutter was closed")
    assert {one.state for one in works.run(id=grid.id).products} == {ProductState.WITHDRAWN}
    works.settle()
    again, anew = works.runs(status=RunStatus.COMPLETED)[2:]
    assert [(one.reduction_step.key, one.reason) for one in (again, anew)] == [
        ("flat", RunReason.INVALIDATED),
        ("grid", RunReason.INVALIDATED),
    ]
    [used] = [one for one in works.all(models.RunInput, run_id=anew.id) if one.role is InputRole.AUXILIARY]
    assert used.data_product_id in {one.id for one in again.products}
