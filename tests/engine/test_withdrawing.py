"""What is declared invalid, what follows from that, and what does when it is taken back."""

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.queries.roots import Kind
from ccat_ops_db.queries.validity import invalid_inputs, runs_on_withdrawn_inputs
from ccat_ops_db.states import ProductState, RunReason, RunStatus, Verdict, VersionState
from ccat_ops_db.verbs.definitions import WithdrawnContent
from ccat_workflow_manager.verbs.invalidating import refuse_invalid
from ccat_workflow_manager.verbs.trying import CannotTry
from tests.engine.history import History
from tests.engine.order import check

CURRENT, SUPERSEDED, WITHDRAWN = ProductState.CURRENT, ProductState.SUPERSEDED, ProductState.WITHDRAWN
SCAN = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
MAP = {"key": "grid", "group_by": ["source"], "depends_on": ["calibrate"]}
PACKAGE, PRODUCT, RUN, VERSION, CONFIG = Kind.PACKAGE, Kind.PRODUCT, Kind.RUN, Kind.VERSION, Kind.CONFIG


@pytest.fixture
def history(fresh_history: Callable[[], History]) -> Iterator[History]:
    """An installation in whose end everything has to be in order."""
    history = fresh_history()
    yield history
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


def states(history: History, software: str) -> list[VersionState]:
    noun = models.ReductionSoftwareVersion
    query = sa.select(noun.state).join(noun.reduction_software).where(models.ReductionSoftware.name == software)
    return history.session(lambda session: list(session.scalars(query.order_by(noun.id))))


def made_of(history: History, package: str) -> models.DataProduct:
    """What was made of the one package alone."""
    taken = sa.select(models.RunInput.run_id).join(
        models.RawDataPackage, models.RawDataPackage.id == models.RunInput.raw_data_package_id
    )
    query = sa.select(models.DataProduct).where(
        models.DataProduct.run_id.in_(taken.where(models.RawDataPackage.name == package))
    )
    return history.session(lambda session: session.scalars(query).one())


class TestPackages:
    def test_all_that_was_made_from_a_package_is_invalid_and_made_again_without_it(self, mapped: History) -> None:
        done = mapped.declare_invalid(PACKAGE, "p1", because="wrong telescope")
        assert (done.what, done.products) == ("raw package p1", 2)
        assert [made_of(mapped, one).state for one in ("p1", "p2")] == [WITHDRAWN, CURRENT]
        assert mapped.settle() == ["grid"]
        [*_, grid] = mapped.runs()
        assert grid.reason is RunReason.INVALIDATED
        assert grid.because.endswith("do not count any more: raw package p1 was withdrawn: wrong telescope")
        assert mapped.products("grid") == [WITHDRAWN, CURRENT]

    def test_reinstated_it_goes_in_again_and_nothing_older_is_current_again(self, mapped: History) -> None:
        mapped.declare_invalid(PACKAGE, "p1")
        mapped.settle()
        assert mapped.declare_valid(PACKAGE, "p1").products == 2
        assert mapped.products("grid") == [SUPERSEDED, CURRENT]
        assert mapped.products("calibrate") == [CURRENT, CURRENT]
        assert mapped.settle() == ["grid"]
        assert mapped.products("grid") == [SUPERSEDED, SUPERSEDED, CURRENT]

    def test_reinstated_at_once_it_leaves_everything_as_it_was(self, mapped: History) -> None:
        mapped.declare_invalid(PACKAGE, "p1")
        mapped.declare_valid(PACKAGE, "p1")
        assert mapped.products() == [CURRENT, CURRENT, CURRENT]
        assert mapped.settle() == []

    def test_what_is_left_without_a_package_is_not_made_again(self, history: History) -> None:
        history.define(MAP | {"depends_on": []})
        history.archive()
        history.settle()
        history.declare_invalid(PACKAGE, "p1")
        assert history.settle() == []
        history.declare_valid(PACKAGE, "p1")
        assert history.products() == [CURRENT]
        assert history.settle() == []


