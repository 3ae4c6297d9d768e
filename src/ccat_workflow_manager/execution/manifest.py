"""`manifest.json`, version 1: all that the software is told about its execution, as a published JSON Schema."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from ccat_ops_db.states import DataProductType, InputRole

LARGEST_INLINE: Final = 10_000
"""With more inputs than this, they are in a file of lines beside the manifest."""

MANIFEST_FILE: Final = "manifest.json"
INPUTS_FILE: Final = "inputs.jsonl"

SCHEMA_FILE: Final = Path(__file__).with_name("manifest.schema.json")
"""The published schema; `schema_text` returns what it must say."""

_CHECKSUM: Final = r"^sha256:[0-9a-f]{64}$"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ManifestRun(_Part):
    """The run, and which try of it this is."""

    id: int
    attempt: int


class ManifestPipeline(_Part):
    """The pipeline, and the revision that made the run."""

    id: int
    name: str
    revision: int


class ManifestStep(_Part):
    """The step; a final one sorts its products into directories by what they are for."""

    name: str
    is_final: bool


class ManifestSubGroup(_Part):
    """What the inputs have in common: the identity, and the dimensions by which they were grouped."""

    key: str
    dimensions: dict[str, Any]


class ManifestSoftware(_Part):
    """The software that runs; image fields are null for software without an image."""

    name: str
    version: str
    image_ref: str | None = None
    image_digest: str | None = None


class ManifestConfig(_Part):
    """The parameters; name and digest are null where the step has no config."""

    name: str | None = None
    digest: str | None = None
    parameters: dict[str, Any] = {}


class InputFile(_Part):
    """A file of a raw package, as it was registered."""

    path: str = Field(description="Relative to the path of the package.")
    size_bytes: int
    checksum: str = Field(pattern=_CHECKSUM)


class RawInput(_Part):
    """A raw package: all files of one scan and instrument module, or one part of them."""

    package_id: int
    path: str = Field(description="Relative to WORKFLOW_INPUT_DIR.")
    executed_obs_unit: UUID
    obs_unit: str | None
    source: str | None
    instrument_module: str
    files: tuple[InputFile, ...]
    excluded_pixels: tuple[str, ...] = Field(
        default=(), description="Pixels that are known to be bad, as the instrument calls them: leave them out."
    )


class _ProductInput(_Part):
    product_id: int
    run_id: int
    path: str = Field(description="Relative to WORKFLOW_INPUT_DIR.")
    type: DataProductType
    checksum: str = Field(pattern=_CHECKSUM)


class UpstreamInput(_ProductInput):
    """A product of a step before this one."""

    step: str


class AuxiliaryInput(_ProductInput):
    """A product chosen by a rule of the step, such as the nearest calibration."""

    name: str


class Inputs(_Part):
    """What the software reads, by role."""

    raw: tuple[RawInput, ...] = ()
    upstream: tuple[UpstreamInput, ...] = ()
    auxiliary: tuple[AuxiliaryInput, ...] = ()

    def by_role(self) -> Iterator[tuple[InputRole, _Part]]:
        """Yield every input with its role."""
        for role in InputRole:
            yield from ((role, entry) for entry in getattr(self, role))


class InputsFile(_Part):
    """Where the inputs are, if they are many: a file beside the manifest, one input with its `role` on each line."""

    file: str


class Output(_Part):
    """Where the software writes its products; the same as WORKFLOW_OUTPUT_DIR."""

    dir: str


class Manifest(_Part):
    """Everything about one execution of a step."""

    schema_version: Literal[1] = 1
    run: ManifestRun
    pipeline: ManifestPipeline
    step: ManifestStep
    sub_group: ManifestSubGroup
    software: ManifestSoftware
    config: ManifestConfig
    inputs: Inputs | InputsFile
    output: Output


def render(manifest: Manifest, *, largest_inline: int = LARGEST_INLINE) -> Mapping[str, bytes]:
    """Return the files that tell the software about its execution, by name; the manifest is the last."""
    inputs = list(manifest.inputs.by_role()) if isinstance(manifest.inputs, Inputs) else []
    if len(inputs) <= largest_inline:
        return {MANIFEST_FILE: _pretty(manifest)}
    short = manifest.model_copy(update={"inputs": InputsFile(file=INPUTS_FILE)})
    return {INPUTS_FILE: b"".join(_line(*entry) for entry in inputs), MANIFEST_FILE: _pretty(short)}


def schema_text() -> str:
    """Return the JSON Schema of the manifests that `render` writes."""
    schema = Manifest.model_json_schema(mode="serialization")
    published = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "urn:ccat:manifest:1", **schema}
    return json.dumps(published, indent=2) + "\n"


def _pretty(manifest: Manifest) -> bytes:
    return (manifest.model_dump_json(indent=2) + "\n").encode()


def _line(role: InputRole, entry: _Part) -> bytes:
    return json.dumps({"role": role, **entry.model_dump(mode="json")}, ensure_ascii=False).encode() + b"\n"
