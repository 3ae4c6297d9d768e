from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Final

import sqlalchemy as sa
import typer

from bench.database import ops_db
from bench.figures import Figure, memory_mb, once, seconds
from bench.packages import archive
from bench.pipelines import define, look, run_most, tidy
from ccat_ops_db import models
from ccat_ops_db.gap.steps import PipelineNow
from ccat_ops_db.queries.gaps import sub_groups
from ccat_ops_db.session import transaction
from ccat_ops_db.states import Verdict

ONE: Final[list[dict[str, object]]] = [{"key": "calibrate", "group_by": ["RawDataPackage.id"]}]
THREE: Final[list[dict[str, object]]] = [
    *ONE,
    {"key": "check", "group_by": ["RawDataPackage.id"], "depends_on": ["calibrate"]},
    {"key": "grid", "group_by": ["source"], "depends_on": ["check"]},
]


def measure(
    *, size: Annotated[int, typer.Option(min=100, help="So many packages, each a sub-group of a step.")] = 1_000_000
) -> Iterator[Figure]:
    """How long it takes to say what is to be run, and why, of all sub-groups of a pipeline.

    One sub-group in a thousand has not been run. A rebuild works all verdicts out from the raw tables, into emptied
    ones, and is compared with a bare copy of these; a check does so and finds nothing to mend. The slope compares the
    checks of all and of a tenth.
    """
    tenth = _check_s(max(100, size // 10))
    with ops_db() as engine:
        print(f"archiving {size} packages", flush=True)
        archive(engine, size)
        one = _measured(engine, "one", ONE)
        bare = seconds(lambda: _bare(engine, one))
        gap = seconds(lambda: _gap(engine, one))
        yield Figure("gap_1m_s", gap, at_most=2)
        yield Figure("gap_1m_ratio", gap / bare, at_most=3)
        check = once(lambda: look(engine, one.id, rebuild=True))
        yield Figure("gap_1m_check_s", check, at_most=15)
        with engine.begin() as connection:
            connection.execute(sa.text("TRUNCATE sub_group, sub_group_package"))
        rebuild = once(lambda: look(engine, one.id, rebuild=True))
        yield Figure("gap_1m_rebuild_s", rebuild, at_most=15)
        yield Figure("gap_1m_rebuild_ratio", rebuild / once(lambda: _copy(engine)))
        three = _measured(engine, "three", THREE)
        yield Figure("gap_1m_3steps_s", seconds(lambda: _gap(engine, three)), at_most=6)
        yield Figure("gap_1m_3steps_check_s", once(lambda: look(engine, three.id, rebuild=True)))
    yield Figure("slope", check / (10 * tenth), at_most=1.3)
    yield Figure("rss_mb", memory_mb(), at_most=300)


def _check_s(size: int) -> float:
    print(f"the same of {size} packages, for the slope", flush=True)
    with ops_db() as engine:
        archive(engine, size)
        one = _measured(engine, "one", ONE)
        return once(lambda: look(engine, one.id, rebuild=True))


def _measured(engine: sa.Engine, name: str, steps: Sequence[Mapping[str, object]]) -> PipelineNow:
    print(f"running a pipeline of {len(steps)} steps", flush=True)
    pipeline = run_most(engine, define(engine, name, steps))
    tidy(engine)
    return pipeline


def _gap(engine: sa.Engine, pipeline: PipelineNow) -> int:
    """Everything that is not up to date, each with its sentence."""
    which = models.SubGroup.verdict != Verdict.UP_TO_DATE
    with transaction(engine) as session:
        return sum(1 for _ in sub_groups(session, pipeline, which=which))


def _bare(engine: sa.Engine, pipeline: PipelineNow) -> int:
    """Nothing but: which sub-groups of the first step have no completed run with these inputs."""
    statement = """
        SELECT g.id FROM sub_group g WHERE g.reduction_step_id = :step AND NOT EXISTS (
            SELECT FROM executed_reduction_step r
            WHERE r.reduction_step_id = :step AND r.sub_group_key = g.key AND r.status = 'completed'
              AND r.input_digest = g.input_digest)
    """
    with transaction(engine) as session:
        return len(session.execute(sa.text(statement), {"step": pipeline.steps[0].id}).all())


def _copy(engine: sa.Engine) -> None:
    """Nothing but writing: the rows of a rebuild into tables with the same columns and indexes."""
    with engine.connect() as connection:  # and never committed
        for table in ("sub_group", "sub_group_package"):
            connection.execute(sa.text(f"CREATE TABLE copied_{table} (LIKE {table} INCLUDING ALL)"))
            connection.execute(sa.text(f"INSERT INTO copied_{table} OVERRIDING SYSTEM VALUE SELECT * FROM {table}"))  # noqa: S608 - our own names
