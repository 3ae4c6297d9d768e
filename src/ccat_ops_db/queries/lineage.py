from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.plan.lineage import Lineage, LostFileNode, PackageNode, ProductNode, RawFileNode, RunNode
from ccat_ops_db.queries.configs import PinnedConfig, used_config
from ccat_ops_db.queries.copies import CopyAt, copies_of
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import PhysicalCopyStatus


class UnknownProduct(CcatError):
    """A product was named that does not exist."""

    code = "unknown_product"

    def __init__(self, product_id: int) -> None:
        super().__init__(f"There is no data product {product_id}; `ccat products` lists them.")


def lineage(session: Session, product_id: int) -> Lineage:
    """Ancestors of a product; raises UnknownProduct."""
    product = _products(session, [product_id]).get(product_id)
    if product is None:
        raise UnknownProduct(product_id)
    run_ids = _ancestor_runs(session, product.run_id)
    taken = _inputs(session, run_ids)
    return Lineage(
        product=product,
        runs=_runs(session, run_ids, taken),
        products=_products(session, (one.data_product_id for inputs in taken.values() for one in inputs)),
        packages=_packages(session, (one.raw_data_package_id for inputs in taken.values() for one in inputs)),
        copies=[_place(one) for one in copies_of(session, [product_id])[product_id]],
    )


def _place(copy: CopyAt) -> str:
    found = f"{copy.location}: {copy.path}"
    return found if copy.status is PhysicalCopyStatus.PRESENT else f"{found} ({copy.status})"


@dataclass(frozen=True)
class Taken:
    """A run, and what it took itself."""

    run: RunNode
    products: Mapping[int, ProductNode]
    packages: Mapping[int, PackageNode]


def taken_by(session: Session, run_id: int) -> Taken:
    """What a run that exists was made of, and no further back."""
    taken = _inputs(session, [run_id])
    inputs = taken.get(run_id, ())
    return Taken(
        run=_runs(session, [run_id], taken)[run_id],
        products=_products(session, (one.data_product_id for one in inputs)),
        packages=_packages(session, (one.raw_data_package_id for one in inputs)),
    )


def _ancestor_runs(session: Session, run_id: int) -> Sequence[int]:
    ancestors = sa.select(sa.literal(run_id, sa.BigInteger).label("run_id")).cte(recursive=True)
    ancestors = ancestors.union(
        sa.select(models.DataProduct.run_id)
        .join(models.RunInput, models.RunInput.data_product_id == models.DataProduct.id)
        .join(ancestors, ancestors.c.run_id == models.RunInput.run_id)
        .where(models.RunInput.data_product_id.is_not(None))
    )
    return session.scalars(sa.select(ancestors.c.run_id)).all()


_Inputs = Mapping[int, Sequence[sa.Row[int, int | None, int | None, str | None, list[str] | None]]]


def _inputs(session: Session, run_ids: Sequence[int]) -> _Inputs:
    one = models.RunInput
    columns = sa.select(one.run_id, one.raw_data_package_id, one.data_product_id, one.name, one.excluded_pixels)
    found: defaultdict[int, list[Any]] = defaultdict(list)
    for row in session.execute(columns.where(is_among(one.run_id, run_ids)).order_by(one.id)):
        found[row.run_id].append(row)
    return found


def _runs(session: Session, run_ids: Sequence[int], taken: _Inputs) -> dict[int, RunNode]:
    """Rows, not objects: there may be thousands."""
    run, version, config = models.ExecutedReductionStep, models.ReductionSoftwareVersion, models.ReductionStepConfig
    revision = models.ReductionStepConfigRevision
    found = session.execute(
        sa.select(
            run.id,
            models.Pipeline.name.label("pipeline"),
            models.ReductionStep.key.label("step"),
            run.sub_group_labels.label("sub_group"),
            models.ReductionSoftware.name.label("software"),
            version.version,
            version.content_digest.label("software_digest"),
            run.reason,
            config.name.label("config_name"),
            revision.number,
            revision.parameters,
            revision.environment,
            revision.digest,
            run.trial_parameters,
        )
        .join(models.Pipeline, models.Pipeline.id == run.pipeline_id)
        .join(models.ReductionStep, models.ReductionStep.id == run.reduction_step_id)
        .join(version, version.id == run.software_version_id)
        .join(models.ReductionSoftware, models.ReductionSoftware.id == version.reduction_software_id)
        .outerjoin(revision, revision.id == run.config_revision_id)
        .outerjoin(config, config.id == revision.reduction_step_config_id)
        .where(is_among(run.id, run_ids))
    )
    excess = _excess(session, run_ids)
    return {row.id: _run_node(row, taken.get(row.id, ()), excess.get(row.id, ())) for row in found}


