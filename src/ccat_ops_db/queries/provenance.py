from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.plan.hiding import hide, seal
from ccat_ops_db.plan.lineage import Execution, Provenance
from ccat_ops_db.queries.lineage import lineage
from ccat_ops_db.sets import is_among


def provenance(session: Session, product_id: int) -> Provenance:
    """What a product was made of, with all that is needed to repeat it; raises UnknownProduct."""
    found = lineage(session, product_id)
    installation = session.scalars(sa.select(models.Installation.installation_id)).one()
    return Provenance(str(installation), found, executions(session, list(found.runs)))


def executions(session: Session, run_ids: Sequence[int]) -> Mapping[int, Execution]:
    """How runs were executed, by run; secrets are told by their digests only."""
    run, attempt, version = models.ExecutedReductionStep, models.RunAttempt, models.ReductionSoftwareVersion
    revision, step = models.ReductionStepConfigRevision, models.ReductionStepRevision
    newest = (
        sa.select(attempt)
        .where(is_among(attempt.run_id, run_ids))
        .ext(distinct_on(attempt.run_id))
        .order_by(attempt.run_id, attempt.number.desc())
        .subquery()
    )
    last = sa.orm.aliased(attempt, newest)
    rows = session.execute(
        sa.select(last, version.image_ref, run.trial_parameters, revision.parameters, step.resources)
        .join(run, run.id == last.run_id)
        .join(version, version.id == run.software_version_id)
        .join(step, step.id == run.step_revision_id)
        .outerjoin(revision, revision.id == run.config_revision_id)
    )
    return {
        one.run_id: _execution(one, image, tried if tried is not None else parameters or {}, resources=resources)
        for one, image, tried, parameters, resources in rows
    }


def _execution(
    attempt: models.RunAttempt, image: str | None, parameters: Mapping[str, Any], *, resources: Mapping[str, Any]
) -> Execution:
    asked = {"memory_gb": attempt.memory_gb, "time_hours": attempt.time_hours}
    return Execution(
        attempt=attempt.number,
        started_at=attempt.started_at or attempt.submitted_at,
        ended_at=attempt.ended_at,
        exit_code=attempt.exit_code,
        host=attempt.host,
        command=hide((), attempt.command or []),
        environment=seal(dict(sorted((attempt.environment or {}).items()))),
        image=image,
        parameters=hide((), parameters),
        resources={**resources, **{name: value for name, value in asked.items() if value is not None}},
    )
