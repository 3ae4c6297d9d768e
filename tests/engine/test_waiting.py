"""What a step waits for, and what it goes without."""

from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from ccat.cli import app
from ccat_ops_db import models
from ccat_ops_db.lookup import UnknownName
from ccat_ops_db.session import transaction
from ccat_ops_db.states import RunReason, RunStatus, Verdict
from ccat_ops_db.verbs.coverage import NothingLeft, NothingToAccept
from ccat_ops_db.verbs.reasons import ReasonMissing
from tests.engine.history import History

SCAN = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
MAP = {"key": "grid", "group_by": ["source"], "depends_on": ["calibrate"], "cooldown_seconds": 60}
HINT = "; `ccat accept` lets it go without"
LATE = 1e-4
"""Hours between two packages."""


@pytest.fixture
def history(ops_db: sa.Engine) -> History:
    """Three scans of one source, an hour ago."""
    made = History(ops_db)
    for number in (3, 2, 1):
        made.archive(hours_ago=number * LATE)
    made.offset = timedelta(hours=1)
    return made


def by_step(history: History, step: str, *statuses: RunStatus) -> list[models.ExecutedReductionStep]:
    return [run for run in history.runs(*statuses) if history.step_of(run) == step]


def calibrate(history: History, *outcomes: Callable[[int], object] | None) -> list[models.ExecutedReductionStep]:
    """Let the runs of single scans come to an end, one after the other as they were observed."""
    history.create()
    history.start()
    runs = sorted(by_step(history, "calibrate", RunStatus.STAGING_DATA), key=lambda run: covered(history, run.id))
    for run, outcome in zip(runs, outcomes, strict=False):
        if outcome is not None:
            outcome(run.id)
    return runs


def covered(history: History, run_id: int) -> list[int]:
    coverage = models.RunCoverage
    query = sa.select(coverage.raw_data_package_id).filter_by(run_id=run_id).order_by(coverage.raw_data_package_id)
    with transaction(history.engine) as session:
        return list(session.scalars(query))


def test_the_first_map_is_made_of_all_that_was_there_when_it_was_defined(history: History) -> None:
    history.define(SCAN, MAP)
    calibrate(history, history.complete)
    assert (history.create(), told(history)[0]) == (0, Verdict.BLOCKED)
    calibrate(history, history.fail)
    calibrate(history, history.complete)
    assert told(history)[0] is Verdict.BLOCKED
    assert by_step(history, "grid") == []


def told(history: History, step: str = "grid") -> tuple[Verdict, str]:
    [found] = [one for one in history.gap().values() if one.step.key == step]
    return found.verdict, found.because


def path(history: History, step: str = "grid") -> str:
    [found] = [one for one in history.gap().values() if one.step.key == step]
    return found.path


def run_map(history: History) -> models.ExecutedReductionStep:
    """Make the map that is wanted."""
    history.create()
    history.start()
    [run] = by_step(history, "grid", RunStatus.STAGING_DATA)
    history.complete(run.id)
    return run