def _excess(session: Session, run_ids: Sequence[int]) -> Mapping[int, Sequence[int]]:
    covered = models.RunCoverage
    ids = sa.func.array_agg(aggregate_order_by(covered.raw_data_package_id, covered.raw_data_package_id))
    found = sa.select(covered.run_id, ids.label("ids")).where(is_among(covered.run_id, run_ids), covered.is_excess)
    return {one.run_id: one.ids for one in session.execute(found.group_by(covered.run_id))}


def _run_node(row: Any, inputs: Sequence[Any], excess: Sequence[int]) -> RunNode:
    content = (row.config_name, row.number, row.parameters, row.environment, row.digest)
    config = used_config(PinnedConfig(*content) if row.config_name else None, row.trial_parameters)
    return RunNode(
        id=row.id,
        pipeline=row.pipeline,
        step=row.step,
        sub_group=row.sub_group,
        software=row.software,
        version=row.version,
        software_digest=row.software_digest,
        config=config.label if config else None,
        config_digest=config.digest if config else None,
        reason=row.reason,
        package_ids=tuple(one.raw_data_package_id for one in inputs if one.raw_data_package_id is not None),
        product_ids=_taken(inputs, None),
        auxiliary={name: _taken(inputs, name) for name in sorted({one.name for one in inputs if one.name is not None})},
        excess_ids=tuple(excess),
        excluded_pixels={one.raw_data_package_id: one.excluded_pixels for one in inputs if one.excluded_pixels},
    )


def _taken(inputs: Iterable[Any], name: str | None) -> tuple[int, ...]:
    return tuple(one.data_product_id for one in inputs if one.data_product_id is not None and one.name == name)


def _products(session: Session, ids: Iterable[int | None]) -> dict[int, ProductNode]:
    one = models.DataProduct
    columns = (one.id, one.run_id, one.relative_path, one.type, one.state, one.size_bytes, one.checksum)
    found = session.execute(sa.select(*columns).where(is_among(one.id, _known(ids))))
    return {row.id: ProductNode(*row) for row in found}


def _known(ids: Iterable[int | None]) -> Collection[int]:
    return {one for one in ids if one is not None}


def _packages(session: Session, ids: Iterable[int | None]) -> dict[int, PackageNode]:
    package, scan = models.RawDataPackage, models.ExecutedObsUnit
    found = session.execute(
        sa.select(package.id, package.name, scan.id.label("scan"), models.Source.name.label("source"), package.checksum)
        .join(scan, scan.id == package.executed_obs_unit_id)
        .join(models.ObsUnit, models.ObsUnit.id == scan.obs_unit_id)
        .join(models.Source, models.Source.id == models.ObsUnit.source_id)
        .where(is_among(package.id, _known(ids)))
    ).all()
    numbers = [row.id for row in found]
    files, lost = _files(session, numbers), _lost_files(session, numbers)
    return {
        row.id: PackageNode(
            *(row.id, row.name, str(row.scan), row.source, row.checksum),
            files=tuple(files[row.id]),
            lost=tuple(lost[row.id]),
        )
        for row in found
    }


def _files(session: Session, package_ids: Sequence[int]) -> Mapping[int | None, Sequence[RawFileNode]]:
    file = models.RawDataFile
    columns = (file.raw_data_package_id, file.id, file.relative_path, file.size_bytes, file.checksum)
    rows = sa.select(*columns).where(is_among(file.raw_data_package_id, package_ids)).order_by(file.relative_path)
    found: defaultdict[int | None, list[RawFileNode]] = defaultdict(list)
    for package_id, number, path, size, checksum in session.execute(rows):
        found[package_id].append(RawFileNode(str(number), path, size, checksum))
    return found


def _lost_files(session: Session, package_ids: Sequence[int]) -> Mapping[int | None, Sequence[LostFileNode]]:
    file = models.RawDataFile
    columns = (file.lost_from_id, file.id, file.relative_path, file.size_bytes, file.checksum, file.lost_because)
    rows = sa.select(*columns).where(is_among(file.lost_from_id, package_ids)).order_by(file.relative_path)
    found: defaultdict[int | None, list[LostFileNode]] = defaultdict(list)
    for package_id, number, path, size, checksum, because in session.execute(rows):
        found[package_id].append(LostFileNode(str(number), path, size, checksum, because or ""))
    return found
