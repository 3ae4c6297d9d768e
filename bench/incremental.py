from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Final

import sqlalchemy as sa
import typer

from bench.database import ops_db
from bench.figures import Figure, memory_mb, seconds
from bench.gaps import ONE
from bench.packages import archive
from bench.pipelines import define, look, run_most
from ccat_ops_db import models
from ccat_ops_db.gap.changes import hand_out
from ccat_ops_db.gap.evaluation import evaluate
from ccat_ops_db.gap.steps import PipelineNow
from ccat_ops_db.session import transaction
from ccat_ops_db.states import Verdict

_UNTIL_PREPARED: Final = 8


def measure(
    *, size: Annotated[int, typer.Option(min=2000, help="So many packages, each a sub-group.")] = 1_000_000
) -> Iterator[Figure]:
    """How long it takes from changed packages to the list of the runs that they make necessary."""
    with ops_db() as engine:
        print(f"archiving {size} packages and running most of them", flush=True)
        archive(engine, size)
        pipeline = run_most(engine, define(engine, "one", ONE))
        look(engine, pipeline.id)
        yield Figure("changed_1_ms", 1000 * _changed(engine, pipeline, 1), at_most=20)
        yield Figure("changed_1000_ms", 1000 * _changed(engine, pipeline, 1000), at_most=100)
    yield Figure("rss_mb", memory_mb(), at_most=300)


def _changed(engine: sa.Engine, pipeline: PipelineNow, number: int) -> float:
    """Median seconds from the commit of a change to the list; the change itself is not measured.

    Managers run for weeks: their connections have prepared every statement, which takes some rounds.
    """
    return seconds(lambda: _wanted(engine, pipeline), before=lambda: _change(engine, number), warm_up=_UNTIL_PREPARED)


def _change(engine: sa.Engine, number: int) -> None:
    """Let packages have other bytes, so that each makes a run necessary, and the next time others."""
    statement = """
        UPDATE raw_data_package SET checksum = 'sha256:' || encode(sha256(convert_to(random()::text, 'UTF8')), 'hex')
        WHERE id IN (SELECT id FROM raw_data_package WHERE id > :from ORDER BY id LIMIT :number)
    """
    with engine.begin() as connection:
        first = connection.execute(sa.text("SELECT min(id) FROM raw_data_package")).scalar_one()
        connection.execute(sa.text(statement), {"from": first, "number": number})


def _wanted(engine: sa.Engine, pipeline: PipelineNow) -> int:
    group = models.SubGroup
    wanted = sa.select(group.id).where(
        group.reduction_step_id == pipeline.steps[0].id,
        group.verdict == Verdict.WANTED,
        group.active_run_id.is_(None),
    )
    with transaction(engine) as session:
        hand_out(session)
        evaluate(session, pipeline.id, now=datetime.now(UTC), by="bench")
        return len(session.scalars(wanted).all())