class TestFailedInputs:
    @pytest.mark.parametrize("outcome", ["fail", "cancel"])
    def test_a_map_goes_without_a_scan_that_was_given_up(self, history: History, outcome: str) -> None:
        history.define(SCAN, {**MAP, "on_failed_input": "omit"})
        calibrate(history, history.complete, history.complete, getattr(history, outcome))
        assert told(history) == (Verdict.WANTED, "no run has completed yet; leaves out 1 of 3 packages")
        run = run_map(history)
        assert covered(history, run.id) == history.packages[:2]
        assert told(history) == (
            Verdict.UP_TO_DATE,
            "recipe and inputs are those of the newest completed run; leaves out 1 of 3 packages",
        )

    def test_a_scan_that_is_still_on_its_way_is_waited_for(self, history: History) -> None:
        history.define(SCAN, {**MAP, "on_failed_input": "omit"})
        calibrate(history, history.complete, history.fail)
        verdict, because = told(history)
        assert verdict is Verdict.BLOCKED
        assert because.startswith("waits for calibrate ")
        assert because.endswith(" (running)")

    def test_a_scan_that_is_tried_again_is_not_given_up(self, history: History) -> None:
        history.define(SCAN, {**MAP, "on_failed_input": "omit"})
        calibrate(history, history.complete, history.complete, lambda run: history.fail(run, retried=True))
        assert told(history)[0] is Verdict.BLOCKED

    def test_a_scan_that_comes_through_later_is_an_ordinary_change(self, history: History) -> None:
        history.define(SCAN, {**MAP, "on_failed_input": "omit"})
        *_, failed = calibrate(history, history.complete, history.complete, history.fail)
        first = run_map(history)
        history.move(failed.id, RunStatus.PENDING, finished_at=None)
        assert told(history)[0] is Verdict.BLOCKED
        history.start()
        history.complete(failed.id)
        assert told(history) == (Verdict.WANTED, f"new since run {first.id}: p3")
        assert covered(history, run_map(history).id) == history.packages

    def test_where_nothing_is_left_the_map_waits(self, history: History) -> None:
        history.define(SCAN, {**MAP, "on_failed_input": "omit"})
        calibrate(history, history.fail, history.fail, history.cancel)
        verdict, because = told(history)
        assert verdict is Verdict.BLOCKED
        assert because.count("(failed)") == 2
        assert (because.count("(cancelled)"), because.count("`ccat accept`")) == (1, 0)
        with pytest.raises(NothingLeft):
            history.accept_for("grid", path(history))

    def test_raw_packages_that_are_left_out_are_no_inputs_either(self, history: History) -> None:
        history.define(SCAN, {**MAP, "on_failed_input": "omit", "inputs": ["raw", "upstream"]})
        calibrate(history, history.complete, history.fail, history.complete)
        first, _, third = history.packages
        assert covered(history, run_map(history).id) == [first, third]

    def test_what_was_given_up_far_up_is_left_out_far_down(self, history: History) -> None:
        flag = {"key": "flag", "group_by": ["executed_obs_unit"], "depends_on": ["calibrate"]}
        history.define(SCAN, flag, {**MAP, "depends_on": ["flag"], "on_failed_input": "omit"})
        calibrate(history, history.complete, history.complete, history.fail)
        history.settle()
        [run] = by_step(history, "grid")
        assert covered(history, run.id) == history.packages[:2]

    def test_a_scan_that_fails_with_a_new_version_does_not_go_in_with_the_old_one(self, history: History) -> None:
        history.define(SCAN, {**MAP, "on_failed_input": "omit"})
        history.settle()
        history.release("calibrate", "2.0", series="2")
        calibrate(history, history.complete, history.complete, history.fail)
        history.offset += timedelta(hours=1)
        [found] = [one for one in history.gap().values() if one.step.key == "grid"]
        assert (found.verdict, found.reason) == (Verdict.WANTED, RunReason.UPSTREAM_CHANGED)
        assert covered(history, run_map(history).id) == history.packages[:2]

    def test_while_a_scan_is_left_out_a_new_one_begins_a_rest_of_its_own(self, history: History) -> None:
        history.define(SCAN, {**MAP, "on_failed_input": "omit", "cooldown_seconds": 3600})
        calibrate(history, history.complete, history.complete, history.fail)
        history.offset += timedelta(hours=2)
        run_map(history)
        history.offset += timedelta(hours=9)
        history.archive()
        calibrate(history, history.complete)
        assert told(history)[0] is Verdict.COOLING

    def test_by_default_everything_waits(self, history: History) -> None:
        history.define(SCAN, MAP)
        calibrate(history, history.complete, history.complete, history.fail)
        verdict, because = told(history)
        assert verdict is Verdict.BLOCKED
        assert because.endswith(f"(failed){HINT}")

    def test_a_step_that_comes_to_omit_what_failed_is_looked_at_again_and_its_recipe_stays(
        self, history: History
    ) -> None:
        history.define(SCAN, MAP)
        calibrate(history, history.complete, history.complete, history.fail)
        before = history.gap()
        history.change("grid", on_failed_input="omit")
        assert told(history)[0] is Verdict.WANTED
        recipes = [
            {one.key: one.step.recipe for one in found.values() if one.step.key == "grid"}
            for found in (before, history.gap())
        ]
        assert recipes[0] == recipes[1]
        history.change("grid", on_failed_input="block")
        assert told(history)[0] is Verdict.BLOCKED