class TestVersionsAndConfigs:
    def test_a_version_that_is_withdrawn_starts_nothing_and_another_one_redoes_what_it_made(
        self, mapped: History
    ) -> None:
        assert mapped.declare_invalid(VERSION, "calibrate/1.0").products == 3
        assert mapped.settle() == []
        assert mapped.verdicts()["grid M17"] is Verdict.BLOCKED
        mapped.versions["calibrate"][0]["state"] = "withdrawn"  # or the file would say otherwise
        mapped.release("calibrate", "1.1")
        assert mapped.settle() == ["calibrate", "calibrate", "grid"]

    @pytest.mark.parametrize("state", [VersionState.RELEASED, VersionState.RETIRED])
    def test_a_version_that_is_reinstated_is_what_it_was(self, mapped: History, state: VersionState) -> None:
        if state is VersionState.RETIRED:
            mapped.set_state("calibrate", "1.0", "retired")
        mapped.declare_invalid(VERSION, "calibrate/1.0")
        mapped.declare_valid(VERSION, "calibrate/1.0")
        assert states(mapped, "calibrate") == [state]
        assert mapped.products() == [CURRENT, CURRENT, CURRENT]

    def test_a_file_of_definitions_withdraws_as_a_person_does(self, mapped: History) -> None:
        mapped.set_state("calibrate", "1.0", "withdrawn")
        assert mapped.products() == [WITHDRAWN, WITHDRAWN, WITHDRAWN]
        mapped.set_state("calibrate", "1.0", "retired")
        assert mapped.products() == [CURRENT, CURRENT, CURRENT]
        assert states(mapped, "calibrate") == [VersionState.RETIRED]

    def test_a_config_that_is_withdrawn_starts_nothing_until_it_is_changed(self, mapped: History) -> None:
        assert mapped.declare_invalid(CONFIG, "grid").products == 1
        mapped.archive()
        assert mapped.settle() == ["calibrate"]
        gap = mapped.gap()["grid M17"]
        assert (gap.verdict, gap.because) == (
            Verdict.BLOCKED,
            "waits for its config to be changed: grid/1 was withdrawn",
        )
        mapped.configure("grid", 7)
        assert mapped.settle() == ["grid"]
        assert mapped.products("grid") == [WITHDRAWN, CURRENT]

    def test_what_a_config_was_withdrawn_for_does_not_come_back_with_an_old_file(self, mapped: History) -> None:
        mapped.declare_invalid(CONFIG, "grid", because="wrong beam")
        mapped.apply()  # which changes nothing
        mapped.configure("grid", 7)
        mapped.settle()
        with pytest.raises(WithdrawnContent) as refused:
            mapped.configure("grid", 0)
        assert str(refused.value) == (
            "What the file says of config grid is what grid/1 was withdrawn for: wrong beam (a person). Change it, or "
            "say `ccat reinstate config grid/1` if it was right. Nothing was applied."
        )
        assert mapped.settle() == []
        mapped.declare_valid(CONFIG, "grid/1")
        mapped.apply()
        assert mapped.settle() == ["grid"]

    def test_nothing_is_tried_out_with_a_config_that_is_withdrawn(self, mapped: History) -> None:
        mapped.declare_invalid(CONFIG, "grid")
        with pytest.raises(CannotTry, match="Config grid/1 of step grid is withdrawn"):
            mapped.try_out("grid", mapped.gap()["grid M17"].path)

    def test_a_config_that_is_reinstated_goes_on(self, mapped: History) -> None:
        mapped.declare_invalid(CONFIG, "grid/1")
        mapped.declare_valid(CONFIG, "grid/1")
        mapped.archive()
        assert mapped.settle() == ["calibrate", "grid"]


class TestProductsAndRuns:
    def test_what_a_run_made_is_invalid_with_all_that_was_made_from_it_and_made_again(self, mapped: History) -> None:
        assert mapped.declare_invalid(RUN, mapped.runs()[0].id).products == 2
        assert mapped.products() == [WITHDRAWN, CURRENT, WITHDRAWN]
        assert mapped.settle() == ["calibrate", "grid"]

    def test_an_older_map_that_is_reinstated_is_not_current_again(self, mapped: History) -> None:
        older = mapped.runs_of("grid")[0].id
        mapped.declare_invalid(RUN, older)
        mapped.archive()
        mapped.settle()
        mapped.declare_valid(RUN, older)
        assert mapped.products("grid") == [SUPERSEDED, CURRENT]

    def test_two_withdrawals_hold_until_both_are_undone(self, mapped: History) -> None:
        mapped.declare_invalid(PACKAGE, "p1")
        assert mapped.declare_invalid(VERSION, "grid/1.0").products == 0
        done = mapped.declare_valid(PACKAGE, "p1")
        assert (done.products, done.still_invalid) == (1, 1)
        assert mapped.products() == [CURRENT, CURRENT, WITHDRAWN]
        mapped.declare_valid(VERSION, "grid/1.0")
        assert mapped.products() == [CURRENT, CURRENT, CURRENT]
        assert mapped.settle() == []

    def test_a_trial_is_invalid_too_and_a_trial_again(self, mapped: History) -> None:
        mapped.try_out("grid", mapped.gap()["grid M17"].path)
        mapped.settle()
        mapped.declare_invalid(PACKAGE, "p1")
        assert mapped.products("grid")[:2] == [WITHDRAWN, WITHDRAWN]
        mapped.declare_valid(PACKAGE, "p1")
        assert ProductState.TRIAL in mapped.products("grid")

    def test_what_is_withdrawn_already_and_what_is_not_are_told(self, mapped: History) -> None:
        mapped.declare_invalid(PACKAGE, "p1", because="first")
        assert not mapped.declare_invalid(PACKAGE, "p1", because="second").is_new
        assert not mapped.declare_valid(PACKAGE, "p2").was_withdrawn


