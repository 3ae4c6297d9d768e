"""What becomes of sub-groups whose runs are cancelled, and how people wish for it."""

from datetime import UTC, datetime
from typing import Any

import pytest

from ccat_ops_db.cancelling import Answer
from ccat_ops_db.queries.runs import UnknownRun
from ccat_ops_db.states import RunStatus, Verdict
from ccat_ops_db.verbs.cancelling import request_cancel
from ccat_ops_db.verbs.reasons import ReasonMissing
from tests.workflow.verbs.conftest import Say
from tests.workflow.verbs.works import MERGE, Works


def cancel(works: Works, run_id: int) -> Answer:
    def wish(session: Any) -> Any:
        return request_cancel(session, [run_id], because="clouds", by="a person", now=datetime.now(UTC))

    return Answer(works.session(wish)[run_id])


def test_what_has_no_job_is_cancelled_at_once_and_not_made_again_by_itself(works: Works) -> None:
    works.staged_on_paper("a")
    works.define({"key": "grid", "group_by": ["source"]}, {"key": "other", "group_by": ["source"]})
    works.create()
    grid, other = (run.id for run in works.runs())
    works.start(other)
    assert [cancel(works, one) for one in (grid, other)] == [Answer.CANCELLED, Answer.CANCELLED]
    for run in works.runs():
        assert (run.status, run.cancel_answer, run.waiting_for) == (RunStatus.CANCELLED, "cancelled", None)
        assert run.finished_at is not None
    works.create()
    assert {one.verdict for one in works.gap().values()} == {Verdict.CANCELLED}
    assert len(works.runs()) == 2


def test_a_live_run_whose_last_package_left_is_cancelled_and_made_again_when_it_comes_back(works: Works) -> None:
    package = works.observe("one ")
    works.define({"key": "slow", "group_by": ["source"]}, scripts={"slow": f"{MERGE}; sleep 1000"})
    works.until(RunStatus.RUNNING)
    works.exclude(package)
    works.create()
    [run] = works.runs()
    assert (run.is_to_be_cancelled, run.cancel_because) == (True, "its sub-group is gone")
    works.until(RunStatus.CANCELLED)
    assert works.run().not_needed
    works.readmit(package)
    works.create()
    assert [one.status for one in works.runs()] == [RunStatus.CANCELLED, RunStatus.PENDING]


# As a command


def test_the_command_says_what_becomes_of_each(works: Works, say: Say) -> None:
    works.staged_on_paper("a")
    works.define({"key": "grid", "group_by": ["source"]}, {"key": "other", "group_by": ["source"]})
    works.create()
    grid, other = (run.id for run in works.runs())
    assert say("run", "cancel", grid, "--because", "clouds").stdout == f"run {grid} is cancelled\n"
    told = say("run", "cancel", grid, other, "--because", "clouds", "--json").stdout
    assert '"answer": "over"' in told
    assert '"answer": "cancelled"' in told
    assert "who wants it cancelled" in say("run", "why", grid).stdout
    assert "There is no run 999" in say("run", "cancel", "999", "--because", "clouds").stderr


def test_a_wish_says_why_and_of_which_run(works: Works) -> None:
    wish: dict[str, Any] = {"by": "a person", "now": datetime.now(UTC)}
    with pytest.raises(ReasonMissing):
        works.session(lambda session: request_cancel(session, [1], because=" ", **wish))
    with pytest.raises(UnknownRun):
        works.session(lambda session: request_cancel(session, [10**9], because="clouds", **wish))
