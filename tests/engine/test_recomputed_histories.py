"""Whatever may be deleted is, at once, in whatever happens: no run goes without what it takes, and work ends.

What is maintained is what the raw tables say, as deletion is no gap.
"""

from collections.abc import Callable
from datetime import timedelta
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
    MAP,
    ORDERS,
    SCAN,
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
@settings(max_examples=40, derandomize=True)
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


# One thing after the other


@pytest.fixture
def gone(history: History) -> History:
    """Two scans in a map, of which what was made by scan is deleted."""
    history.define({**SCAN, "recompute": True}, MAP)
    for _ in range(2):
        history.archive()
    history.settle()
    assert let_go(history) == 2
    return history


def repeats(history: History, *statuses: RunStatus) -> list[models.ExecutedReductionStep]:
    return [run for run in history.runs(*statuses) if run.reason is RunReason.RECOMPUTE]


def told(history: History) -> str | None:
    """What the map that is to be made says that it waits for."""
    history.start()
    [grid] = [run for run in history.runs(RunStatus.PENDING) if run.reduction_step.key == "grid"]
    return grid.waiting_for


def redone(history: History) -> None:
    """Have a map that is to be made anew."""
    history.release("grid", "2.0", series="2")
    history.create()
    history.start()


def test_a_run_that_repeats_another_is_that_one_over_again(gone: History) -> None:
    redone(gone)
    same = ("recipe_digest", "series_digest", "input_digest", "packages_until", "sub_group_path", "sub_group_labels")
    for before, after in zip(gone.runs_of("calibrate")[:2], gone.runs_of("calibrate")[2:], strict=True):
        assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]
        assert packages(gone, models.RunInput, after) == packages(gone, models.RunInput, before) != []
        assert packages(gone, models.RunCoverage, after) == packages(gone, models.RunCoverage, before) != []


def packages(
    history: History, noun: type[models.RunInput | models.RunCoverage], run: models.ExecutedReductionStep
) -> list[int | None]:
    found = sa.select(noun.raw_data_package_id).where(noun.run_id == run.id).order_by(noun.raw_data_package_id)
    return history.session(lambda session: list(session.scalars(found)))


def test_what_nobody_waits_for_any_more_is_not_made_again(gone: History) -> None:
    redone(gone)
    assert len(repeats(gone, RunStatus.PENDING)) == 2
    gone.set_state("grid", "2.0", "retired")
    assert gone.settle() == []
    assert [(run.status, run.not_needed) for run in repeats(gone)] == [(RunStatus.CANCELLED, True)] * 2


def test_what_was_cancelled_is_not_made_again_before_somebody_wants_it(gone: History) -> None:
    redone(gone)
    first, second = repeats(gone)
    gone.cancel(first.id)
    gone.start(second.id)
    gone.complete(second.id)
    path = first.sub_group_path
    command = f"`ccat trigger it --step calibrate --sub-group {path} --force` makes a new one"
    assert told(gone) == (
        f"waits for products to be made again: calibrate {path}; calibrate {path}: run {first.id} was cancelled, "
        f"and {command}"
    )
    gone.settle()
    assert len(repeats(gone)) == 2
    gone.wish(step="calibrate", sub_groups=[path], force=True)
    assert gone.settle() == ["calibrate", "grid"]


def test_of_a_retired_version_the_newest_of_its_series_makes_it_again(gone: History) -> None:
    gone.release("calibrate", "1.1")
    gone.set_state("calibrate", "1.0", "retired")
    redone(gone)
    old, new = gone.runs_of("calibrate")[0], repeats(gone)[0]
    assert new.software_version_id != old.software_version_id
    assert (new.series_digest, new.input_digest) == (old.series_digest, old.input_digest)
    gone.set_state("calibrate", "1.1", "retired")
    gone.create()
    assert told(gone) is not None
    assert {run.status for run in repeats(gone)} == {RunStatus.CANCELLED}, "nothing is made with what is retired"
    assert (told(gone) or "").endswith("no version of its software is released")
    gone.set_state("calibrate", "1.0", "released")
    assert sorted(gone.settle()) == ["calibrate", "calibrate", "grid"]


