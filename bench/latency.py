import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import sqlalchemy as sa
import typer

from bench.chains import STEPS, define
from bench.figures import Figure
from bench.system import MANAGERS, WORKER, System, system
from ccat_ops_db import models
from ccat_ops_db.session import transaction
from ccat_ops_db.verbs.excluding import exclude_package, readmit_package
from tests.chaos.play import Plan, play

_ONE_AFTER_THE_OTHER: Final = timedelta(seconds=0.2)
"""Pause between the end of a chain and the next package."""

_TIMES: Final = """
    SELECT r.sub_group_key, a.submitted_at, a.started_at, a.ended_at, done.at
    FROM executed_reduction_step r
    JOIN run_attempt a ON a.run_id = r.id
    JOIN status_change done
        ON done.noun = 'executed_reduction_step' AND done.object_id = r.id AND done.to_status = 'completed'
    ORDER BY r.sub_group_key, r.id
"""


@dataclass(frozen=True)
class _Step:
    """When one step of a chain was handed in, ran and was completed."""

    handed_in: datetime
    started: datetime
    ended: datetime
    completed: datetime


def measure(
    *,
    size: Annotated[int, typer.Option(min=2, help="So many chains, one after the other.")] = 50,
    seed: Annotated[int, typer.Option(help="Order in which processes are killed.")] = 1,
) -> Iterator[Figure]:
    """How long a step waits that could run, and how long until work flows again after one process was killed.

    A step is ready when its package is readmitted, or the run before it is completed. Then everything but the
    supervisor is killed once, one after the other, while chains are made.
    """
    with system(size) as one:
        define(one)
        ready = _play(one)
        handovers, chains = _measured(one, ready)
    yield Figure("handover_p50_ms", statistics.median(handovers), at_most=50)
    yield Figure("handover_p95_ms", statistics.quantiles(handovers, n=20)[-1], at_most=250)
    yield Figure("chain_p50_ms", statistics.median(chains), at_most=300)
    yield Figure("recovery_s", _recovery_s(size, seed), at_most=15)


def _play(one: System) -> dict[str, datetime]:
    """Let packages in one by one, each when the chain before it has ended; key of its sub-groups → when that was."""
    with transaction(one.engine) as session:
        packages = session.scalars(sa.select(models.RawDataPackage.id).order_by(models.RawDataPackage.id)).all()
        for package in packages:
            exclude_package(session, package, because="not yet", by="bench")
    ready = {}
    with one.running(*MANAGERS, WORKER):
        for number, package in enumerate(packages, start=1):
            with transaction(one.engine) as session:
                readmit_package(session, package, because="now", now=datetime.now(UTC), by="bench")
            ready[f"RawDataPackage.id={package}"] = datetime.now(UTC)
            one.until_completed(number * len(STEPS), within_s=120)
            time.sleep(_ONE_AFTER_THE_OTHER.total_seconds())
    return ready


def _measured(one: System, ready: dict[str, datetime]) -> tuple[Sequence[float], Sequence[float]]:
    """From ready to handed in, and from the end of a step to the start of the next, in ms; all but the first chain.

    In the first chain every process does everything for the first time.
    """
    steps: dict[str, list[_Step]] = {key: [] for key in ready}
    with transaction(one.engine) as session:
        found: Sequence[Any] = session.execute(sa.text(_TIMES)).all()
    for key, *times in found:
        steps[key].append(_Step(*times))
    handovers, chains = [], []
    for key, moment in list(ready.items())[1:]:
        before = [moment, *(step.completed for step in steps[key])]
        handovers += [_ms(step.handed_in - at) for at, step in zip(before, steps[key], strict=False)]
        chains += [_ms(later.started - step.ended) for step, later in zip(steps[key], steps[key][1:], strict=False)]
    return handovers, chains


def _ms(time: timedelta) -> float:
    return time.total_seconds() * 1000


def _recovery_s(size: int, seed: int) -> float:
    plan = Plan(seed=seed, chains=size, each=1, every=timedelta(seconds=12))
    outcome = play(plan, lambda line: print(line, flush=True))
    if outcome.wrong:
        raise ValueError("; ".join(outcome.wrong))
    return outcome.recovery_s
