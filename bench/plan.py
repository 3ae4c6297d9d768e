from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import sqlalchemy as sa
import typer

from bench.database import ops_db
from bench.figures import Figure, memory_mb, once, seconds
from bench.gaps import ONE
from bench.packages import archive
from bench.pipelines import define, look, tidy
from ccat_ops_db.session import transaction
from ccat_ops_db.verbs.planning import make_plan
from ccat_workflow_manager.verbs.triggering import create_wanted_runs

_NAME = "one"


def measure(
    *, size: Annotated[int, typer.Option(min=100, help="So many sub-groups of which none has been run.")] = 100_000
) -> Iterator[Figure]:
    """How long it takes to plan runs that are all necessary, and then to create them."""
    with ops_db() as engine:
        print(f"archiving {size} packages", flush=True)
        archive(engine, size)
        pipeline_id = define(engine, _NAME, ONE)
        look(engine, pipeline_id)
        tidy(engine)
        yield Figure("plan_100k_s", seconds(lambda: _plan(engine, size)), at_most=5)
        yield Figure("create_100k_s", once(lambda: _create(engine, pipeline_id, size)), at_most=15)
    yield Figure("rss_mb", memory_mb(), at_most=300)


def _plan(engine: sa.Engine, size: int) -> None:
    with transaction(engine) as session:
        planned = make_plan(session, _NAME, now=datetime.now(UTC), by="bench")
    _all_of(size, sum(count.runs for count in planned.counts))


def _create(engine: sa.Engine, pipeline_id: int, size: int) -> None:
    with transaction(engine) as session:
        created = create_wanted_runs(session, pipeline_id, now=datetime.now(UTC), by="bench").created
    _all_of(size, created)


def _all_of(size: int, number: int) -> None:
    if number != size:
        raise ValueError(f"{number} of {size} runs")
