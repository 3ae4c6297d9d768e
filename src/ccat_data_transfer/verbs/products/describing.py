"""What is known of a run whose products are archived, in a file beside them: the archive explains itself."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.verbs.products.plan import listing_path
from ccat_ops_db import models
from ccat_ops_db.plan.lineage import PackageNode, ProductNode
from ccat_ops_db.queries.lineage import Taken, taken_by
from ccat_ops_db.queries.provenance import executions
from ccat_ops_db.states import PhysicalCopyStatus

_SCHEMA_VERSION = 1


def description_of(session: Session, run_id: int, archive_id: int, *, directory: str) -> bytes:
    """Who made what, when, of what and with what, and every product of the run that is in the archive.

    The same bytes whenever the same is known and there. Secrets are told by their digests only.
    """
    run = session.get_one(models.ExecutedReductionStep, run_id)
    execution = executions(session, [run_id]).get(run_id)
    told = {
        "schema_version": _SCHEMA_VERSION,
        "installation": session.scalars(sa.select(models.Installation.installation_id)).one_or_none(),
        "run": _run(run),
        **_made_of(taken_by(session, run_id)),
        "execution": asdict(execution) if execution else None,
        "products": _products(session, run_id, archive_id, directory=directory),
    }
    return (json.dumps(told, indent=2, sort_keys=True, default=str, ensure_ascii=False) + "\n").encode()


def _run(run: models.ExecutedReductionStep) -> Mapping[str, Any]:
    return {
        "id": run.id,
        "pipeline": run.pipeline.name,
        "owner": run.pipeline.owner.name if run.pipeline.owner else None,
        "step": run.reduction_step.key,
        "sub_group": run.sub_group_labels,
        "reason": run.reason,
        "because": run.because,
        "created_at": run.created_at.isoformat(),
        "finished_at": run.finished_at.isoformat() if run.finished_at else None,
        "recipe_digest": run.recipe_digest,
        "input_digest": run.input_digest,
        "metrics": run.metrics,
    }


def _made_of(taken: Taken) -> Mapping[str, Any]:
    run = taken.run
    return {
        "software": {"name": run.software, "version": run.version, "digest": run.software_digest},
        "config": {"name": run.config, "digest": run.config_digest} if run.config else None,
        "inputs": {
            "raw_packages": [_package(taken.packages[one]) for one in run.package_ids],
            "products": [_taken(taken.products[one]) for one in run.product_ids],
            "auxiliary": {name: [_taken(taken.products[one]) for one in ids] for name, ids in run.auxiliary.items()},
            "excluded_pixels": run.excluded_pixels,
        },
    }


def _package(one: PackageNode) -> Mapping[str, Any]:
    told = {"id": one.id, "name": one.name, "scan": one.scan, "source": one.source, "checksum": one.checksum}
    return {**told, "files": len(one.files)}


def _taken(one: ProductNode) -> Mapping[str, Any]:
    return {"id": one.id, "run": one.run_id, "path": one.path, "checksum": one.checksum}


def _products(session: Session, run_id: int, archive_id: int, *, directory: str) -> list[Mapping[str, Any]]:
    product, copy = models.DataProduct, models.PhysicalCopy
    there = (
        sa.select(product)
        .join(copy, copy.data_product_id == product.id)
        .where(
            product.run_id == run_id,
            copy.data_location_id == archive_id,
            copy.status == PhysicalCopyStatus.PRESENT,
        )
        .order_by(product.relative_path)
    )
    return [_product(one, directory) for one in session.scalars(there)]


def _product(one: models.DataProduct, directory: str) -> Mapping[str, Any]:
    is_tree = one.relative_path.endswith(".zarr")
    return {
        "id": one.id,
        "path": one.relative_path,
        "type": one.type,
        "size_bytes": one.size_bytes,
        "checksum": one.checksum,
        **({"listing": listing_path(directory, one.relative_path)} if is_tree else {}),
        "media_type": one.media_type,
        "description": one.description,
        "metadata": one.metadata_,
        "metrics": one.metrics,
        "created_at": one.created_at.isoformat(),
    }