class TestRunsUnderWay:
    @pytest.fixture
    def started(self, mapped: History) -> int:
        """A map whose inputs are fixed."""
        mapped.archive()
        mapped.create()
        mapped.start()
        mapped.complete(*mapped.ids(RunStatus.STAGING_DATA))
        mapped.create()
        [run_id] = mapped.start().started
        return run_id

    def collect(self, history: History, run_id: int) -> list[int]:
        """Those that are refused, of the one run that is being collected."""

        def work(session: Session) -> list[int]:
            invalid = invalid_inputs(session, [run_id])
            [attempt] = session.get_one(models.ExecutedReductionStep, run_id).attempts
            return refuse_invalid(session, [attempt], invalid, now=history.now, by="worker")

        return history.session(work)

    @pytest.mark.parametrize(
        ("kind", "name", "why"),
        [
            (PACKAGE, "p1", "product {} (map.fits) was withdrawn"),
            (VERSION, "grid/1.0", "version grid/1.0 was withdrawn"),
            (CONFIG, "grid", "config grid/1 was withdrawn: a test (a person)"),
        ],
    )
    def test_they_are_cancelled_with_what_they_are_made_of_and_block_nothing(
        self, mapped: History, started: int, kind: Kind, name: str, why: str
    ) -> None:
        assert mapped.session(lambda session: invalid_inputs(session, [started])) == {}
        told = {started: why.format(made_of(mapped, "p1").id)}
        assert mapped.declare_invalid(kind, name).runs == told
        assert mapped.session(lambda session: invalid_inputs(session, [started])) == told
        [run] = [one for one in mapped.runs() if one.id == started]
        assert (run.status, run.not_needed) == (RunStatus.CANCELLED, True)
        mapped.declare_valid(kind, name)
        assert mapped.settle() == ["grid"]

    def test_what_is_handed_in_is_cancelled_when_its_job_is_over(self, mapped: History, started: int) -> None:
        mapped.move(started, RunStatus.SUBMITTED)
        assert list(mapped.declare_invalid(PACKAGE, "p1").runs) == [started]
        [run] = [one for one in mapped.runs() if one.id == started]
        assert (run.status, run.is_to_be_cancelled, run.not_needed) == (RunStatus.SUBMITTED, True, True)

    @pytest.mark.parametrize("status", [None, RunStatus.SUBMITTED, RunStatus.RUNNING])
    def test_a_run_that_is_withdrawn_itself_is_cancelled_and_another_one_made(
        self, mapped: History, started: int, status: RunStatus | None
    ) -> None:
        if status is not None:
            mapped.move(started, *dict.fromkeys((RunStatus.SUBMITTED, status)))
        done = mapped.declare_invalid(RUN, started, because="wrong host")
        assert (done.products, done.runs) == (0, {started: "it was withdrawn itself: wrong host"})
        [run] = [one for one in mapped.runs() if one.id == started]
        assert (run.not_needed, run.cancel_because) == (True, "it was withdrawn itself: wrong host")
        if status is not None:
            assert (run.status, run.is_to_be_cancelled) == (status, True)
            mapped.cancel(started)
        assert mapped.settle() == ["grid"]

    def test_a_run_that_is_withdrawn_itself_is_not_tried_again(self, mapped: History, started: int) -> None:
        mapped.fail(started, retried=True)
        assert list(mapped.declare_invalid(RUN, started).runs) == [started]
        [run] = [one for one in mapped.runs() if one.id == started]
        assert (run.status, run.retry_at, run.not_needed) == (RunStatus.FAILED, None, True)
        assert mapped.settle() == ["grid"]

    @pytest.mark.parametrize("kind", [PACKAGE, RUN])
    def test_what_is_being_collected_looks_for_itself(self, mapped: History, started: int, kind: Kind) -> None:
        mapped.move(started, RunStatus.SUBMITTED, RunStatus.COLLECTING_RESULTS)
        assert mapped.declare_invalid(kind, "p1" if kind is PACKAGE else started).runs == {}
        assert self.collect(mapped, started) == [started]
        [failed] = [one for one in mapped.runs() if one.id == started]
        assert (failed.status, failed.not_needed) == (RunStatus.FAILED, True)
        mapped.settle()
        assert mapped.products("grid")[-1] is CURRENT

    def test_what_is_to_be_tried_again_looks_for_itself(self, mapped: History, started: int) -> None:
        mapped.fail(started, retried=True)
        assert mapped.declare_invalid(PACKAGE, "p1").runs == {}
        assert mapped.session(runs_on_withdrawn_inputs) == {}
        mapped.settle()

    def test_what_is_collected_of_it_is_refused_and_made_anew_though_its_inputs_are_the_same_bytes(
        self, mapped: History, started: int
    ) -> None:
        mapped.move(started, RunStatus.SUBMITTED, RunStatus.COLLECTING_RESULTS)
        mapped.declare_invalid(RUN, made_of(mapped, "p1").run_id)
        assert self.collect(mapped, started) == [started]
        assert mapped.settle() == ["calibrate", "grid"]
        *_, failed, _, made = mapped.runs()
        assert (failed.id, failed.status, made.status) == (started, RunStatus.FAILED, RunStatus.COMPLETED)
        assert (failed.recipe_digest, failed.input_digest) == (made.recipe_digest, made.input_digest)

    def test_a_run_whose_inputs_are_not_fixed_takes_what_is_valid(self, mapped: History) -> None:
        mapped.archive()
        mapped.create()
        assert mapped.declare_invalid(PACKAGE, "p1").runs == {}
