"""Every way in which software may fail, all at once on one package; then all that is tried again."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from ccat_ops_db import models
from ccat_ops_db.states import FailureClass, Resource, RunStatus, Verdict
from tests.workflow.verbs.conftest import OpenWorks
from tests.workflow.verbs.works import MERGE, Works, eventually

SCRIPTS = {
    "payload": "echo 'ValueError: no line found' >&2; exit 1",
    "binary": "printf 'Error: \\000\\377 is no number\\n' >&2; exit 1",
    "data": "echo 'scan.fits: the checksum of HDU 1 differs' >&2; exit 65",
    "configuration": "echo 'unknown parameter ordre' >&2; exit 78",
    "infrastructure": "exit 75",
    "hang": "sleep 1000",
    "nothing": "exit 0",
    "incomplete": MERGE,
    "lost": "read -r _ _ _ shell _ </proc/$PPID/stat; kill -9 $shell $PPID $$",  # as when a host dies
    "late": f'[ "$WORKFLOW_ATTEMPT" = 1 ] && exit 1; {MERGE}',
}
KEYS: dict[str, dict[str, Any]] = {
    "hang": {"resources": {"time_hours": 0.3 / 3600, "max_time_hours": 0.4 / 3600}},
    "incomplete": {"required_outputs": ["*.txt", "*.fits"]},
}


@dataclass(frozen=True)
class Story:
    """What became of the run of each step: after its first attempt, and at the end."""

    works: Works
    first: dict[str, models.ExecutedReductionStep]
    last: dict[str, models.ExecutedReductionStep]


def by_step(works: Works) -> dict[str, models.ExecutedReductionStep]:
    return {run.reduction_step.key: run for run in works.runs()}


@pytest.fixture(scope="module")
def story(open_works: OpenWorks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with open_works(tmp_path_factory.mktemp("failures")) as works:
        steps = [{"key": key, "group_by": ["executed_obs_unit"], **KEYS.get(key, {})} for key in SCRIPTS]
        works.define(*steps, scripts=SCRIPTS)
        works.observe("data")
        eventually(lambda: (works.round(), is_over(works))[1])
        first = by_step(works)
        works.retry_now()
        eventually(lambda: (works.round(), is_over(works))[1])
        yield Story(works, first, by_step(works))


def is_over(works: Works) -> bool:
    runs = works.runs()
    return len(runs) == len(SCRIPTS) and {run.status for run in runs} <= {RunStatus.FAILED, RunStatus.COMPLETED}


TABLE = [
    # step, class, cause, retried, attempts at the end
    ("payload", FailureClass.PAYLOAD, "ValueError: no line found", True, 2),
    ("binary", FailureClass.PAYLOAD, "Error: \ufffd\ufffd is no number", True, 2),
    ("data", FailureClass.DATA, "scan.fits: the checksum of HDU 1 differs", False, 1),
    ("configuration", FailureClass.CONFIGURATION, "unknown parameter ordre", False, 1),
    ("infrastructure", FailureClass.INFRASTRUCTURE, "exit code 75, and its log is empty", True, 2),
    ("hang", FailureClass.RESOURCES, "time limit reached after 0 s on", True, 2),
    (
        "nothing",
        FailureClass.PAYLOAD,
        "the software ended with exit code 0 but did not write any product; it wrote nothing",
        True,
        2,
    ),
    (
        "incomplete",
        FailureClass.PAYLOAD,
        "the software ended with exit code 0 but did not write the required output *.fits; it wrote out.txt",
        True,
        2,
    ),
    ("lost", FailureClass.INFRASTRUCTURE, "the job vanished on", True, 2),
]


@pytest.mark.parametrize(("step", "kind", "cause", "retried", "attempts"), TABLE)
def test_a_failure_has_a_class_a_cause_and_a_policy(
    story: Story, step: str, kind: FailureClass, cause: str, *, retried: bool, attempts: int
) -> None:
    first, last = story.first[step], story.last[step]
    assert first.failure_class is kind
    assert (first.failure or "").startswith(cause)
    assert (first.retry_at is not None) == retried
    assert [attempt.number for attempt in last.attempts] == list(range(1, attempts + 1))
    assert last.status is RunStatus.FAILED
    assert {attempt.failure_class for attempt in last.attempts} == {kind}


def test_what_succeeds_at_its_second_attempt_is_completed_without_a_failure(story: Story) -> None:
    assert story.first["late"].failure_class is FailureClass.PAYLOAD
    last = story.last["late"]
    assert (last.status, last.failure, last.failure_class, last.retry_count) == (RunStatus.COMPLETED, None, None, 1)
    assert [attempt.exit_code for attempt in last.attempts] == [1, 0]
    assert [product.run_attempt_id for product in last.products] == [last.attempts[1].id]


def test_trouble_outside_the_software_is_not_counted_against_the_step(story: Story) -> None:
    assert [(story.last[step].retry_count, story.last[step].trouble_count) for step in ("lost", "infrastructure")] == [
        (0, 2),
        (0, 2),
    ]
    assert story.last["infrastructure"].retry_at is not None


@pytest.mark.parametrize("step", ["payload", "data", "configuration", "hang", "nothing"])
def test_what_was_given_up_is_shown_with_its_cause_and_not_started_again(story: Story, step: str) -> None:
    run = story.last[step]
    assert run.retry_at is None
    [decision] = [found for name, found in story.works.gap().items() if name.startswith(f"{step} ")]
    assert decision.verdict is Verdict.FAILED
    assert decision.because == f"run {run.id} with this recipe and these inputs failed: {run.failure}"
    assert len(story.works.runs(reduction_step_id=run.reduction_step_id)) == 1


def test_what_its_time_did_not_suffice_for_gets_more_of_it_as_far_as_its_step_allows(story: Story) -> None:
    seconds = [3600 * (attempt.time_hours or 0) for attempt in story.last["hang"].attempts]
    assert seconds == pytest.approx([0.3, 0.4])
    assert {attempt.exhausted for attempt in story.last["hang"].attempts} == {Resource.TIME}
    assert story.last["hang"].retry_count == 0


def test_failures_that_are_alike_have_the_same_fingerprint(story: Story) -> None:
    payload, binary = (story.last[step] for step in ("payload", "binary"))
    assert len({payload.fingerprint, *(attempt.fingerprint for attempt in payload.attempts)}) == 1
    assert payload.fingerprint != binary.fingerprint


def test_every_attempt_has_its_own_directory_and_job_name_and_keeps_its_log(story: Story) -> None:
    attempts = [attempt for run in story.last.values() for attempt in run.attempts]
    assert len({attempt.directory for attempt in attempts}) == len(attempts)
    assert len({attempt.job_name for attempt in attempts}) == len(attempts)
    first = story.last["payload"].attempts[0]
    assert first.log_tail == "ValueError: no line found"
    assert first.directory.endswith(f"/payload/{first.run_id}/attempt-1")
    assert (story.works.base / first.directory / "config/manifest.json").exists()


def test_measures_are_recorded(story: Story) -> None:
    hang = story.last["hang"].attempts[0]
    assert hang.exit_code in {124, 137}
    assert hang.wall_time_s is not None
    assert 0.2 < hang.wall_time_s < 5
    assert hang.host
    assert hang.started_at
    assert hang.ended_at
    assert hang.command == ["/bin/sh", "-c", "sleep 1000"]
    assert hang.environment
    assert hang.environment["WORKFLOW_RUN_ID"] == str(hang.run_id)
