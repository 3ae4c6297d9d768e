from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session, joinedload

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.queries.configs import config_of
from ccat_ops_db.sets import is_among


class UnknownProduct(CcatError):
    """A product was named that does not exist."""

    code = "unknown_product"

    def __init__(self, product_id: int) -> None:
        super().__init__(f"There is no data product {product_id}; `ccat products` lists them.")


@dataclass(frozen=True)
class RawFileNode:
    """A raw file of a raw package."""

    id: str
    path: str
    size_bytes: int
    checksum: str


@dataclass(frozen=True)
class PackageNode:
    """A raw package with its files: where all lineage ends."""

    id: int
    name: str
    scan: str
    source: str
    checksum: str | None
    files: tuple[RawFileNode, ...]


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


@dataclass(frozen=True)
class Lineage:
    """Everything that a product was made of, down to the raw files; every node once."""

    product: ProductNode
    runs: Mapping[int, RunNode]
    products: Mapping[int, ProductNode]
    packages: Mapping[int, PackageNode]


def lineage(session: Session, product_id: int) -> Lineage:
    """Ancestors of a product; raises UnknownProduct."""
    product = session.get(models.DataProduct, product_id)
    if product is None:
        raise UnknownProduct(product_id)
    run_ids = _ancestor_runs(session, product.run_id)
    inputs = session.scalars(
        sa.select(models.RunInput).where(is_among(models.RunInput.run_id, run_ids)).order_by(models.RunInput.id)
    ).all()
    runs = _runs(session, run_ids, inputs)
    return Lineage(
        product=_product_node(product),
        runs=runs,
        products=_products(session, {one.data_product_id for one in inputs if one.data_product_id}),
        packages=_packages(session, {one for run in runs.values() for one in run.package_ids}),
    )


def _ancestor_runs(session: Session, run_id: int) -> Sequence[int]:
    ancestors = sa.select(sa.literal(run_id, sa.BigInteger).label("run_id")).cte(recursive=True)
    ancestors = ancestors.union(
        sa.select(models.DataProduct.run_id)
        .join(models.RunInput, models.RunInput.data_product_id == models.DataProduct.id)
        .join(ancestors, ancestors.c.run_id == models.RunInput.run_id)
    )
    return session.scalars(sa.select(ancestors.c.run_id)).all()


def _runs(session: Session, run_ids: Sequence[int], inputs: Iterable[models.RunInput]) -> dict[int, RunNode]:
    run = models.ExecutedReductionStep
    found = session.scalars(
        sa.select(run)
        .where(is_among(run.id, run_ids))
        .options(
            joinedload(run.pipeline),
            joinedload(run.reduction_step),
            joinedload(run.software_version).joinedload(models.ReductionSoftwareVersion.reduction_software),
            joinedload(run.config_revision).joinedload(models.ReductionStepConfigRevision.reduction_step_config),
        )
    )
    taken: dict[int, list[models.RunInput]] = {number: [] for number in run_ids}
    for one in inputs:
        taken[one.run_id].append(one)
    excess = _excess(session, run_ids)
    return {one.id: _run_node(one, taken[one.id], excess.get(one.id, ())) for one in found}


def _excess(session: Session, run_ids: Sequence[int]) -> Mapping[int, Sequence[int]]:
    covered = models.RunCoverage
    ids = sa.func.array_agg(aggregate_order_by(covered.raw_data_package_id, covered.raw_data_package_id))
    found = sa.select(covered.run_id, ids.label("ids")).where(is_among(covered.run_id, run_ids), covered.is_excess)
    return {one.run_id: one.ids for one in session.execute(found.group_by(covered.run_id))}


def _run_node(run: models.ExecutedReductionStep, inputs: Sequence[models.RunInput], excess: Sequence[int]) -> RunNode:
    config = config_of(run)
    return RunNode(
        id=run.id,
        pipeline=run.pipeline.name,
        step=run.reduction_step.key,
        sub_group=run.sub_group_labels,
        software=run.software_version.reduction_software.name,
        version=run.software_version.version,
        software_digest=run.software_version.content_digest,
        config=config.label if config else None,
        config_digest=config.digest if config else None,
        reason=run.reason,
        package_ids=tuple(one.raw_data_package_id for one in inputs if one.raw_data_package_id is not None),
        product_ids=_taken(inputs, None),
        auxiliary={name: _taken(inputs, name) for name in sorted({one.name for one in inputs if one.name is not None})},
        excess_ids=tuple(excess),
    )


def _taken(inputs: Iterable[models.RunInput], name: str | None) -> tuple[int, ...]:
    return tuple(one.data_product_id for one in inputs if one.data_product_id is not None and one.name == name)


def _product_node(product: models.DataProduct) -> ProductNode:
    return ProductNode(
        id=product.id,
        run_id=product.run_id,
        path=product.relative_path,
        type=product.type,
        state=product.state,
        size_bytes=product.size_bytes,
        checksum=product.checksum,
    )


def _products(session: Session, ids: Iterable[int]) -> dict[int, ProductNode]:
    found = session.scalars(sa.select(models.DataProduct).where(is_among(models.DataProduct.id, ids)))
    return {one.id: _product_node(one) for one in found}


def _packages(session: Session, ids: Iterable[int]) -> dict[int, PackageNode]:
    package = models.RawDataPackage
    found = session.scalars(
        sa.select(package)
        .where(is_among(package.id, ids))
        .options(
            joinedload(package.executed_obs_unit)
            .joinedload(models.ExecutedObsUnit.obs_unit)
            .joinedload(models.ObsUnit.source)
        )
    ).all()
    files: dict[int, list[RawFileNode]] = {one.id: [] for one in found}
    rows = session.scalars(
        sa.select(models.RawDataFile)
        .where(is_among(models.RawDataFile.raw_data_package_id, files))
        .order_by(models.RawDataFile.relative_path)
    )
    for row in rows:
        if row.raw_data_package_id is not None:
            node = RawFileNode(str(row.id), row.relative_path, row.size_bytes, row.checksum)
            files[row.raw_data_package_id].append(node)
    return {
        one.id: PackageNode(
            id=one.id,
            name=one.name,
            scan=str(one.executed_obs_unit_id),
            source=one.executed_obs_unit.obs_unit.source.name,
            checksum=one.checksum,
            files=tuple(files[one.id]),
        )
        for one in found
    }