class TestAvailable:
    def test_a_map_of_what_is_there_is_made_of_the_first_scan(self, history: History) -> None:
        history.define(SCAN, {**MAP, "readiness": "available"})
        calibrate(history)
        assert told(history)[1].endswith("; 0 of 3 packages are ready, at least one must be")
        history.complete(by_step(history, "calibrate", RunStatus.STAGING_DATA)[0].id)
        assert told(history) == (Verdict.WANTED, "no run has completed yet; leaves out 2 of 3 packages")
        assert len(covered(history, run_map(history).id)) == 1

    def test_as_much_as_it_says_must_be_there(self, history: History) -> None:
        history.define(SCAN, {**MAP, "readiness": "available", "min_fraction": 0.6})
        _, second, third = calibrate(history, history.complete)
        verdict, because = told(history)
        assert verdict is Verdict.BLOCKED
        assert because.endswith("(running); 1 of 3 packages are ready, at least 60 % must be")
        history.complete(second.id)
        assert covered(history, run_map(history).id) == history.packages[:2]
        history.complete(third.id)
        assert history.settle() == ["grid"]

    def test_of_what_was_given_up_and_is_omitted_nothing_counts(self, history: History) -> None:
        history.define(SCAN, {**MAP, "readiness": "available", "min_fraction": 1, "on_failed_input": "omit"})
        calibrate(history, history.complete, history.complete, history.fail)
        assert told(history) == (Verdict.WANTED, "no run has completed yet; leaves out 1 of 3 packages")

    def test_what_was_given_up_counts_where_it_blocks(self, history: History) -> None:
        history.define(SCAN, {**MAP, "readiness": "available", "min_fraction": 1})
        calibrate(history, history.complete, history.complete, history.fail)
        assert told(history)[1].endswith(f"(failed); 2 of 3 packages are ready, at least 100 % must be{HINT}")