def test_no_more_are_created_at_once_than_the_pipeline_may_create(gone: History) -> None:
    gone.define({**SCAN, "recompute": True}, MAP, limits={"created_per_minute": 2})
    redone(gone)
    assert len(repeats(gone)) == 1, "the map was the other one"
    gone.offset += timedelta(minutes=2)
    gone.start()
    assert len(repeats(gone)) == 2
    gone.offset += timedelta(minutes=2)
    assert sorted(gone.settle()) == ["calibrate", "calibrate", "grid"]


def test_a_run_that_is_tried_again_has_what_it_takes_made_again_too(gone: History) -> None:
    redone(gone)
    gone.start()
    gone.complete(*gone.ids(RunStatus.STAGING_DATA))
    gone.create()
    gone.start()
    [grid] = gone.ids(RunStatus.STAGING_DATA)
    gone.fail(grid)
    gone.create()
    assert let_go(gone) == 2, "nobody is going to take it by himself"
    gone.take_up(grid)
    assert sorted(gone.settle()) == ["calibrate", "calibrate", "grid"]
    assert len(repeats(gone)) == 4


def test_a_trial_has_what_it_takes_made_again_and_takes_that(gone: History) -> None:
    [run_id] = gone.try_out("grid", *[one.path for one in gone.gap().values() if one.step.key == "grid"]).runs.values()
    gone.start(run_id)
    assert gone.settle() == ["calibrate", "calibrate", "grid"]
    taken, product = models.RunInput, models.DataProduct
    makers = sa.select(product.run_id).join(taken, taken.data_product_id == product.id).where(taken.run_id == run_id)
    assert gone.session(lambda session: {*session.scalars(makers)}) == {run.id for run in repeats(gone)}


def test_where_other_bytes_are_made_all_that_follows_belongs_to_the_same_wish(history: History) -> None:
    history.is_restless = True
    history.define(
        {**SCAN, "recompute": True},
        {**SCAN, "key": "flag", "depends_on": ["calibrate"], "recompute": True},
        {**MAP, "depends_on": ["flag"]},
        trigger="manual",
    )
    history.archive()
    history.wish()
    history.settle()
    assert let_go(history) == 2
    history.release("grid", "2.0", series="2")
    history.wish(step="grid")
    assert history.settle() == ["calibrate", "flag", "grid"]
    flags = history.runs_of("flag")
    assert [(run.reason, run.status) for run in flags[1:]] == [
        (RunReason.RECOMPUTE, RunStatus.CANCELLED),
        (RunReason.UPSTREAM_CHANGED, RunStatus.COMPLETED),
    ]
    assert set(history.verdicts().values()) == {Verdict.UP_TO_DATE}
    assert history.open_triggers() == []


def test_what_cannot_be_made_again_of_the_same_is_made_of_what_is_there_when_somebody_wants_it(
    history: History,
) -> None:
    history.is_restless = True
    flag = {**SCAN, "key": "flag", "depends_on": ["calibrate"], "recompute": True}
    history.define(SCAN, flag, {**MAP, "depends_on": ["flag"]})
    history.archive()
    history.settle()
    assert let_go(history) == 1
    history.session(lambda session: _lose(session, history.runs_of("calibrate")[0].id))
    redone(history)
    assert repeats(history) == []
    assert ": what it was made of is gone, and `ccat trigger it --step flag " in (told(history) or "")


def _lose(session: Session, run_id: int) -> None:
    """Delete what a run made though its step makes nothing again, as is done where a pipeline is disabled."""
    copies = sa.select(_Copy.id).join(models.DataProduct).where(models.DataProduct.run_id == run_id)
    for status in _GOES:
        advance(session, _Copy, session.scalars(copies).all(), to=status, because=LET_GO, by="a test")
