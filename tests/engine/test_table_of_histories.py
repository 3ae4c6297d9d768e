"""What an observatory does to its pipelines, history by history: what is made again, and what is left alone."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from ccat_ops_db.states import SOUND_COPY_STATUSES, PhysicalCopyStatus, ProductState, RunReason, RunStatus, Verdict
from tests.engine.happenings import RECENT
from tests.engine.history import WAY_OUT, History
from tests.engine.order import check

CURRENT, SUPERSEDED, ORPHANED = ProductState.CURRENT, ProductState.SUPERSEDED, ProductState.ORPHANED
SCAN = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
MAP = {"key": "grid", "group_by": ["source"], "depends_on": ["calibrate"]}
CUBE = {"key": "cube", "group_by": [], "depends_on": ["grid"]}
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


@pytest.fixture
def history(fresh_history: Callable[[], History]) -> Iterator[History]:
    """An installation in whose end everything has to be in order."""
    history = fresh_history()
    yield history
    history.enable(enabled=True)
    history.create()
    check(history)
    assert history.rebuilt() == 0
    assert history.create() == 0


@pytest.fixture
def mapped(history: History) -> History:
    """Two scans of M17, calibrated and mapped."""
    history.define(SCAN, MAP)
    history.archive()
    history.archive()
    assert history.settle() == ["calibrate", "calibrate", "grid"]
    return history


def started(history: History, step: str) -> int:
    """The run of a step that is under way."""
    history.create()
    history.start()
    return history.runs_of(step)[-1].id


def reason(history: History, step: str) -> RunReason:
    """Why the newest run of a step was made."""
    return history.runs_of(step)[-1].reason


class TestData:
    def test_a_scan_that_comes_while_a_map_is_made_waits_for_the_next_map(self, mapped: History) -> None:
        mapped.archive()
        mapped.complete(started(mapped, "calibrate"))
        first = started(mapped, "grid")
        mapped.archive()
        mapped.complete(started(mapped, "calibrate"))
        assert mapped.create() == 0
        mapped.complete(first)
        assert mapped.settle() == ["grid"]
        assert reason(mapped, "grid") is RunReason.INPUTS_CHANGED
        assert mapped.products("grid") == [SUPERSEDED, SUPERSEDED, CURRENT]

    def test_a_scan_every_minute_does_not_keep_a_map_that_rests_from_being_made(self, history: History) -> None:
        history.define(SCAN, {**MAP, "cooldown_seconds": 180})
        made = []
        for minute in range(8):
            history.archive()
            history.create()
            history.start()
            # The scan of this minute is still being calibrated when the map is looked at.
            history.complete(*[run.id for run in history.runs() if run.status is RunStatus.STAGING_DATA][:-1])
            history.offset += MINUTE
            made.append(len(history.runs_of("grid")))
            assert made[-1] <= minute // 3
        assert made[-1] == 2
        history.offset += HOUR
        history.settle()

    def test_an_excluded_scan_leaves_the_map_and_comes_back(self, mapped: History) -> None:
        mapped.exclude(mapped.packages[0])
        assert mapped.settle() == ["grid"]
        assert sorted(mapped.products("calibrate")) == [CURRENT, ORPHANED]
        mapped.readmit(mapped.packages[0])
        assert mapped.settle() == ["calibrate", "grid"]
        assert sorted(mapped.products("calibrate")) == [CURRENT, CURRENT, SUPERSEDED]
        assert mapped.products("grid") == [SUPERSEDED, SUPERSEDED, CURRENT]

    def test_the_last_scan_that_is_excluded_takes_everything_with_it(self, mapped: History) -> None:
        for package in mapped.packages:
            mapped.exclude(package)
        assert mapped.settle() == []
        assert set(mapped.products()) == {ORPHANED}
        mapped.readmit(mapped.packages[1])
        assert mapped.settle() == ["calibrate", "grid"]
        assert mapped.products("grid") == [SUPERSEDED, CURRENT]

    def test_what_is_made_of_a_scan_that_was_excluded_meanwhile_does_not_count(self, history: History) -> None:
        history.define(SCAN)
        package = history.archive()
        run = started(history, "calibrate")
        history.move(run, RunStatus.SUBMITTED, RunStatus.COLLECTING_RESULTS)
        history.exclude(package)
        history.create()
        history.complete(run)
        assert history.settle() == []
        assert history.products() == [ORPHANED]

    def test_a_run_that_has_begun_is_cancelled_with_its_last_scan_and_made_anew_when_that_is_back(
        self, history: History
    ) -> None:
        history.define(SCAN)
        package = history.archive()
        started(history, "calibrate")
        history.exclude(package)
        history.create()
        assert history.ids(RunStatus.CANCELLED)
        assert (history.settle(), history.products()) == ([], [])
        history.readmit(package)
        assert history.settle() == ["calibrate"]

    def test_a_run_that_waits_is_dropped_with_its_last_scan(self, history: History) -> None:
        history.define(SCAN)
        package = history.archive()
        history.create()
        history.withdraw(package)
        assert history.start().not_needed
        history.readmit(package)
        assert history.settle() == ["calibrate"]

    def test_a_source_that_is_renamed_redoes_nothing_and_is_called_so_from_now_on(self, mapped: History) -> None:
        mapped.rename("M17", "Omega")
        assert mapped.settle() == []
        [grid] = [one for one in mapped.gap().values() if one.step.key == "grid"]
        assert grid.labels == {"source": "Omega"}
        assert grid.path.startswith("Omega-")
        mapped.archive(source="Omega")
        mapped.settle()
        assert mapped.runs_of("grid")[-1].sub_group_path == grid.path

    def test_an_observation_of_another_source_moves_to_its_map_alone(self, mapped: History) -> None:
        mapped.archive(source="Orion A")
        mapped.settle()
        mapped.reassign(mapped.packages[0], observation="Orion A")
        assert mapped.settle() == ["grid", "grid"]
        assert mapped.products("grid", sub_group="M17-%") == [SUPERSEDED, CURRENT]
        assert mapped.products("grid", sub_group="Orion%") == [SUPERSEDED, CURRENT]
        mapped.correct("M17", source="Orion A")
        assert mapped.settle() == ["grid"]
        assert mapped.products("grid", sub_group="M17-%") == [SUPERSEDED, ORPHANED]
        assert mapped.products("calibrate") == [CURRENT] * 3

    def test_what_fades_by_a_relative_time_starts_nothing_and_orphans_nothing(self, history: History) -> None:
        history.define(SCAN, MAP, rules=[RECENT])
        history.archive(hours_ago=20)
        history.archive()
        history.settle()
        history.offset += 10 * HOUR
        assert history.settle() == []
        assert set(history.products()) == {CURRENT}
        history.archive()
        assert history.settle() == ["calibrate", "grid"]
        history.offset += 40 * HOUR
        assert history.settle() == []
        assert history.products("grid") == [SUPERSEDED, CURRENT]


class TestRuns:
    def test_the_same_bytes_upstream_redo_nothing_below(self, mapped: History) -> None:
        mapped.stable = {"calibrate"}
        mapped.configure("calibrate", 1)
        assert mapped.settle() == ["calibrate", "calibrate", "grid"]
        mapped.configure("calibrate", 2)
        assert mapped.settle() == ["calibrate", "calibrate"]

    def test_what_waits_for_upstream_goes_without_a_run_where_its_bytes_stay_the_same(self, mapped: History) -> None:
        mapped.stable = {"calibrate"}
        mapped.configure("calibrate", 1)
        mapped.settle()
        mapped.configure("calibrate", 2)
        mapped.create()
        assert mapped.verdicts()["grid M17"] is Verdict.BLOCKED
        assert mapped.settle() == ["calibrate", "calibrate"]
        assert mapped.verdicts()["grid M17"] is Verdict.UP_TO_DATE

    def test_what_waits_for_upstream_is_made_of_its_new_bytes(self, mapped: History) -> None:
        mapped.configure("calibrate", 1)
        mapped.create()
        assert mapped.verdicts()["grid M17"] is Verdict.BLOCKED
        assert mapped.settle() == ["calibrate", "calibrate", "grid"]
        assert reason(mapped, "grid") is RunReason.UPSTREAM_CHANGED

    def test_a_map_that_waits_to_start_while_upstream_is_made_again_takes_what_is_new(self, mapped: History) -> None:
        mapped.configure("grid", 1)
        mapped.create()
        mapped.configure("calibrate", 1)
        mapped.create()
        assert mapped.start(mapped.runs_of("grid")[-1].id).waiting
        assert mapped.settle() == ["calibrate", "calibrate", "grid"]
        assert mapped.settle() == []

    @pytest.mark.parametrize("reopen", ["inputs", "recipe"])
    def test_a_cancelled_run_comes_back_with_other_inputs_or_another_recipe_only(
        self, history: History, reopen: str
    ) -> None:
        history.define({"key": "grid", "group_by": ["source"]})
        history.archive()
        history.cancel(started(history, "grid"))
        assert history.settle() == []
        assert history.verdicts() == {"grid M17": Verdict.CANCELLED}
        if reopen == "inputs":
            history.archive()
        else:
            history.configure("grid", 1)
        assert history.settle() == ["grid"]

    def test_a_retry_whose_inputs_changed_meanwhile_makes_way_for_a_new_run(self, history: History) -> None:
        history.define({"key": "grid", "group_by": ["source"]})
        history.archive()
        history.fail(started(history, "grid"), retried=True)
        assert history.create() == 0
        history.archive()
        assert history.settle() == ["grid"]
        failed, done = history.runs()
        assert (failed.status, failed.retry_at, done.status) == (RunStatus.FAILED, None, RunStatus.COMPLETED)
        assert failed.waiting_for == "outdated: the inputs changed since its last attempt"

    def test_a_retry_of_what_is_still_wanted_is_the_same_run(self, history: History) -> None:
        history.define({"key": "grid", "group_by": ["source"]})
        history.archive()
        run = started(history, "grid")
        history.fail(run, retried=True)
        history.offset += 2 * HOUR
        assert history.settle() == ["grid"]
        assert [one.id for one in history.runs()] == [run]

    def test_damaged_products_are_made_again_unless_there_is_another_copy(self, mapped: History) -> None:
        scan, other, _ = (run.id for run in mapped.runs())
        mapped.damage(other)
        mapped.copy(other)
        assert mapped.settle() == []
        mapped.damage(scan)
        assert mapped.settle() == ["calibrate"]
        assert reason(mapped, "calibrate") is RunReason.INVALIDATED

    def test_what_an_archive_has_is_brought_from_there_and_not_made_again(self, mapped: History) -> None:
        _, other, _ = (run.id for run in mapped.runs())
        mapped.damage(other)
        mapped.copy(other, archived=True)
        assert mapped.settle() == []

    @pytest.mark.parametrize("status", WAY_OUT)
    def test_a_damaged_product_is_made_again_once_its_other_copy_is_let_go(
        self, mapped: History, status: PhysicalCopyStatus
    ) -> None:
        scan, *_ = (run.id for run in mapped.runs())
        mapped.copy(scan)
        mapped.damage_first(scan)
        assert mapped.settle() == []
        mapped.let_go(scan, status)
        check(mapped)
        assert mapped.rebuilt() == 0
        assert mapped.settle() == ([] if status in SOUND_COPY_STATUSES else ["calibrate"])


class TestVersions:
    @pytest.mark.parametrize(
        ("policy", "redone"),
        [
            ({"version_policy": "compatible"}, {"1.1": False, "2.0": True}),
            ({"version_policy": "latest"}, {"1.1": True, "2.0": True}),
            ({"version_policy": "exact", "version": "1.0"}, {"1.1": False, "2.0": False}),
        ],
    )
    def test_a_release_redoes_what_the_policy_says(
        self, history: History, policy: dict[str, str], redone: dict[str, bool]
    ) -> None:
        history.define({"key": "grid", "group_by": ["source"], **policy})
        history.archive()
        history.settle()
        for version, is_redone in redone.items():
            history.release("grid", version, series=version[0])
            assert history.settle() == ["grid"] * is_redone

    @pytest.mark.parametrize("state", ["retired", "withdrawn"])
    def test_without_its_newest_version_compatible_work_goes_on_with_the_one_before(
        self, mapped: History, state: str
    ) -> None:
        mapped.release("calibrate", "1.1")
        mapped.set_state("calibrate", "1.1", state)
        mapped.archive()
        assert mapped.settle() == ["calibrate", "grid"]

    def test_without_any_version_nothing_starts_until_one_is_released(self, mapped: History) -> None:
        mapped.set_state("calibrate", "1.0", "retired")
        mapped.archive()
        assert mapped.settle() == []
        assert mapped.verdicts()["grid M17"] is Verdict.BLOCKED
        mapped.release("calibrate", "1.1")
        assert mapped.settle() == ["calibrate", "grid"]

    def test_a_pinned_version_that_is_retired_starts_nothing(self, history: History) -> None:
        history.define({"key": "grid", "group_by": ["source"], "version_policy": "exact", "version": "1.0"})
        history.archive()
        history.release("grid", "1.1")
        history.set_state("grid", "1.0", "retired")
        assert history.settle() == []
        assert history.verdicts() == {"grid M17": Verdict.BLOCKED}
        history.set_state("grid", "1.0", "released")
        assert history.settle() == ["grid"]

    @pytest.mark.parametrize("policy", ["compatible", "latest"])
    def test_a_hot_fix_below_the_newest_version_redoes_nothing(self, history: History, policy: str) -> None:
        history.define({"key": "grid", "group_by": ["source"], "version_policy": policy})
        history.release("grid", "2.0", series="2")
        history.archive()
        history.settle()
        history.release("grid", "1.0.1")
        assert history.settle() == []

    def test_a_version_that_comes_while_a_run_is_under_way_redoes_it_once_it_is_done(self, history: History) -> None:
        history.define({"key": "grid", "group_by": ["source"]})
        history.archive()
        run = started(history, "grid")
        history.release("grid", "2.0", series="2")
        assert history.create() == 0
        history.complete(run)
        assert history.settle() == ["grid"]
        assert history.products() == [SUPERSEDED, CURRENT]


class TestDefinitions:
    @pytest.mark.parametrize(
        "change",
        [{"name": "Gridding"}, {"resources": {"cpu": 2}}, {"retention_days": 3}, {"max_retries": 9}, {"archive": True}],
        ids=["name", "resources", "retention", "retries", "archiving"],
    )
    def test_a_cosmetic_change_of_a_step_redoes_nothing(self, mapped: History, change: dict[str, object]) -> None:
        mapped.change("grid", **change)
        assert mapped.settle() == []
        assert set(mapped.products()) == {CURRENT}

    def test_that_what_a_step_makes_is_made_again_when_it_is_deleted_redoes_nothing(self, mapped: History) -> None:
        before = [run.recipe_digest for run in mapped.runs()]
        for said in (True, False):
            mapped.change("calibrate", recompute=said)
            assert mapped.settle() == []
        assert [run.recipe_digest for run in mapped.runs()] == before

    def test_another_description_redoes_nothing(self, mapped: History) -> None:
        mapped.define(SCAN, MAP, description="maps", priority=3)
        assert mapped.settle() == []

    def test_a_step_that_is_inserted_in_the_middle_is_made_and_what_follows_it(self, mapped: History) -> None:
        mapped.define(SCAN, {**SCAN, "key": "flag", "depends_on": ["calibrate"]}, {**MAP, "depends_on": ["flag"]})
        assert mapped.settle() == ["flag", "flag", "grid"]
        assert reason(mapped, "grid") is RunReason.RECIPE_CHANGED

    def test_a_step_that_is_removed_from_the_middle_and_put_back_is_not_made_again(self, mapped: History) -> None:
        mapped.define(SCAN, MAP, CUBE)
        assert mapped.settle() == ["cube"]
        mapped.define(SCAN, {**CUBE, "depends_on": ["calibrate"]})
        assert mapped.settle() == ["cube"]
        mapped.define(SCAN, MAP, CUBE)
        assert mapped.settle() == ["cube"]
        assert mapped.products("grid") == [CURRENT]

    def test_a_step_that_is_put_below_another_is_made_again(self, mapped: History) -> None:
        flat = {"key": "grid", "group_by": ["source"]}
        mapped.define(SCAN, flat)
        assert mapped.settle() == ["grid"]
        assert reason(mapped, "grid") is RunReason.RECIPE_CHANGED
        mapped.configure("calibrate", 1)
        assert mapped.settle() == ["calibrate", "calibrate"]

    def test_sub_groups_that_a_new_division_does_not_have_are_orphaned(self, mapped: History) -> None:
        mapped.define(SCAN, {**MAP, "group_by": ["observing_night"]})
        assert mapped.settle() == ["grid"]
        assert mapped.products("grid") == [ORPHANED, CURRENT]
        mapped.define(SCAN, MAP)
        assert mapped.settle() == ["grid"]
        assert mapped.products("grid") == [SUPERSEDED, ORPHANED, CURRENT]

    def test_a_pipeline_that_was_disabled_has_missed_nothing(self, mapped: History) -> None:
        gone = mapped.archive(source="Saturn")
        mapped.settle()
        mapped.enable(enabled=False)
        mapped.archive()
        mapped.exclude(gone)
        mapped.rename("M17", "Omega")
        mapped.configure("grid", 1)
        assert mapped.settle() == []
        mapped.enable(enabled=True)
        assert mapped.settle() == ["calibrate", "grid"]
        assert set(mapped.products(sub_group="Saturn%")) == {ORPHANED}
        assert mapped.runs_of("grid")[-1].sub_group_labels == {"source": "Omega"}
