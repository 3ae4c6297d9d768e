"""Whatever may be deleted is, at once, in whatever happens: no run goes without what it takes, and work ends.

What is maintained is what the raw tables say, as deletion is no gap.
"""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.queries.retention import obstacles
from ccat_ops_db.states import PhysicalCopyStatus, RunReason, RunStatus, Verdict
from tests.engine.happenings import (
    HAPPEN,
    ORDERS,
    SHAPES,
    WHAT,
    WHEN,
    Happenings,
    come_to_rest,
    events_of,
    happenings_of,
)
from tests.engine.history import History
from tests.engine.order import check

_Copy, _Run = models.PhysicalCopy, models.ExecutedReductionStep
_GOES = (
    PhysicalCopyStatus.DELETION_POSSIBLE,
    PhysicalCopyStatus.DELETION_SCHEDULED,
    PhysicalCopyStatus.DELETION_IN_PROGRESS,
    PhysicalCopyStatus.DELETED,
)
LET_GO = "retention let it go"
TAKEN_UP = sorted(name for name, shape in SHAPES.items() if any("depends_on" in step for step in shape))
WITHOUT_OTHER_STEPS = happenings_of(events_of([one for one in [*WHAT, "wish", "wish", "wait"] if one != "redefine"]))


def remade(shape: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same steps, each of which makes again what others take, where any does."""
    taken = {key for step in shape for key in step.get("depends_on", ())}
    return [{**step, "recompute": True} if step["key"] in taken else step for step in shape]


def let_go(history: History) -> int:
    """Delete the products of such steps that nothing hinders from going, as retention does when their time is over."""
    revision, product = models.ReductionStepRevision, models.DataProduct
    present = (
        sa.select(_Copy.id)
        .join(product, product.id == _Copy.data_product_id)
        .join(product.run)
        .join(revision, revision.id == _Run.step_revision_id)
        .where(_Copy.status == PhysicalCopyStatus.PRESENT, revision.recompute)
    )

    def work(session: Session) -> int:
        found = session.scalars(present).all()
        free = sorted(set(found) - obstacles(session, found).keys())
        for status in _GOES:
            advance(session, _Copy, free, to=status, because=LET_GO, by="a test")
        return len(free)

    return history.session(work)


def check_that_runs_have_what_they_take(history: History) -> None:
    product, taken, change = models.DataProduct, models.RunInput, models.StatusChange
    went = sa.exists().where(
        _Copy.data_product_id == product.id, change.object_id == _Copy.id, change.because == LET_GO
    )
    is_there = sa.exists().where(_Copy.data_product_id == product.id, _Copy.status != "deleted")
    lacking = (
        sa.select(_Run.id)
        .join(taken, taken.run_id == _Run.id)
        .join(product, product.id == taken.data_product_id)
        .where(_Run.status == RunStatus.STAGING_DATA, sa.not_(_Run.is_trial), went, sa.not_(is_there))
    )
    assert history.session(lambda session: session.scalars(lacking).all()) == []


@pytest.mark.timeout(1800)
@settings(max_examples=60, derandomize=True)
@given(
    shape=st.sampled_from(TAKEN_UP),
    when=st.sampled_from(["at every change", *sorted(WHEN)]),
    happenings=WITHOUT_OTHER_STEPS,
    order=ORDERS,
    is_restless=st.booleans(),
)
def test_what_is_deleted_is_made_again_for_whoever_takes_it(
    fresh_history: Callable[[], History],
    shape: str,
    when: str,
    happenings: Happenings,
    order: Random,
    *,
    is_restless: bool,
) -> None:
    history = fresh_history()
    history.is_restless = is_restless
    history.define(*remade(SHAPES[shape]), **WHEN[when])
    for source in ("M17", "M17", "Orion A"):
        history.archive(source=source)
    come_to_rest(history)
    let_go(history)
    for (what, *how), is_looked_at in happenings:
        HAPPEN[what](history, *how)
        check_that_runs_have_what_they_take(history)
        let_go(history)
        check_that_runs_have_what_they_take(history)
        if is_looked_at:
            check(history)
    if not history.is_enabled:
        history.enable(enabled=True)
    check(history)
    assert history.rebuilt() == 0
    come_to_rest(history, order)
    check_that_runs_have_what_they_take(history)
    let_go(history)
    before = history.noted()
    assert history.rebuilt() == 0
    assert history.noted() == before
    assert history.create() == 0, "deletion is no gap"


def test_new_data_have_made_again_what_their_map_takes_and_nothing_else(history: History) -> None:
    history.define(*remade(SHAPES["by scan, then by source"]))
    for source in ("M17", "M17", "Orion A"):
        history.archive(source=source)
    history.settle()
    assert let_go(history) == 3
    assert set(history.verdicts().values()) == {Verdict.UP_TO_DATE}
    history.archive(source="M17")
    assert sorted(history.settle()) == ["calibrate"] * 3 + ["grid"]
    assert [run.reason for run in history.runs_of("calibrate")[3:]] == [
        RunReason.MISSING,
        RunReason.RECOMPUTE,
        RunReason.RECOMPUTE,
    ]
    assert let_go(history) == 3
    assert history.settle() == []