class TestAcceptedCoverage:
    @pytest.fixture
    def blocked(self, history: History) -> History:
        """A map that waits for its third scan, which failed."""
        history.define(SCAN, MAP)
        calibrate(history, history.complete, history.complete, history.fail)
        return history

    def test_the_map_is_made_without_what_was_missing(self, blocked: History) -> None:
        accepted = blocked.accept_for("grid", path(blocked), because="clouds at the end")
        assert accepted.packages == ("p3",)
        assert told(blocked) == (Verdict.WANTED, "no run has completed yet; leaves out 1 of 3 packages")
        assert covered(blocked, run_map(blocked).id) == blocked.packages[:2]

    def test_who_accepted_what_and_why_stays_on_record(self, blocked: History) -> None:
        blocked.accept_for("grid", path(blocked), because="clouds at the end")
        with transaction(blocked.engine) as session:
            [row] = session.scalars(sa.select(models.AcceptedCoverage))
            assert (row.by, row.because, row.sub_group_key) == ("a person", "clouds at the end", row.sub_group_key)
            assert [one.id for one in row.packages] == blocked.packages[2:]
            assert row.created_at

    def test_a_scan_that_fails_later_blocks_again(self, blocked: History) -> None:
        blocked.accept_for("grid", path(blocked))
        run_map(blocked)
        blocked.archive()
        calibrate(blocked, blocked.fail)
        blocked.offset += timedelta(hours=2)
        assert told(blocked)[1].endswith(f"(failed){HINT}")
        accepted = blocked.accept_for("grid", path(blocked))
        assert accepted.packages == ("p4",)
        assert told(blocked)[0] is Verdict.UP_TO_DATE

    def test_what_was_missing_is_taken_once_it_comes_through(self, blocked: History) -> None:
        blocked.accept_for("grid", path(blocked))
        run_map(blocked)
        [failed] = by_step(blocked, "calibrate", RunStatus.FAILED)
        blocked.move(failed.id, RunStatus.PENDING, finished_at=None)
        blocked.start()
        blocked.complete(failed.id)
        blocked.offset += timedelta(hours=1)
        assert covered(blocked, run_map(blocked).id) == blocked.packages

    def test_another_sub_group_waits_as_before(self, blocked: History) -> None:
        blocked.change("grid", group_by=["source"])
        blocked.archive(source="Orion A", hours_ago=0.5)
        calibrate(blocked, blocked.fail)
        [m17, orion] = [one for name, one in sorted(blocked.gap().items()) if one.step.key == "grid"]
        blocked.accept_for("grid", m17.path)
        verdicts = {one.path: one.verdict for one in blocked.gap().values() if one.step.key == "grid"}
        assert verdicts == {m17.path: Verdict.WANTED, orion.path: Verdict.BLOCKED}

    def test_a_step_further_down_waits_unless_that_is_accepted_too(self, blocked: History) -> None:
        blocked.define(SCAN, MAP, {**MAP, "key": "check", "depends_on": ["grid"]})
        blocked.accept_for("grid", path(blocked))
        run_map(blocked)
        assert told(blocked, "check")[1] == f"waits for grid {path(blocked)} (incomplete){HINT}"
        blocked.accept_for("check", path(blocked, "check"))
        assert told(blocked, "check")[0] is Verdict.WANTED

    def test_what_waits_for_nothing_is_not_accepted(self, history: History) -> None:
        history.define(SCAN, MAP)
        history.settle()
        place = path(history)
        with pytest.raises(NothingToAccept) as refused:
            history.accept_for("grid", place)
        assert str(refused.value) == (
            f"Step `grid`, sub-group `{place}` waits for no package: it is up to date "
            "(recipe and inputs are those of the newest completed run). Nothing was accepted."
        )

    def test_a_map_of_nothing_is_not_accepted(self, history: History) -> None:
        history.define(SCAN, MAP)
        calibrate(history, history.fail, history.fail, history.fail)
        place = path(history)
        with pytest.raises(NothingLeft) as refused:
            history.accept_for("grid", place)
        assert str(refused.value) == (
            f"Step `grid`, sub-group `{place}` would have no input left: none of its packages is ready. "
            "Nothing was accepted."
        )

    @pytest.mark.parametrize(
        ("step", "sub_group", "message"),
        [
            ("gird", "M17", "There is no step `gird` of pipeline it. Did you mean `grid`?"),
            ("grid", "M71", "There is no sub-group `M71` of step grid. Known: `{path}`."),
        ],
    )
    def test_names_are_told_apart(self, blocked: History, step: str, sub_group: str, message: str) -> None:
        place = path(blocked)
        with pytest.raises(UnknownName) as refused:
            blocked.accept_for(step, sub_group)
        assert str(refused.value) == message.format(path=place)

    def test_a_reason_is_needed(self, blocked: History) -> None:
        with pytest.raises(ReasonMissing):
            blocked.accept_for("grid", path(blocked), because=" ")

    def test_people_accept_by_command(self, blocked: History) -> None:
        place = path(blocked)
        environment = {"CCAT_OPS_DB_URL": blocked.engine.url.render_as_string(hide_password=False)}
        command = ["accept", "it", "grid", place, "--because", "clouds"]
        told_then = CliRunner().invoke(app, command, env=environment)
        assert (told_then.exit_code, told_then.stdout) == (0, f"grid {place} goes without p3\n"), told_then.output
        refused = CliRunner().invoke(app, [*command, "--json"], env=environment)
        assert refused.exit_code == 1
        assert '"nothing_to_accept"' in refused.stderr


