from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.moves import CHANNEL
from ccat_ops_db.plan.evaluation import Candidate, Facts, evaluate
from ccat_ops_db.plan.gap import Verdict
from ccat_ops_db.queries.gaps import current_revisions, load_facts
from ccat_ops_db.states import RunStatus, TriggerType
from ccat_workflow_manager.plan.starting import outdated


@dataclass(frozen=True)
class Evaluation:
    """What evaluating one pipeline did."""

    created: tuple[int, ...]
    given_up: tuple[int, ...]
    """FAILED runs whose retry became pointless: with the next evaluation, what is wanted now gets a run."""
    due: datetime | None
    """When a decision changes without anything happening."""


def pipelines_to_evaluate(session: Session, location_ids: Sequence[int]) -> list[int]:
    """Enabled CONTINUOUS pipelines that run at these locations, the most important first."""
    revision = current_revisions().subquery()
    return list(
        session.scalars(
            sa.select(models.Pipeline.id)
            .join(revision, revision.c.pipeline_id == models.Pipeline.id)
            .where(
                models.Pipeline.enabled,
                revision.c.trigger_type == TriggerType.CONTINUOUS,
                revision.c.processing_location_id.in_(location_ids),
            )
            .order_by(models.Pipeline.priority.desc(), models.Pipeline.id)
        )
    )


def create_wanted_runs(session: Session, pipeline_id: int, *, now: datetime) -> Evaluation:
    """Create a PENDING run for every sub-group that needs one and has none; racing another process is harmless."""
    facts = load_facts(session, pipeline_id, now=now)
    candidates = evaluate(facts, now=now)
    rows = [_row(facts, one) for one in candidates if _is_wanted(one)]
    return Evaluation(
        created=_insert(session, rows) if rows else (),
        given_up=_give_up_outdated(session, facts, candidates),
        due=min((one.decision.due for one in candidates if one.decision.due), default=None),
    )


def _is_wanted(candidate: Candidate) -> bool:
    return candidate.decision.verdict is Verdict.WANTED and candidate.active_run_id is None


def _insert(session: Session, rows: list[dict[str, object]]) -> tuple[int, ...]:
    run = models.ExecutedReductionStep
    created = session.scalars(insert(run).on_conflict_do_nothing().returning(run.id), rows).all()
    if created:
        session.execute(sa.select(sa.func.pg_notify(CHANNEL, f"{run.__tablename__}:{RunStatus.PENDING}")))
    return tuple(created)


def _give_up_outdated(session: Session, facts: Facts, candidates: Iterable[Candidate]) -> tuple[int, ...]:
    """Let runs that wait for their retry have none where recipe or inputs are not wanted any more."""
    run = models.ExecutedReductionStep
    active = {one.active_run_id: one for one in candidates}
    waiting = session.execute(
        sa.select(run.id, run.recipe_digest, run.input_digest).where(
            run.pipeline_id == facts.pipeline_id, run.retry_at.is_not(None)
        )
    )
    pointless = {
        number: change
        for number, recipe, inputs in waiting
        if number in active and (change := outdated(active[number], recipe_digest=recipe, input_digest=inputs))
    }
    for number, change in pointless.items():
        still_waits = sa.update(run).where(run.id == number, run.retry_at.is_not(None))
        session.execute(still_waits.values(retry_at=None, waiting_for=change))
    return tuple(pointless)


def _row(facts: Facts, candidate: Candidate) -> dict[str, object]:
    return {
        "pipeline_id": facts.pipeline_id,
        "data_location_id": facts.location_id,
        "priority": facts.priority,
        "reduction_step_id": candidate.step.id,
        "sub_group_key": candidate.name.key,
        "sub_group_path": candidate.name.path,
        "sub_group_labels": dict(candidate.name.labels),
        "reason": candidate.decision.reason,
        "because": candidate.decision.because,
        **wanted(candidate),
    }


def wanted(candidate: Candidate) -> dict[str, object]:
    """Columns of a run that say with what it is made: revision, version, config, digests and cut-off."""
    step, recipe = candidate.step, candidate.step.recipe
    if step.version is None or recipe is None:
        return {}
    return {
        "step_revision_id": step.revision_id,
        "software_version_id": step.version.id,
        "config_revision_id": step.config_revision_id,
        "recipe_digest": recipe.digest,
        "series_digest": recipe.series_digest,
        "input_digest": candidate.input_digest,
        "packages_until": candidate.decision.cut_off,
    }
