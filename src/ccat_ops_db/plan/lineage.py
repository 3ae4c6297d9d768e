"""What a product was made of, as values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class RawFileNode:
    """A raw file of a raw package."""

    id: str
    path: str
    size_bytes: int
    checksum: str


@dataclass(frozen=True)
class LostFileNode(RawFileNode):
    """A raw file that a package was built without."""

    because: str


@dataclass(frozen=True)
class PackageNode:
    """A raw package with its files: where all lineage ends."""

    id: int
    name: str
    scan: str
    source: str
    checksum: str | None
    files: tuple[RawFileNode, ...]
    lost: tuple[LostFileNode, ...] = ()


@dataclass(frozen=True)
class ProductNode:
    """A product, and the run that made it."""

    id: int
    run_id: int
    path: str
    type: str
    state: str
    size_bytes: int
    checksum: str


@dataclass(frozen=True)
class RunNode:
    """A run: what it executed, and what it took."""

    id: int
    pipeline: str
    step: str
    sub_group: Mapping[str, object]
    software: str
    version: str
    software_digest: str
    config: str | None
    config_digest: str | None
    reason: str
    package_ids: tuple[int, ...]
    product_ids: tuple[int, ...]
    """Products from upstream."""
    auxiliary: Mapping[str, tuple[int, ...]]
    """Products that its rules chose, by the name of the rule."""
    excess_ids: tuple[int, ...]
    """Packages that went in through products from upstream, though its sub-group did not have them."""
    excluded_pixels: Mapping[int, Sequence[str]] = field(default_factory=dict)
    """Pixels that it left out, by package."""


@dataclass(frozen=True)
class Lineage:
    """Everything that a product was made of, down to the raw files; every node once."""

    product: ProductNode
    runs: Mapping[int, RunNode]
    products: Mapping[int, ProductNode]
    packages: Mapping[int, PackageNode]
    copies: Sequence[str] = ()
    """Where the product is, as `site/location: path`, and how its copy is there where it is not present."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a run was executed: of its last attempt, as far as that is known; secrets are not among it."""

    attempt: int
    started_at: datetime | None
    ended_at: datetime | None
    exit_code: int | None
    host: str | None
    command: Sequence[str]
    environment: Mapping[str, str]
    image: str | None
    parameters: Mapping[str, Any]
    resources: Mapping[str, Any]


@dataclass(frozen=True)
class Provenance:
    """A lineage with all that is needed to repeat it."""

    installation: str
    """The installation that it comes from: its numbers are unique there."""
    lineage: Lineage
    executions: Mapping[int, Execution]
    """By run."""