class TestScan:
    @pytest.fixture
    def whole(self, history: History) -> History:
        """A step that waits for whole scans; the one scan that is looked at is the first."""
        for package in history.packages[1:]:
            history.exclude(package)
        history.define({**SCAN, "wait_for": "scan_complete"})
        return history

    def lacks(self, history: History) -> str:
        verdict, because = told(history, "calibrate")
        assert verdict is Verdict.BLOCKED
        start, _, lacks = because.partition(" to be complete: ")
        assert start.startswith("waits for scan ")
        return lacks

    def test_a_scan_that_is_all_in_the_archive_is_reduced(self, whole: History) -> None:
        assert told(whole, "calibrate")[0] is Verdict.WANTED

    def test_what_is_missing_is_named(self, whole: History) -> None:
        package = whole.packages[0]
        whole.gap()
        whole.scan_of(package, ended_at=None)
        assert self.lacks(whole) == "it goes on"
        whole.scan_of(package, ended_at=whole.now, expected_files=3)
        assert self.lacks(whole) == f"files not registered: 3{HINT}"
        whole.write(package)
        assert self.lacks(whole) == f"files not registered: 2; files not packed: 1{HINT}"
        whole.announce(package)
        told_all = "files not registered: 2; files not packed: 1; packages not archived: p4 (waiting)"
        assert self.lacks(whole) == f"{told_all}{HINT}"

    def test_it_begins_when_the_last_package_of_another_module_arrives(self, whole: History) -> None:
        whole.change("calibrate", group_by=["executed_obs_unit", "instrument_module"])
        other = whole.announce(whole.packages[0])
        assert whole.create() == 0
        whole.arrive(other)
        assert whole.create() == 2

    def test_it_begins_when_the_last_file_is_packed(self, whole: History) -> None:
        [package] = whole.packages[:1]
        whole.write(package)
        assert self.lacks(whole) == "files not packed: 1"
        whole.pack(package)
        assert whole.create() == 1

    def test_a_file_that_a_person_called_lost_is_not_waited_for(self, whole: History) -> None:
        [package] = whole.packages[:1]
        file = whole.write(package)
        assert self.lacks(whole) == "files not packed: 1"
        lost = {"lost_at": sa.func.now(), "lost_because": "its disk died", "lost_from_id": package}
        whole.execute(sa.update(models.RawDataFile).filter_by(id=file).values(**lost))
        assert whole.create() == 1

    def test_a_package_that_a_person_excludes_is_not_waited_for(self, whole: History) -> None:
        other = whole.announce(whole.packages[0])
        assert self.lacks(whole) == "packages not archived: p4 (waiting)"
        whole.exclude(other)
        assert whole.create() == 1

    def test_a_person_may_accept_what_a_scan_lacks(self, whole: History) -> None:
        package = whole.packages[0]
        whole.announce(package)
        whole.scan_of(package, expected_files=3)
        path = next(iter(whole.gap().values())).path
        assert whole.accept_for("calibrate", path).packages == ("p4",)
        assert told(whole, "calibrate")[0] is Verdict.WANTED

    def test_what_is_done_stays_done_when_more_is_on_its_way(self, whole: History) -> None:
        assert whole.settle() == ["calibrate"]
        other = whole.announce(whole.packages[0])
        assert told(whole, "calibrate")[0] is Verdict.UP_TO_DATE
        whole.arrive(other)
        assert whole.settle() == ["calibrate"]

    def test_a_run_that_was_created_waits_where_more_is_announced_before_it_starts(self, whole: History) -> None:
        assert whole.create() == 1
        whole.announce(whole.packages[0])
        started = whole.start()
        assert (started.started, len(started.waiting)) == ((), 1)
