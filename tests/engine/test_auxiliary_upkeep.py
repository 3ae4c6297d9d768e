"""What is maintained for rules that take calibrations: what it costs, and that nothing outlives its cause."""

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.auxiliary import find_candidates
from ccat_ops_db.gap.changes import Changes
from ccat_ops_db.gap.steps import pipeline_now
from ccat_ops_db.states import RunReason, Verdict
from tests.engine.history import History
from tests.engine.order import check
from tests.engine.test_auxiliary import FLAT, MAP, by_flat, define, flat, of_source, told

SCAN = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
START = datetime.now(UTC)


@pytest.fixture
def skies(history: History) -> History:
    """Flats are made of scans of Saturn."""
    history.other_rules = of_source("Saturn")
    return history


def differences(history: History) -> set[tuple[bool, bool]]:
    """Whether only auxiliary inputs can differ, and whether some are lost, of every sub-group."""
    noted = sa.select(models.SubGroup.only_auxiliary, models.SubGroup.lost_auxiliary)
    return history.session(lambda session: {(only, lost) for only, lost in session.execute(noted)})


def test_a_rule_that_goes_takes_along_what_was_said_of_its_inputs(skies: History) -> None:
    define(skies, by_flat(), FLAT)
    made = flat(skies)
    skies.archive()
    skies.settle()
    skies.withdraw_products(made)
    skies.create()
    assert differences(skies) == {(True, True), (False, False)}
    define(skies, MAP, FLAT)
    skies.settle()
    assert differences(skies) == {(False, False)}
    gone = skies.archive()
    skies.settle()
    skies.exclude(gone)
    skies.create()
    assert skies.gap()["grid M17"].reason is RunReason.INPUTS_CHANGED
    check(skies)


def test_a_rebuild_forgets_what_is_said_of_inputs_by_no_rule(skies: History) -> None:
    define(skies, MAP)
    skies.archive()
    skies.settle()
    skies.execute(sa.update(models.SubGroup).values(only_auxiliary=True, lost_auxiliary=True))
    assert skies.rebuilt() == 1
    assert differences(skies) == {(False, False)}


def test_to_accept_is_said_of_what_was_given_up_and_not_of_a_calibration(skies: History) -> None:
    define(skies, SCAN, {**by_flat(), "depends_on": ["calibrate"]}, FLAT)
    skies.archive()
    skies.create()
    skies.start()
    [run] = skies.runs_of("calibrate")
    skies.fail(run.id)
    assert told(skies) == (
        Verdict.BLOCKED,
        (
            f"waits for calibrate {run.sub_group_path} (failed); `ccat accept` lets it go without; "
            "waits for flat of calibration/flat within 12 h of p1"
        ),
    )
    check(skies)


class TestLooks:
    """Which sub-groups are looked at because of a calibration, by how long ago their scans started."""

    @pytest.fixture
    def nightly(self, skies: History) -> History:
        """A calibrated scan every ten hours, each with a flat two hours before, and one without any."""
        calibrated = {**SCAN, "auxiliary": by_flat(max_age="2d", same=["instrument_module"])["auxiliary"]}
        define(skies, calibrated, FLAT)
        for hours in (10, 20, 30):
            skies.archive(hours_ago=hours, until=START)
            flat(skies, hours_ago=hours + 2, until=START)
        skies.archive(hours_ago=200, until=START)
        skies.settle()
        return skies

    @pytest.mark.parametrize(
        ("hours", "module", "found"),
        [
            (21, "CHAI/LFA", {20}),
            (22, "CHAI/LFA", {20}),
            (18.1, "CHAI/LFA", {20}),
            (16, "CHAI/LFA", set()),
            (21, "CHAI/HFA", set()),
            (160, "CHAI/LFA", {200}),
            (260, "CHAI/LFA", set()),
        ],
    )
    def test_of_a_new_flat_only_those_to_which_none_is_nearer(
        self, nightly: History, hours: float, module: str, found: set[int]
    ) -> None:
        made = flat(nightly, hours_ago=hours, module=module, until=START)
        assert looked_at(nightly, made) == found

    def test_of_a_flat_that_is_withdrawn_only_those_that_have_it(self, nightly: History) -> None:
        run = nightly.runs_of("flat")[1].id
        nightly.withdraw_products(run)
        assert looked_at(nightly, run) == {20}


def looked_at(history: History, run_id: int) -> set[int]:
    """How many hours before the start those were observed that are looked at when a flat changed."""
    run, member, scan = models.ExecutedReductionStep, models.SubGroupPackage, models.ExecutedObsUnit
    package = models.RawDataPackage
    starts = sa.select(scan.started_at).join(package, package.executed_obs_unit_id == scan.id)
    starts = starts.join(member, member.raw_data_package_id == package.id)

    def look(session: Session) -> set[int]:
        with session.begin_nested() as savepoint:
            made = session.get_one(run, run_id)
            places = {made.reduction_step_id: frozenset({made.sub_group_key})}
            pipeline = pipeline_now(session, history.pipeline_id)
            changes = Changes(frozenset(), places, is_everything=False)
            found = find_candidates(session, pipeline.steps[0], changes)
            moments = session.scalars(starts.where(found.covers(member.sub_group_id))).all()
            savepoint.rollback()
        return {round((START - at) / timedelta(hours=1)) for at in moments}

    return history.session(look)


_MANY = """
    INSERT INTO auxiliary_candidate (reduction_step_id, name, raw_data_package_id, run_id, observed_at, same_key)
    SELECT reduction_step_id, name, 1000000 + n, 1000000 + n, observed_at - n * interval '1 hour', same_key
    FROM auxiliary_candidate, generate_series(1, 20000) n
"""
_EXPLAINED = """
    EXPLAIN DELETE FROM auxiliary_candidate
    WHERE reduction_step_id = :step AND name = 'flat' AND run_id = ANY(:runs)
"""


def test_the_candidates_of_a_run_are_found_among_many(skies: History) -> None:
    define(skies, by_flat(), FLAT)
    made = flat(skies)
    skies.create()
    for statement in (_MANY, "ANALYZE auxiliary_candidate", "SET LOCAL plan_cache_mode = force_generic_plan"):
        skies.execute(sa.text(statement))
    step = sa.select(models.AuxiliaryCandidate.reduction_step_id).limit(1)

    def plan(session: Session) -> str:
        of_run = {"step": session.scalars(step).one(), "runs": [made]}
        return "\n".join(session.scalars(sa.text(_EXPLAINED), of_run))

    assert "Index Scan using ix_auxiliary_candidate_run" in skies.session(plan)
