"""Products as values: what they are for, what identifies their content, how they are written down."""

from pathlib import PurePosixPath
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from ccat_ops_db.states import DataProductType

TYPE_BY_DIRECTORY: Final = {
    "science": DataProductType.SCIENCE,
    "qa": DataProductType.QA_METRIC,
    "plots": DataProductType.PLOT,
    "statistics": DataProductType.STATISTICS,
    "logs": DataProductType.LOG,
}
"""How a final step sorts its products."""

TREE_SUFFIX: Final = ".zarr"
"""A directory so named is one product."""


class Product(BaseModel):
    """A file, or a directory that counts as one, below the products directory of a run."""

    model_config = ConfigDict(frozen=True)

    path: str
    type: DataProductType
    checksum: str
    size_bytes: int
    media_type: str | None = None
    description: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)


class Collected(BaseModel):
    """What a run made: the content of `collected.json`."""

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = 1
    products: tuple[Product, ...]
    metrics: dict[str, float]


def product_type(path: PurePosixPath, *, is_final: bool) -> DataProductType:
    """Return what a product is for: given by its first directory in a final step, else INTERMEDIATE."""
    if is_final and len(path.parts) > 1:
        return TYPE_BY_DIRECTORY.get(path.parts[0], DataProductType.INTERMEDIATE)
    return DataProductType.INTERMEDIATE
