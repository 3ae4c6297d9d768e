"""Pipelines over the packages of `bench.packages`, and runs of them that nobody executed: made by the database."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.definitions.parsing import parse_definitions
from ccat_ops_db.gap.changes import hand_out
from ccat_ops_db.gap.evaluation import Evaluated, evaluate
from ccat_ops_db.gap.steps import PipelineNow, StepNow
from ccat_ops_db.grouping.dimensions import dimensions
from ccat_ops_db.grouping.paths import catalogue
from ccat_ops_db.grouping.presets import presets
from ccat_ops_db.plan.digests import content_digest
from ccat_ops_db.session import transaction
from ccat_ops_db.verbs.definitions import apply_definitions

OPEN_OF: Final = 1000
"""One sub-group in so many has not been run."""

_FROM_SUB_GROUPS: Final = """
    FROM sub_group g WHERE g.reduction_step_id = :step AND g.last_run_id IS NULL AND g.id % :open_of <> 0
"""
_NEW: Final = "r.reduction_step_id = :step AND r.id > :before"
_RUNS: Final = (
    "SET LOCAL session_replication_role = replica",  # what the triggers note is found by the rebuild that follows
    f"""
    INSERT INTO executed_reduction_step (
        reduction_step_id, step_revision_id, pipeline_id, data_location_id, software_version_id, sub_group_key,
        sub_group_path, sub_group_labels, status, reason, because, recipe_digest, series_digest, input_digest,
        inputs_frozen_at, finished_at, created_at, made_digest)
    SELECT g.reduction_step_id, :revision, :pipeline, :location, :version, g.key, g.path, g.labels, 'completed',
        'missing', 'no run has completed yet', :recipe, :series, g.input_digest, now(), now(), now(),
        'sha256:' || encode(sha256(convert_to(:step || g.key, 'UTF8')), 'hex')
    {_FROM_SUB_GROUPS}
    """,
    "ANALYZE executed_reduction_step",  # or the database would plan what follows for a handful of runs
    f"""
    INSERT INTO run_input (run_id, role, raw_data_package_id)
    SELECT r.id, 'raw', m.raw_data_package_id
    FROM executed_reduction_step r
    JOIN sub_group g ON g.reduction_step_id = :step AND g.key = r.sub_group_key
    JOIN sub_group_package m ON m.sub_group_id = g.id
    WHERE :takes_raw AND {_NEW}
    """,  # noqa: S608 - our own text
    f"""
    INSERT INTO run_input (run_id, role, data_product_id)
    SELECT DISTINCT r.id, 'upstream', d.id
    FROM executed_reduction_step r
    JOIN sub_group g ON g.reduction_step_id = :step AND g.key = r.sub_group_key
    JOIN sub_group_package m ON m.sub_group_id = g.id
    JOIN sub_group_package above
        ON above.reduction_step_id = ANY(:upstream) AND above.raw_data_package_id = m.raw_data_package_id
    JOIN sub_group u ON u.id = above.sub_group_id
    JOIN data_product d ON d.run_id = u.last_run_id
    WHERE {_NEW}
    """,  # noqa: S608 - our own text
    f"""
    INSERT INTO run_coverage (run_id, raw_data_package_id)
    SELECT r.id, m.raw_data_package_id
    FROM executed_reduction_step r
    JOIN sub_group g ON g.reduction_step_id = :step AND g.key = r.sub_group_key
    JOIN sub_group_package m ON m.sub_group_id = g.id
    WHERE {_NEW}
    """,  # noqa: S608 - our own text
    f"""
    INSERT INTO data_product (run_id, run_attempt_id, type, relative_path, size_bytes, checksum)
    SELECT r.id, 1, 'science', 'map.fits', 1, r.made_digest FROM executed_reduction_step r WHERE {_NEW}
    """,  # noqa: S608 - our own text
    f"""
    INSERT INTO physical_copy (type, data_location_id, data_product_id, status, path)
    SELECT 'data_product', :location, d.id, 'present', 'map-' || d.id
    FROM data_product d JOIN executed_reduction_step r ON r.id = d.run_id
    WHERE {_NEW}
    """,  # noqa: S608 - our own text
)


def define(engine: sa.Engine, name: str, steps: Sequence[Mapping[str, Any]]) -> int:
    """A pipeline over all packages; its id."""
    image = {"runtime": "apptainer", "image": "image", "image_digest": content_digest("image"), "command": ["run"]}
    document = {
        "software": [{"name": name, "versions": [{"version": "1.0", "series": "1", **image}]}],
        "groupings": [{"name": name, "rules": []}],
        "pipelines": [
            {
                "name": name,
                "grouping": name,
                "location": "cologne/ramses",
                "steps": [{"software": name, **step} for step in steps],
            }
        ],
    }
    definitions = parse_definitions(document, catalogue=catalogue(), dimensions=list(dimensions()), presets=presets())
    with transaction(engine) as session:
        apply_definitions(session, definitions, folder=Path("/"), by="bench")
        return session.scalars(sa.select(models.Pipeline.id).filter_by(name=name)).one()


def look(engine: sa.Engine, pipeline_id: int, *, rebuild: bool = False) -> Evaluated:
    """Evaluate a pipeline as its managers do."""
    with transaction(engine) as session:
        hand_out(session)
    with transaction(engine) as session:
        return evaluate(session, pipeline_id, now=datetime.now(UTC), by="bench", rebuild=rebuild)


def run_most(engine: sa.Engine, pipeline_id: int) -> PipelineNow:
    """Let every step of a pipeline have been run, but for one sub-group in a thousand."""
    pipeline = look(engine, pipeline_id).pipeline
    for step in pipeline.steps:
        _run(engine, pipeline, step)
        tidy(engine)
        look(engine, pipeline_id, rebuild=True)
    tidy(engine)
    return pipeline


def _run(engine: sa.Engine, pipeline: PipelineNow, step: StepNow) -> None:
    if step.version is None or step.recipe is None:
        raise ValueError(f"step {step.key} has no released version")
    values = {
        "step": step.id,
        "revision": step.revision_id,
        "pipeline": pipeline.id,
        "location": pipeline.location_id,
        "version": step.version.id,
        "recipe": step.recipe.digest,
        "series": step.recipe.series_digest,
        "takes_raw": step.takes_raw,
        "upstream": list(step.upstream),
        "open_of": OPEN_OF,
    }
    with engine.begin() as connection:
        newest = sa.select(sa.func.coalesce(sa.func.max(models.ExecutedReductionStep.id), 0))
        values["before"] = connection.scalar(newest)
        for statement in _RUNS:
            used = {name: value for name, value in values.items() if f":{name}" in statement}
            connection.execute(sa.text(statement), used)


def tidy(engine: sa.Engine) -> None:
    """Let the database look at what it has, as it does by itself in time."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE"))
