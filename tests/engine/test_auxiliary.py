"""Calibrations that rules choose: which one, what is done without any, and what follows when they change."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.auxiliary import find_candidates
from ccat_ops_db.gap.changes import Changes, hand_out
from ccat_ops_db.queries.lineage import lineage
from ccat_ops_db.states import SOUND_COPY_STATUSES, PhysicalCopyStatus, RunReason, RunStatus, Verdict
from tests.engine.history import WAY_OUT, History
from tests.engine.order import check

FLAT = {"key": "flat", "group_by": ["executed_obs_unit"], "pipeline": "calibration"}
MAP = {"key": "grid", "group_by": ["source"]}
UP_TO_DATE = (Verdict.UP_TO_DATE, "recipe and inputs are those of the newest completed run")


def of_source(*names: str) -> list[dict[str, Any]]:
    return [{"table": "Source", "column": "name", "operator": "in", "value": list(names)}]


def rule(**keys: Any) -> dict[str, Any]:
    return {"name": "flat", "from": "calibration/flat", "max_age": "12h", **keys}


def by_flat(**keys: Any) -> dict[str, Any]:
    """The map, with flats by such a rule."""
    return {**MAP, "auxiliary": [rule(**keys)]}


@pytest.fixture
def history(fresh_history: Callable[[], History]) -> Iterator[History]:
    """Flats are made of scans of Saturn, maps of all others; in the end everything has to be in order."""
    history = fresh_history()
    history.other_rules = of_source("Saturn")
    yield history
    history.create()
    check(history)
    assert history.rebuilt() == 0
    assert history.create() == 0


def define(history: History, *steps: dict[str, Any], **keys: Any) -> None:
    history.define(*steps, rules=of_source("M17", "Orion A"), **keys)


def flat(history: History, **how: Any) -> int:
    """A flat field; the run that made it."""
    history.archive(source="Saturn", **how)
    history.create()
    history.start()
    run = history.runs_of("flat")[-1].id
    history.complete(run)
    return run


def told(history: History, sub_group: str = "grid M17") -> tuple[Verdict, str]:
    """The verdict on a map, once the inbox is empty."""
    history.create()
    found = history.gap()[sub_group]
    return found.verdict, found.because


def took(history: History, run_id: int | None = None) -> list[int]:
    """Runs whose products a run took as auxiliary inputs, by default the newest map."""
    wanted = run_id or history.runs_of("grid")[-1].id
    taken, product = models.RunInput, models.DataProduct
    query = sa.select(product.run_id).join(taken, taken.data_product_id == product.id)
    query = query.where(taken.run_id == wanted, taken.role == "auxiliary").order_by(product.run_id).distinct()
    return history.session(lambda session: list(session.scalars(query)))


def reason(history: History) -> RunReason:
    return history.runs_of("grid")[-1].reason


class TestChoice:
    @pytest.mark.parametrize(
        ("hours", "chosen"),
        [
            ((9, 6), 1),
            ((4, 1), 0),
            ((8, 3), 1),
            ((7, 3), 0),
            ((5, 5), 0),
            ((17, 16.9), 1),
        ],
    )
    def test_the_nearest_is_taken_before_or_after_and_of_equals_the_earlier(
        self, history: History, hours: tuple[float, float], chosen: int
    ) -> None:
        define(history, by_flat(), FLAT)
        now = history.now
        flats = [flat(history, hours_ago=one, until=now) for one in hours]
        history.archive(hours_ago=5, until=now)
        history.settle()
        assert took(history) == [flats[chosen]]

    @pytest.mark.parametrize(("hours", "is_taken"), [(17, True), (17.001, False)])
    def test_what_is_as_old_as_allowed_is_taken_and_nothing_older(
        self, history: History, hours: float, *, is_taken: bool
    ) -> None:
        define(history, by_flat(), FLAT)
        now = history.now
        run = flat(history, hours_ago=hours, until=now)
        history.archive(hours_ago=5, until=now)
        assert history.settle() == (["grid"] if is_taken else [])
        assert not is_taken or took(history) == [run]

    def test_every_scan_of_a_map_gets_the_flat_of_its_own_night(self, history: History) -> None:
        define(history, by_flat(), FLAT)
        flats = [flat(history, hours_ago=hours) for hours in (50, 26, 2)]
        for hours in (49, 25):
            history.archive(hours_ago=hours)
        history.settle()
        assert took(history) == flats[:2]

    def test_a_flat_of_another_module_is_never_taken(self, history: History) -> None:
        define(history, by_flat(same=["instrument_module"]), FLAT)
        flat(history, hours_ago=1, module="CHAI/HFA")
        far = flat(history, hours_ago=9)
        history.archive(hours_ago=1)
        history.settle()
        assert took(history) == [far]

    def test_a_flat_of_several_modules_is_of_none(self, history: History) -> None:
        define(history, by_flat(same=["instrument_module"]), {**FLAT, "group_by": []})
        for module in ("CHAI/HFA", "CHAI/LFA"):
            history.archive(source="Saturn", module=module)
        history.archive()
        assert history.settle() == ["flat"]
        assert told(history) == (Verdict.BLOCKED, "waits for flat of calibration/flat within 12 h of p3")

    def test_several_rules_choose_each_for_itself(self, history: History) -> None:
        steps: list[dict[str, Any]] = [
            {**FLAT, "key": "dark"},
            {**MAP, "auxiliary": [rule(), rule(name="dark", **{"from": "calibration/dark"})]},
        ]
        define(history, *steps, FLAT)
        history.archive(source="Saturn")
        history.archive()
        assert sorted(history.settle()) == ["dark", "flat", "grid"]
        assert len(took(history)) == 2

    def test_the_step_may_be_of_the_same_pipeline(self, history: History) -> None:
        dark = {"key": "dark", "group_by": ["executed_obs_unit"]}
        define(history, {**MAP, "auxiliary": [rule(name="dark", **{"from": "it/dark"})]}, dark)
        history.archive()
        assert history.settle() == ["dark", "grid"]
        assert took(history) == [history.runs_of("dark")[0].id]

    def test_auxiliary_inputs_are_no_coverage(self, history: History) -> None:
        define(history, by_flat(), FLAT)
        flat(history)
        package = history.archive()
        history.settle()
        run, coverage = history.runs_of("grid")[-1].id, models.RunCoverage
        query = sa.select(coverage.raw_data_package_id).filter_by(run_id=run)
        assert history.session(lambda session: list(session.scalars(query))) == [package]

    def test_lineage_names_them(self, history: History) -> None:
        define(history, by_flat(), FLAT)
        made = flat(history)
        history.archive()
        history.settle()
        run = history.runs_of("grid")[-1].id
        product = sa.select(models.DataProduct.id).filter_by(run_id=run)
        found = history.session(lambda session: lineage(session, session.scalars(product).one()))
        [taken] = found.runs[run].auxiliary["flat"]
        assert (found.products[taken].run_id, found.runs[run].product_ids) == (made, ())
        assert {one.source for one in found.packages.values()} == {"M17", "Saturn"}


class TestMissing:
    def test_a_map_waits_and_runs_when_a_flat_is_there(self, history: History) -> None:
        define(history, by_flat(), FLAT)
        history.archive()
        history.archive()
        assert told(history) == (Verdict.BLOCKED, "waits for flat of calibration/flat within 12 h of p1, p2")
        flat(history)
        assert history.settle() == ["grid"]

    def test_many_packages_are_told_by_their_number(self, history: History) -> None:
        define(history, by_flat(max_age="1d"), FLAT)
        for _ in range(5):
            history.archive()
        assert told(history)[1] == "waits for flat of calibration/flat within 1 d of p1, p2, p3 and 2 more"

    def test_one_package_without_a_flat_is_enough_to_wait(self, history: History) -> None:
        define(history, by_flat(), FLAT)
        flat(history)
        history.archive()
        history.archive(hours_ago=30)
        assert told(history) == (Verdict.BLOCKED, "waits for flat of calibration/flat within 12 h of p3")

    def test_a_step_that_fails_without_is_given_up_and_taken_up_again(self, history: History) -> None:
        cube = {"key": "cube", "group_by": [], "depends_on": ["grid"], "on_failed_input": "omit"}
        define(history, by_flat(on_missing="fail"), FLAT, cube)
        history.archive(hours_ago=40)
        history.archive(source="Orion A")
        flat(history)
        assert history.settle() == ["grid", "cube"]
        assert told(history) == (
            Verdict.FAILED,
            "given up, for there is no flat of calibration/flat within 12 h of p1",
        )
        flat(history, hours_ago=39)
        assert history.settle() == ["grid", "cube"]

    def test_what_is_missing_twice_is_told_twice(self, history: History) -> None:
        dark = rule(name="dark", max_age="30m", **{"from": "calibration/dark"})
        define(history, {**MAP, "auxiliary": [rule(), dark]}, FLAT, {**FLAT, "key": "dark"})
        history.archive()
        assert told(history)[1] == (
            "waits for dark of calibration/dark within 30 m of p1, and flat of calibration/flat within 12 h of p1"
        )


class TestBetter:
    @pytest.fixture
    def mapped(self, history: History) -> History:
        """A map with a flat that is four hours off."""
        define(history, by_flat(), FLAT)
        flat(history, hours_ago=4)
        history.archive()
        assert history.settle() == ["grid"]
        return history

    @pytest.fixture
    def eager(self, mapped: History) -> History:
        """The same, redone for better ones."""
        define(mapped, by_flat(redo_on_better=True), FLAT)
        assert mapped.settle() == []
        return mapped

    def test_a_better_one_changes_nothing(self, mapped: History) -> None:
        flat(mapped)
        assert mapped.settle() == []
        assert told(mapped) == UP_TO_DATE

    def test_nor_does_a_trial_that_took_it(self, mapped: History) -> None:
        flat(mapped)
        [place] = mapped.gap().values()
        tried = mapped.try_out("grid", place.path, settings=["value=7"])
        mapped.start(*tried.runs.values())
        mapped.complete(*tried.runs.values())
        assert mapped.rebuilt() == 0
        assert mapped.settle() == []

    def test_a_better_one_is_taken_when_there_is_a_run_anyway(self, mapped: History) -> None:
        better = flat(mapped)
        mapped.configure("grid", 1)
        assert mapped.settle() == ["grid"]
        assert (reason(mapped), took(mapped)) == (RunReason.RECIPE_CHANGED, [better])

    def test_a_new_scan_takes_the_better_one_for_all(self, mapped: History) -> None:
        better = flat(mapped)
        mapped.archive()
        assert mapped.settle() == ["grid"]
        assert (reason(mapped), took(mapped)) == (RunReason.INPUTS_CHANGED, [better])

    def test_a_better_one_redoes_where_the_step_says_so(self, eager: History) -> None:
        better = flat(eager)
        verdict, because = told(eager)
        assert verdict is Verdict.WANTED
        [before] = eager.runs_of("grid")[:1]
        assert because.startswith(f"better auxiliary inputs since run {before.id}: flat of calibration/flat ")
        assert eager.settle() == ["grid"]
        assert (reason(eager), took(eager)) == (RunReason.AUXILIARY_CHANGED, [better])

    def test_to_say_so_takes_what_has_come_before(self, mapped: History) -> None:
        better = flat(mapped)
        define(mapped, by_flat(redo_on_better=True), FLAT)
        assert mapped.settle() == ["grid"]
        assert (reason(mapped), took(mapped)) == (RunReason.AUXILIARY_CHANGED, [better])

    def test_it_rests_from_when_the_better_one_was_made(self, history: History) -> None:
        define(history, {**by_flat(redo_on_better=True), "cooldown_seconds": 3600}, FLAT)
        flat(history, hours_ago=4)
        history.archive()
        history.offset += timedelta(hours=2)
        assert history.settle() == ["grid"]
        history.offset += timedelta(hours=2)
        flat(history, hours_ago=2)
        assert told(history)[0] is Verdict.COOLING
        history.offset += timedelta(hours=1)
        assert history.settle() == ["grid"]

    @pytest.mark.parametrize("redoes", [False, True])
    def test_a_flat_made_again_with_the_same_bytes_redoes_nothing(self, mapped: History, *, redoes: bool) -> None:
        define(mapped, by_flat(redo_on_better=redoes), FLAT)
        mapped.stable.add("flat")
        mapped.configure("flat", 1)
        mapped.settle()
        mapped.configure("grid", 1)
        mapped.settle()
        before = len(mapped.runs_of("grid"))
        mapped.configure("flat", 2)
        assert mapped.settle() == ["flat"]
        assert len(mapped.runs_of("grid")) == before

    def test_a_flat_that_is_made_again_with_other_bytes_redoes_only_where_the_step_says_so(
        self, mapped: History
    ) -> None:
        mapped.configure("flat", 1)
        assert mapped.settle() == ["flat"]
        define(mapped, by_flat(redo_on_better=True), FLAT)
        assert mapped.settle() == ["grid"]
        mapped.configure("flat", 2)
        assert mapped.settle() == ["flat", "grid"]

    def test_a_better_one_while_a_run_is_under_way_is_not_taken_by_it(self, history: History) -> None:
        define(history, by_flat(), FLAT)
        first = flat(history, hours_ago=4)
        history.archive()
        history.create()
        history.start()
        flat(history)
        history.complete(history.runs_of("grid")[0].id)
        assert history.settle() == []
        assert took(history) == [first]


class TestLost:
    @pytest.fixture(params=[False, True], ids=["keeping", "redoing"])
    def mapped(self, history: History, request: pytest.FixtureRequest) -> History:
        """A map with the nearest of two flats, which are not made again."""
        define(history, by_flat(redo_on_better=request.param), FLAT)
        flat(history, hours_ago=4)
        flat(history)
        history.archive()
        assert history.settle() == ["grid"]
        history.set_state("flat", "1.0", "retired")
        return history

    def test_a_flat_that_is_withdrawn_is_replaced_by_the_next_nearest(self, mapped: History) -> None:
        far, near = (run.id for run in mapped.runs_of("flat"))
        mapped.withdraw_products(near)
        verdict, because = told(mapped)
        assert verdict is Verdict.WANTED
        before = f"auxiliary inputs of run {mapped.runs_of('grid')[0].id} do not count any more: "
        assert because.startswith(f"{before}flat of calibration/flat ")
        assert mapped.settle() == ["grid"]
        assert (reason(mapped), took(mapped)) == (RunReason.AUXILIARY_CHANGED, [far])

    def test_a_flat_that_is_damaged_is_replaced_by_the_next_nearest(self, mapped: History) -> None:
        far, near = (run.id for run in mapped.runs_of("flat"))
        mapped.damage(near)
        assert mapped.settle() == ["grid"]
        assert took(mapped) == [far]

    def test_a_damaged_flat_whose_copy_comes_back_changes_nothing(self, mapped: History) -> None:
        [run] = took(mapped)
        mapped.damage(run)
        assert mapped.gap()["grid M17"].verdict is Verdict.WANTED
        mapped.copy(run)
        assert mapped.gap()["grid M17"].verdict is Verdict.UP_TO_DATE

    @pytest.mark.parametrize("status", WAY_OUT)
    def test_a_damaged_flat_is_taken_until_its_other_copy_is_let_go(
        self, mapped: History, status: PhysicalCopyStatus
    ) -> None:
        far, near = (run.id for run in mapped.runs_of("flat"))
        mapped.copy(near)
        mapped.damage_first(near)
        mapped.let_go(near, status)
        is_sound = status in SOUND_COPY_STATUSES
        assert mapped.settle() == ([] if is_sound else ["grid"])
        assert took(mapped) == [near if is_sound else far]

    def test_without_any_other_the_map_waits(self, mapped: History) -> None:
        for run in mapped.runs_of("flat"):
            mapped.withdraw_products(run.id)
        verdict, because = told(mapped)
        assert (verdict, because) == (Verdict.BLOCKED, "waits for flat of calibration/flat within 12 h of p3")
        assert mapped.settle() == []

    def test_one_that_is_made_again_with_the_same_bytes_is_as_good(self, mapped: History) -> None:
        for run in mapped.runs_of("flat"):
            mapped.withdraw_products(run.id)
        assert told(mapped)[0] is Verdict.BLOCKED
        mapped.set_state("flat", "1.0", "released")
        assert mapped.settle() == ["flat", "flat"]
        assert told(mapped) == UP_TO_DATE

    @pytest.mark.parametrize("lose", ["withdraw_products", "damage"])
    def test_one_that_was_made_again_since_is_kept_until_it_does_not_count(self, history: History, lose: str) -> None:
        define(history, by_flat(), FLAT)
        old = flat(history)
        history.archive()
        history.settle()
        history.configure("flat", 1)
        assert history.settle() == ["flat"]
        assert told(history) == UP_TO_DATE
        getattr(history, lose)(old)
        assert history.settle() == ["grid"]
        assert took(history) == [history.runs_of("flat")[-1].id]

    def test_what_was_made_with_it_is_not_passed_on_though_a_scan_is_new_too(self, history: History) -> None:
        cube = {"key": "cube", "group_by": [], "depends_on": ["grid"], "readiness": "available"}
        define(history, by_flat(), cube, FLAT)
        made = flat(history)
        history.archive()
        assert history.settle() == ["grid", "cube"]
        history.set_state("flat", "1.0", "retired")
        history.withdraw_products(made)
        history.archive()
        assert told(history)[0] is Verdict.BLOCKED
        assert told(history, "cube")[0] is Verdict.BLOCKED

    def test_a_flat_whose_scan_is_excluded_does_not_count(self, mapped: History) -> None:
        mapped.exclude(mapped.packages[1])
        mapped.create()
        assert mapped.settle() == ["grid"]
        assert took(mapped) == [mapped.runs_of("flat")[0].id]


class TestChanges:
    def test_only_the_maps_around_a_flat_are_looked_at(self, history: History) -> None:
        define(history, {**by_flat(max_age="1h"), "group_by": ["executed_obs_unit"]}, FLAT)
        for hours in (30, 20, 10):
            history.archive(hours_ago=hours)
        [step] = {one.step for one in history.gap().values()}
        flat(history, hours_ago=20)
        [run] = history.runs_of("flat")
        changes = Changes(frozenset(), {run.reduction_step_id: frozenset({run.sub_group_key})}, is_everything=False)

        def look(session: Session) -> list[int]:
            with session.begin_nested() as savepoint:
                found = find_candidates(session, step, changes).ids
                savepoint.rollback()
            return list(found or ())

        [looked_at] = history.session(look)
        [around] = [one.id for one in history.gap().values() if one.verdict is Verdict.WANTED]
        assert looked_at == around

    def test_the_pipelines_that_choose_are_told_by_the_inbox_and_no_others(self, history: History) -> None:
        define(history, by_flat(), FLAT, {"key": "other", "group_by": [], "pipeline": "other"})
        history.archive()
        history.create()
        history.archive(source="Saturn")
        history.create()
        history.start()
        history.create()
        history.complete(history.runs_of("flat")[0].id)
        history.session(hand_out)
        change, pipeline = models.PendingChange, models.Pipeline
        names = sa.select(pipeline.name).join(change, change.pipeline_id == pipeline.id).order_by(pipeline.name)
        assert history.session(lambda session: session.scalars(names).all()) == ["calibration", "it"]
        assert history.settle() == ["other", "grid"]

    def test_a_scan_whose_time_is_corrected_takes_the_flat_along(self, history: History) -> None:
        define(history, by_flat(), FLAT)
        flat(history, hours_ago=30)
        history.archive()
        assert told(history)[0] is Verdict.BLOCKED
        history.scan_of(history.packages[0], started_at=history.now - timedelta(hours=1), ended_at=history.now)
        assert history.settle() == ["grid"]

    def test_a_scan_whose_time_is_corrected_leaves_what_waits_for_it(self, history: History) -> None:
        define(history, by_flat(), FLAT)
        flat(history)
        history.archive()
        assert told(history)[0] is Verdict.WANTED
        long_ago = history.now - timedelta(hours=40)
        history.scan_of(history.packages[0], started_at=long_ago, ended_at=history.now)
        assert told(history)[0] is Verdict.BLOCKED
        assert history.start().waiting

    def test_a_flat_that_is_withdrawn_before_the_start_is_not_taken(self, history: History) -> None:
        define(history, by_flat(), FLAT)
        far, near = flat(history, hours_ago=4), flat(history)
        history.archive()
        history.create()
        history.withdraw_products(near)
        history.start(history.runs_of("grid")[0].id)
        assert took(history) == [far]

    def test_a_flat_that_is_made_while_the_pipeline_is_disabled_is_found_afterwards(self, history: History) -> None:
        define(history, by_flat(), FLAT)
        history.archive()
        assert told(history)[0] is Verdict.BLOCKED
        history.enable(enabled=False)
        flat(history)
        history.enable(enabled=True)
        assert history.settle() == ["grid"]

    def test_a_rule_that_goes_leaves_nothing(self, history: History) -> None:
        define(history, by_flat(), FLAT)
        history.archive()
        flat(history)
        define(history, MAP, FLAT)
        assert history.settle() == ["grid"]
        assert took(history) == []
        nouns = (models.AuxiliaryCandidate, models.AuxiliaryNearest, models.AuxiliaryChoice)
        rows = [sa.select(sa.func.count()).select_from(noun) for noun in nouns]
        assert history.session(lambda session: [session.scalar(one) for one in rows]) == [0, 0, 0]

    def test_a_retry_takes_what_its_first_attempt_took(self, history: History) -> None:
        define(history, by_flat(), FLAT)
        made = flat(history)
        history.archive()
        history.create()
        history.start()
        [run] = history.runs_of("grid")
        history.fail(run.id, retried=True)
        history.offset += timedelta(hours=2)
        assert history.retry() == [run.id]
        assert history.start().started == (run.id,)
        assert took(history) == [made]
        history.complete(run.id)
        assert history.runs(RunStatus.COMPLETED)[-1].id == run.id
