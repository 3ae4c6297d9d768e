import json
from uuid import UUID

import pytest
from pydantic import ValidationError

from ccat_ops_db.states import DataProductType
from ccat_workflow_manager.execution.manifest import (
    SCHEMA_FILE,
    AuxiliaryInput,
    InputFile,
    Inputs,
    Manifest,
    RawInput,
    UpstreamInput,
    render,
    schema_text,
)

CHECKSUM = "sha256:" + "ab" * 32
RAW = RawInput(
    package_id=5,
    path="raw/scan-5",
    executed_obs_unit=UUID(int=7),
    obs_unit="orion-map",
    source="Orion KL",
    instrument_module="CHAI/LFA",
    files=(InputFile(path="on.fits", size_bytes=12, checksum=CHECKSUM),),
    excluded_pixels=("7",),
)
UPSTREAM = UpstreamInput(
    product_id=9, step="baseline", run_id=41, path="upstream/b.fits", type=DataProductType.SCIENCE, checksum=CHECKSUM
)
AUXILIARY = AuxiliaryInput(
    name="flat", product_id=8, run_id=40, path="auxiliary/flat", type=DataProductType.SCIENCE, checksum=CHECKSUM
)
INPUTS = Inputs(raw=(RAW,), upstream=(UPSTREAM,), auxiliary=(AUXILIARY,))


def test_a_manifest_has_the_published_form(manifest: Manifest) -> None:
    written = json.loads(render(manifest.model_copy(update={"inputs": INPUTS}))["manifest.json"])
    output = written.pop("output")
    assert output["dir"].endswith("attempt-1/output")
    assert written == {
        "schema_version": 1,
        "run": {"id": 42, "attempt": 1},
        "pipeline": {"id": 3, "name": "chai", "revision": 1},
        "step": {"name": "Grid", "is_final": True},
        "sub_group": {"key": "source=7", "dimensions": {"source": "Orion KL"}},
        "software": {"name": "chai-grid", "version": "1.2.0", "image_ref": None, "image_digest": None},
        "config": {"name": "grid", "digest": "sha256:" + "0" * 64, "parameters": {"beam_arcsec": 13.5}},
        "inputs": {
            "raw": [
                {
                    "package_id": 5,
                    "path": "raw/scan-5",
                    "executed_obs_unit": str(UUID(int=7)),
                    "obs_unit": "orion-map",
                    "source": "Orion KL",
                    "instrument_module": "CHAI/LFA",
                    "files": [{"path": "on.fits", "size_bytes": 12, "checksum": CHECKSUM}],
                    "excluded_pixels": ["7"],
                }
            ],
            "upstream": [
                {
                    "product_id": 9,
                    "step": "baseline",
                    "run_id": 41,
                    "path": "upstream/b.fits",
                    "type": "science",
                    "checksum": CHECKSUM,
                }
            ],
            "auxiliary": [
                {
                    "name": "flat",
                    "product_id": 8,
                    "run_id": 40,
                    "path": "auxiliary/flat",
                    "type": "science",
                    "checksum": CHECKSUM,
                }
            ],
        },
    }


def test_a_written_manifest_reads_back_as_the_same(manifest: Manifest) -> None:
    full = manifest.model_copy(update={"inputs": INPUTS})
    assert Manifest.model_validate_json(render(full)["manifest.json"]) == full


def test_many_inputs_are_in_a_file_of_lines_with_their_role(manifest: Manifest) -> None:
    files = render(manifest.model_copy(update={"inputs": INPUTS}), largest_inline=2)
    assert list(files) == ["inputs.jsonl", "manifest.json"]
    assert json.loads(files["manifest.json"])["inputs"] == {"file": "inputs.jsonl"}
    lines = [json.loads(line) for line in files["inputs.jsonl"].splitlines()]
    assert [line.pop("role") for line in lines] == ["raw", "upstream", "auxiliary"]
    assert lines == [entry.model_dump(mode="json") for entry in (RAW, UPSTREAM, AUXILIARY)]


def test_ten_thousand_inputs_are_still_inline_and_one_more_is_not(manifest: Manifest) -> None:
    def inputs(number: int) -> Manifest:
        return manifest.model_copy(update={"inputs": Inputs(raw=(RAW,) * number)})

    assert set(render(inputs(10_000))) == {"manifest.json"}
    assert set(render(inputs(10_001))) == {"inputs.jsonl", "manifest.json"}


def test_what_is_not_of_the_published_form_is_refused() -> None:
    with pytest.raises(ValidationError, match="checksum"):
        InputFile(path="on.fits", size_bytes=12, checksum="md5:1")


def test_the_published_schema_is_current() -> None:
    assert SCHEMA_FILE.read_text() == schema_text(), "write schema_text() to SCHEMA_FILE, and raise the version"
