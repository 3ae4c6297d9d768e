"""The order in which runs that wait start: in a pipeline new data first, between pipelines priority with ageing."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute, Session

from ccat_ops_db import models
from ccat_ops_db.claims import is_free
from ccat_ops_db.sets import is_given, once_more
from ccat_ops_db.states import RunStatus

_Run = models.ExecutedReductionStep
LINE: Final = once_more(models.Pipeline, name="line")
"""The pipeline whose runs stand in line, in conditions on the runs at their head."""
COLUMNS: Final[Sequence[InstrumentedAttribute[Any]]] = (_Run.id, _Run.pipeline_id, _Run.is_redo, _Run.queue_rank)
"""What the order is worked out from."""


def has_status(*statuses: RunStatus) -> sa.ColumnElement[bool]:
    """Condition on a run, as the indexes of runs that are not over say it: a parameter would hide it from a plan."""
    return _Run.status.in_([sa.literal_column(f"'{one}'") for one in statuses])


IS_PENDING: Final = has_status(RunStatus.PENDING)
IS_IN_LINE: Final = sa.or_(_Run.waiting_for.is_(None), _Run.held_by_limit)
"""Condition on a PENDING run: when it was looked at last, nothing was in its way but limits."""
WAITS: Final = sa.not_(IS_IN_LINE)
"""Condition on a PENDING run: when it was looked at last, it waited for something else than a limit."""


def heads(
    which: sa.ColumnElement[bool], *columns: sa.ColumnElement[Any], most: int | sa.ColumnElement[int]
) -> sa.Select[Any]:
    """The first free runs in line of each pipeline that meet a condition; each pipeline is a `LINE`.

    An index finds them, however many stand behind them.
    """
    head = (
        sa.select(*COLUMNS, *columns)
        .where(_Run.pipeline_id == LINE.id, IS_PENDING, IS_IN_LINE, is_free(_Run), which)
        .order_by(_Run.is_redo, _Run.queue_rank, _Run.id)
        .limit(most)
        .lateral("head")
    )
    return sa.select(head).select_from(LINE).join(head, sa.true())


def with_places(runs: sa.Select[Any]) -> sa.Subquery:
    """Runs, of which the `COLUMNS` are known, and each one's `place` in the order, counted from one.

    A run competes with those of other pipelines by the highest rank of those that go before it in its own.
    """
    run = runs.subquery()
    own = [run.c.is_redo, run.c.queue_rank, run.c.id]
    rank = sa.func.max(run.c.queue_rank).over(partition_by=run.c.pipeline_id, order_by=own)
    ranked = sa.select(run, rank.label("effective_rank")).subquery()
    order = [ranked.c.effective_rank, ranked.c.is_redo, ranked.c.queue_rank, ranked.c.id]
    return sa.select(ranked, sa.func.row_number().over(order_by=order).label("place")).subquery()


_PLACED: Final = with_places(sa.select(*COLUMNS).where(is_given(_Run.id, "runs")))
_IN_ORDER: Final = sa.select(_PLACED.c.id).order_by(_PLACED.c.place)


def in_order(session: Session, run_ids: Iterable[int]) -> list[int]:
    """Runs in the order in which they may start."""
    return list(session.scalars(_IN_ORDER, {"runs": list(run_ids)}))
