"""What a product was made of names the raw files that its raw packages were built without."""

import json
import uuid
from pathlib import Path

import pytest
import sqlalchemy as sa

from ccat_ops_db import models
from tests.workflow.verbs.conftest import Say
from tests.workflow.verbs.works import Works

GONE = {
    "relative_path": "f2.dat",
    "size_bytes": 3,
    "checksum": f"sha256:{'0' * 64}",
    "lost_because": "a disk of CHAI died (Ann)",
    "lost_at": sa.func.now(),
}


@pytest.fixture
def product_id(works: Works) -> int:
    """A product of one raw package, which was built without a file."""
    works.define({"key": "calibrate", "group_by": ["executed_obs_unit"]})
    works.observe("one")
    [file] = works.all_of(sa.select(models.RawDataFile))
    of_scan = {name: getattr(file, name) for name in ("executed_obs_unit_id", "instrument_module_id")}
    row = GONE | of_scan | {"id": uuid.uuid4(), "lost_from_id": file.raw_data_package_id}
    works.execute(sa.insert(models.RawDataFile).values(**row))
    works.settle()
    [run] = works.runs()
    return int(run.products[0].id)


def test_the_lineage_names_the_files_that_a_raw_package_was_built_without(
    product_id: int, say: Say, tmp_path: Path
) -> None:
    [package] = json.loads(say("lineage", product_id, "--json").stdout)["packages"].values()
    assert [file["path"] for file in package["files"]] == ["1.txt"]
    assert [(file["path"], file["because"]) for file in package["lost"]] == [("f2.dat", "a disk of CHAI died (Ann)")]
    assert "without f2.dat, which is lost: a disk of CHAI died (Ann)" in say("lineage", product_id).stdout
    for form in ("prov-json", "ro-crate"):
        assert say("lineage", product_id, "--format", form, "--output", tmp_path / form).exit_code == 0
    assert '"ccat:lost_files": [' in (tmp_path / "prov-json").read_text()
    assert "without f2.dat, lost before it was packed" in (tmp_path / "ro-crate/ro-crate-metadata.json").read_text()
