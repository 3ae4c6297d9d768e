"""Runs that have made something, registered as a worker registers it, without a cluster that executes them."""

import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.queues import Operation
from ccat_ops_db import models
from ccat_ops_db.definitions.document import Definitions
from ccat_ops_db.gap.steps import current_revisions
from ccat_ops_db.moves import advance
from ccat_ops_db.session import transaction
from ccat_ops_db.states import InputRole, ProductState, RunReason, RunStatus
from ccat_ops_db.verbs.archiving import request_archiving_of
from ccat_ops_db.verbs.copies import hold_inputs
from ccat_ops_db.verbs.definitions import apply_definitions
from ccat_ops_db.verbs.staging import request_staging
from ccat_workflow_manager.execution.layout import RunLayout
from ccat_workflow_manager.execution.products import Collected
from ccat_workflow_manager.execution.scan import scan
from ccat_workflow_manager.verbs.registering import Published, register, supersede
from tests.transfer.support import Observatory

DIGEST: Final = f"sha256:{'0' * 64}"


class Reductions:
    """The maps of an observatory: a pipeline of one step at a processing location."""

    def __init__(self, observatory: Observatory, location: str = "cologne/ramses") -> None:
        self.observatory = observatory
        self.location = location
        self.engine = observatory.engine
        with transaction(self.engine) as session:
            software = models.ReductionSoftware(name="gridder")
            session.add(software)
            session.flush()
            version = models.ReductionSoftwareVersion(
                reduction_software_id=software.id,
                version="1.0",
                series="1",
                runtime="process",
                command=["gridder"],
                content_digest=DIGEST,
            )
            session.add(version)
        self.define(archive=True)

    def define(self, *, archive: bool) -> None:
        step = {"key": "grid", "software": "gridder", "group_by": ["source"], "archive": archive}
        rule = {"table": "Instrument", "column": "name", "operator": "eq", "value": "CHAI"}
        written = {
            "groupings": [{"name": "chai", "rules": [rule]}],
            "pipelines": [
                {"name": "maps", "grouping": "chai", "location": self.location, "enabled": False, "steps": [step]}
            ],
        }
        with transaction(self.engine) as session:
            apply_definitions(session, Definitions.model_validate(written), folder=Path.cwd(), by="an operator")

    def make(self, files: Mapping[str, bytes], *, of: str = "M17", executable: str = "") -> int:
        """A run of a source that made these files, one of them to be executed, and its number."""
        with transaction(self.engine) as session:
            run = self._add_run(session, of, RunStatus.COMPLETED)
            attempt = models.RunAttempt(run=run, number=1, directory=f"{run.id}/1", job_name=f"ccat-{run.id}-1")
            session.add(attempt)
            session.flush()
            layout = RunLayout(self.observatory.directory(self.location) / "runs" / str(run.id))
            for name, data in files.items():
                path = layout.products / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                path.chmod(0o755 if name == executable else 0o644)
            collected = Collected(products=scan(layout.products, is_final=True), metrics={"rms": 0.5})
            supersede(session, [run], by="worker")
            register(session, [Published(attempt, layout, collected)], by="worker")
            request_archiving_of(session, [run.id])
            return run.id

    def take(self, package_ids: Sequence[int], *, of: str = "M17") -> int:
        """A run of a source that takes raw packages, and waits until they are staged; its number."""
        with transaction(self.engine) as session:
            return self.begin(session, package_ids, of=of)

    def begin(self, session: Session, package_ids: Sequence[int], *, of: str = "M17") -> int:
        """The same, which nobody sees before the transaction is over."""
        run = self._add_run(session, of, RunStatus.STAGING_DATA)
        role = InputRole.RAW
        session.add_all(models.RunInput(run_id=run.id, role=role, raw_data_package_id=one) for one in package_ids)
        session.flush()
        hold_inputs(session, [run.id], by="a manager")
        request_staging(session, package_ids, run.data_location_id)
        return run.id

    def cancel(self, run_id: int) -> None:
        """Let a run take nothing any more."""
        to = RunStatus.CANCELLED
        with transaction(self.engine) as session:
            advance(session, models.ExecutedReductionStep, [run_id], to=to, because="a test", by="an operator")

    def _add_run(self, session: Session, source: str, status: RunStatus) -> models.ExecutedReductionStep:
        (revision,) = session.scalars(current_revisions()).all()
        (step,) = revision.steps
        now = datetime.now(UTC)
        run = models.ExecutedReductionStep(
            reduction_step_id=step.reduction_step_id,
            step_revision_id=step.id,
            pipeline_id=revision.pipeline_id,
            data_location_id=revision.processing_location_id,
            software_version_id=session.scalars(sa.select(models.ReductionSoftwareVersion.id)).one(),
            sub_group_key=f"source={source}",
            sub_group_path=f"source={source}",
            sub_group_labels={"source": source},
            reason=RunReason.MISSING,
            because="there is no product yet",
            status=status,
            recipe_digest=DIGEST,
            series_digest=DIGEST,
            input_digest=DIGEST,
            inputs_frozen_at=now,
            finished_at=now if status is RunStatus.COMPLETED else None,
        )
        session.add(run)
        session.flush()
        return run

    def archive(self) -> None:
        """Go on until nothing waits any more."""
        self.observatory.aim()
        while sum(self.observatory.do(one) for one in (Operation.TRANSFERRING_PRODUCTS, Operation.ARCHIVING_PRODUCTS)):
            pass

    def withdraw(self, run_id: int) -> None:
        """Let no product of a run count any more."""
        with transaction(self.engine) as session:
            ids = session.scalars(sa.select(models.DataProduct.id).filter_by(run_id=run_id)).all()
            to = ProductState.WITHDRAWN
            advance(session, models.DataProduct, ids, to=to, because="it is wrong", by="an operator")

    def transfers(self, run_id: int) -> list[models.ProductArchiveTransfer]:
        with transaction(self.engine) as session:
            found = sa.select(models.ProductArchiveTransfer).filter_by(run_id=run_id)
            return list(session.scalars(found.order_by(models.ProductArchiveTransfer.id)))

    def copies(self, run_id: int, location: str) -> dict[str, models.PhysicalCopy]:
        """Copies of the products of a run at a location that are not DELETED, by path of the product."""
        copy, product = models.PhysicalCopy, models.DataProduct
        with transaction(self.engine) as session:
            rows = session.execute(
                sa.select(product.relative_path, copy)
                .join(copy, copy.data_product_id == product.id)
                .where(
                    product.run_id == run_id,
                    copy.data_location_id == self.observatory.location_id(location),
                    copy.status != "deleted",
                )
            )
            return {row.relative_path: row[1] for row in rows}

    def products(self, run_id: int) -> Path:
        """Where a run made its products."""
        return self.observatory.directory(self.location) / "runs" / str(run_id) / "products"

    def product(self, run_id: int, path: str) -> models.DataProduct:
        return self.observatory.one(models.DataProduct, run_id=run_id, relative_path=path)

    def remove(self, run_id: int, location: str) -> None:
        """Remove all copies of the products of a run that ever were at a location from its disk."""
        copy, product = models.PhysicalCopy, models.DataProduct
        here = copy.data_location_id == self.observatory.location_id(location)
        with transaction(self.engine) as session:
            of_run = sa.select(copy.path).join(product, product.id == copy.data_product_id).where(here)
            paths = session.scalars(of_run.where(product.run_id == run_id)).all()
        for place in (self.observatory.directory(location) / path for path in paths):
            if place.is_dir():
                shutil.rmtree(place)
            place.unlink(missing_ok=True)

    def end(self) -> None:
        """Leave the database as it was."""
        self.observatory.forget()
