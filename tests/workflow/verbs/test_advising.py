"""`ccat pipelines advise`: what steps used of what they ask for, measured by real jobs and read from many."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.queries.measures import RUNS, StepUse, step_uses
from ccat_ops_db.states import FailureClass, Resource, RunStatus
from tests.workflow.verbs.conftest import Say
from tests.workflow.verbs.works import MERGE, Works, eventually

GB = 10**9
SCAN: dict[str, Any] = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
FITS: Mapping[str, Any] = {"wall_time_s": 1800, "cpu_time_s": 1700, "peak_memory_bytes": round(1.4 * GB)}
"""What a step uses that asks for what all do: 2 GB and one hour."""
_MORE = (
    "SET LOCAL session_replication_role = replica",
    """
    INSERT INTO executed_reduction_step (
        reduction_step_id, step_revision_id, pipeline_id, data_location_id, software_version_id, sub_group_key,
        sub_group_path, sub_group_labels, status, reason, because, recipe_digest, series_digest, input_digest,
        inputs_frozen_at, is_trial, expires_at)
    SELECT reduction_step_id, step_revision_id, pipeline_id, data_location_id, software_version_id,
        concat(CAST(:name AS text), n), concat(CAST(:name AS text), n), sub_group_labels, 'completed', reason,
        because, recipe_digest, series_digest, input_digest, inputs_frozen_at + n * interval '1 microsecond', :is_trial,
        CASE WHEN :is_trial THEN inputs_frozen_at END
    FROM (SELECT * FROM executed_reduction_step ORDER BY id LIMIT 1) r, generate_series(1, :number) n
    """,
    """
    INSERT INTO run_attempt (
        run_id, number, directory, job_name, memory_gb, time_hours, exit_code, wall_time_s, cpu_time_s,
        peak_memory_bytes)
    SELECT id, 1, id, id, 2, 1, 0, :wall_time_s, :cpu_time_s, :peak_memory_bytes
    FROM executed_reduction_step WHERE sub_group_key ~ concat('^', CAST(:name AS text), '[0-9]+$')
    """,
)


def measure(works: Works, **values: Any) -> None:
    """Have every attempt that there is used so much."""
    works.execute(sa.update(models.RunAttempt).values(**values))


def more(works: Works, name: str, number: int, *, is_trial: bool = False, **values: Any) -> None:
    """So many more runs like the first, begun after it, each with an attempt that used so much."""
    figures = {**FITS, **values, "name": name, "number": number, "is_trial": is_trial}
    with works.engine.begin() as connection:
        for statement in _MORE:
            connection.execute(sa.text(statement), figures)


def advised(works: Works, pipeline: str | None = None) -> list[StepUse]:
    return list(works.session(lambda session: step_uses(session, pipeline)))


@pytest.fixture
def calibrated(works: Works) -> Works:
    """One scan that was calibrated, as asked and in time."""
    works.define(SCAN)
    works.observe("one ")
    works.settle()
    measure(works, **FITS)
    return works


def test_advice_is_taken_over_in_the_definition_and_nothing_is_processed_again_for_it(
    calibrated: Works, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    measure(calibrated, peak_memory_bytes=round(0.3 * GB))
    more(calibrated, "more", 100, peak_memory_bytes=round(0.6 * GB))
    more(calibrated, "largest", 1, peak_memory_bytes=round(0.7 * GB))
    said = say("pipelines", "advise")
    assert said.stdout.startswith("1 step: 1 should ask for something else\n")
    told = "toy calibrate 1.0 102 600 MB, 700 MB of 2 GB 30 min, 30 min of 1 h 94 % of 1 Of memory and time"
    assert told in " ".join(said.stdout.split())
    reason = "its largest of 102 attempts used 700 MB of 2 GB"
    assert f"\ntoy/calibrate: ask for memory_gb: 1; {reason}\n" in said.stdout
    assert "`ccat apply` that file. Resources are no part of the recipe" in said.stdout
    [row] = json.loads(say("pipelines", "advise", "--json").stdout)
    proposal = row["advice"]["proposal"]
    assert proposal == {"memory_gb": 1.0}
    assert (row["pipeline"], row["step"], row["version"], row["is_newest"]) == ("toy", "calibrate", "1.0", True)
    assert row["measured"]["memory"] == {
        "known": 102,
        "usual": 0.6,
        "most": 0.7,
        "ran_out": 0,
        "ran_out_at": None,
    }
    calibrated.define({**SCAN, "resources": proposal})
    assert calibrated.create() == 0
    said = say("pipelines", "advise", "toy")
    assert said.stdout.startswith("1 step: none should ask for something else\n")
    assert "toy/calibrate: right as it is: its largest of 102 attempts used 700 MB of 1 GB" in said.stdout
    assert "ccat apply" not in said.stdout


def test_what_real_jobs_used_is_judged_once_there_are_enough_of_them(works: Works, say: Say) -> None:
    works.define(
        {**SCAN, "resources": {"memory_gb": 1.5, "time_hours": 0.1}},
        scripts={"calibrate": f"sleep 1.2; {MERGE}"},  # memory is measured twice a second
    )
    [use] = advised(works)
    assert (use.version, use.measured.attempts) == (None, 0)
    assert "none of its attempts has succeeded yet" in say("pipelines", "advise").stdout
    for number in range(4):
        works.observe(f"{number} ")
    works.settle()
    [use] = advised(works)
    assert use.advice.because == "too few attempts are measured to judge by: 4 of at least 5"
    works.observe("5 ")
    works.settle()
    [use] = advised(works)
    assert (use.measured.attempts, use.measured.memory.known, use.measured.time.known) == (5, 5, 5)
    assert use.advice.proposal == {"memory_gb": 0.5}
    assert 0 < (use.measured.memory.most or 0) < 0.5


def test_an_attempt_that_ran_out_of_time_asks_for_more_than_it_had(works: Works) -> None:
    second = 1 / 3600
    works.define(
        {**SCAN, "resources": {"time_hours": 0.3 * second, "max_time_hours": 0.4 * second}},
        scripts={"calibrate": "sleep 1000"},
    )
    works.observe("one ")
    eventually(lambda: (works.round(), [one.status for one in works.runs()] == [RunStatus.FAILED])[1])
    [use] = advised(works)
    assert use.measured.attempts == use.measured.time.ran_out == 1
    assert use.measured.time.ran_out_at == pytest.approx(0.3 * second)
    assert use.measured.time.known == 0


def test_attempts_that_ran_out_of_memory_raise_what_is_proposed(calibrated: Works) -> None:
    more(calibrated, "more", 9)
    lacking = {"exhausted": Resource.MEMORY, "failure_class": FailureClass.RESOURCES, "exit_code": 137}
    first = sa.select(sa.func.min(models.RunAttempt.id)).scalar_subquery()
    calibrated.execute(sa.update(models.RunAttempt).where(models.RunAttempt.id == first).values(lacking))
    [use] = advised(calibrated)
    assert use.advice.proposal == {"memory_gb": 3.0}
    assert use.advice.because == "1 of 10 attempts ran out of memory, and had 2 GB or less"


def test_other_failures_and_trials_tell_nothing(calibrated: Works) -> None:
    more(calibrated, "failed", 20, peak_memory_bytes=9 * GB)
    failed = models.RunAttempt.peak_memory_bytes > GB * 2
    values = {"failure_class": FailureClass.PAYLOAD, "exit_code": 1}
    calibrated.execute(sa.update(models.RunAttempt).where(failed).values(values))
    more(calibrated, "trial", 20, is_trial=True, peak_memory_bytes=9 * GB)
    [use] = advised(calibrated)
    assert (use.measured.attempts, use.measured.memory.most) == (1, 1.4)


def test_a_memory_that_nobody_measured_is_said_to_be_unknown(
    calibrated: Works, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    more(calibrated, "more", 9)
    measure(calibrated, peak_memory_bytes=None)
    said = " ".join(say("pipelines", "advise").stdout.split())
    assert "unknown of 2 GB" in said
    assert "toy/calibrate: how much memory it used is known of none of its attempts; the rest is right as it is" in said


def test_each_version_is_judged_by_its_own_attempts_and_only_the_one_begun_last_is_advised(
    calibrated: Works,
) -> None:
    more(calibrated, "more", 9, peak_memory_bytes=round(0.3 * GB))
    versions = [calibrated.version(), calibrated.version(version="2.0", series="2")]
    calibrated.apply({"software": [{"name": "toy-calibrate", "versions": versions}]})
    calibrated.settle()
    one, other = advised(calibrated)
    assert [(use.version, use.is_newest, use.measured.attempts) for use in (one, other)] == [
        ("2.0", True, 1),
        ("1.0", False, 10),
    ]
    assert one.advice.because == "too few attempts are measured to judge by: 1 of at least 5"
    assert (other.advice.proposal, other.advice.because) == ({}, "another version was begun since")


def test_only_the_last_thousand_runs_of_a_step_are_judged_by(calibrated: Works) -> None:
    measure(calibrated, peak_memory_bytes=50 * GB)
    more(calibrated, "more", 2 * RUNS)
    [use] = advised(calibrated)
    assert (use.measured.attempts, use.measured.memory.most) == (RUNS, 1.4)


def test_the_last_runs_are_found_by_an_index_however_many_there_are(calibrated: Works) -> None:
    more(calibrated, "more", 5_000)
    query = """
        EXPLAIN SELECT id FROM executed_reduction_step
        WHERE software_version_id = 1 AND reduction_step_id = 1 AND inputs_frozen_at IS NOT NULL AND NOT is_trial
        ORDER BY inputs_frozen_at DESC LIMIT 10
    """
    with calibrated.engine.begin() as connection:
        connection.execute(sa.text("ANALYZE executed_reduction_step"))
        plan = " ".join(connection.scalars(sa.text(query)))
    assert "Index Scan Backward using ix_executed_reduction_step_version_step" in plan
    assert "Sort" not in plan


def test_an_unknown_pipeline_is_refused_with_the_nearest_name(calibrated: Works, say: Say) -> None:
    assert [use.pipeline for use in advised(calibrated, "toy")] == ["toy"]
    refused = say("pipelines", "advise", "tox")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == "error: There is no pipeline `tox`. Did you mean `toy`?\n"
    refused = say("pipelines", "advise", "tox", "--json")
    assert json.loads(refused.stderr)["code"] == "unknown_name"


def test_where_nothing_is_defined_there_is_nothing_to_advise(say: Say) -> None:
    assert say("pipelines", "advise").stdout == "0 steps: none should ask for something else\n"
    assert json.loads(say("pipelines", "advise", "--json").stdout) == []


def test_a_run_is_shown_with_what_it_used_beside_what_it_had(
    calibrated: Works, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    run = calibrated.run()
    said = " ".join(say("run", "show", run.id).stdout.split())
    assert "1.4 GB of 2 GB 30 min of 1 h 94 % of 1" in said
    [told] = json.loads(say("run", "show", run.id, "--json").stdout)["attempts"]
    assert (told["memory_gb"], told["peak_memory_bytes"]) == (2, 1_400_000_000)
    assert (told["time_hours"], told["wall_time_s"], told["cpu_time_s"]) == (1, 1800, 1700)
    assert (told["cpus"], told["cpu_efficiency"]) == (1, pytest.approx(1700 / 1800))
