"""Calibrations on their way into a directory, a manifest and a lineage."""

import json

from ccat_ops_db import models
from ccat_ops_db.queries.lineage import lineage
from ccat_ops_db.states import InputRole, RunStatus
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
