"""What every backend must do; a new backend joins by a parameter of the fixture `bench`."""

import json
from datetime import timedelta
from typing import Any

import pytest

from ccat_ops_db.states import FailureClass
from ccat_workflow_manager.hpc.base import JobRefused, JobState
from ccat_workflow_manager.hpc.failures import failure_class
from tests.workflow.hpc.bench import ENVIRONMENT, Bench, until


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (0, None),
        (1, FailureClass.PAYLOAD),
        (65, FailureClass.DATA),
        (75, FailureClass.INFRASTRUCTURE),
        (78, FailureClass.CONFIGURATION),
    ],
)
def test_the_exit_code_is_reported_and_decides_the_failure_class(
    bench: Bench, code: int, expected: FailureClass | None
) -> None:
    seen = bench.outcome(bench.submit('exit "$1"', str(code)))
    assert (seen.state, seen.exit_code, failure_class(seen)) == (JobState.FINISHED, code, expected)


def test_a_finished_job_has_times_and_a_host(bench: Bench) -> None:
    seen = bench.outcome(bench.submit("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"))
    assert seen.started_at is not None
    assert seen.ended_at is not None
    assert seen.started_at <= seen.ended_at
    assert seen.wall_time is not None
    assert timedelta() <= seen.wall_time < timedelta(seconds=20)
    assert seen.cpu_time is None or seen.cpu_time <= seen.wall_time + timedelta(seconds=1)
    assert seen.host


def test_the_environment_is_exactly_what_was_given(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_WORKER", "secret")
    environment = {**ENVIRONMENT, "GREETING": "two words; $(date) 'quoted'\nnext line", "start": "untouched"}
    dump = "import json, os, sys; json.dump(dict(os.environ), sys.stdout)"
    job = bench.spec("", command=("python3", "-c", dump), environment=environment)
    assert bench.outcome(bench.backend.submit(job)).exit_code == 0
    found = json.loads(job.stdout.read_text())
    assert {name: found.get(name) for name in environment} == environment
    assert set(found) - set(environment) <= {"CCAT_JOB_DIRECTORY", "LC_CTYPE"}  # Python adds the latter to itself


def test_no_shell_reads_the_arguments(bench: Bench) -> None:
    arguments = ["two words", "$(echo expanded)", "`id`", "*", "'", '"', "; exit 3", "", "--", "new\nline"]
    print_them = "import json, sys; json.dump(sys.argv[1:], sys.stdout)"
    job = bench.spec("", command=("python3", "-c", print_them, *arguments))
    assert bench.outcome(bench.backend.submit(job)).exit_code == 0
    assert json.loads(job.stdout.read_text()) == arguments


def test_a_job_starts_in_its_working_directory(bench: Bench) -> None:
    job = bench.spec("pwd")
    bench.outcome(bench.backend.submit(job))
    assert job.stdout.read_text().strip() == str(job.working_directory)


def test_the_last_lines_are_those_of_standard_error(bench: Bench) -> None:
    job = bench.submit('seq 100; echo "the last word" >&2')
    bench.outcome(job)
    assert bench.backend.logs(job, lines=3) == "99\n100\nthe last word"


def test_a_command_that_does_not_exist_is_named_in_the_log(bench: Bench) -> None:
    job = bench.backend.submit(bench.spec("", command=("no-such-program",)))
    assert failure_class(bench.outcome(job)) is FailureClass.PAYLOAD
    assert "no-such-program" in bench.backend.logs(job)


def test_a_job_that_hangs_is_stopped_at_its_time_limit(bench: Bench) -> None:
    seen = bench.outcome(bench.submit("sleep 100", time_limit=timedelta(seconds=0.3)))
    assert (seen.timed_out, failure_class(seen)) == (True, FailureClass.RESOURCES)


def test_a_job_that_ends_as_if_by_timeout_but_in_time_was_not_stopped(bench: Bench) -> None:
    seen = bench.outcome(bench.submit("exit 124"))
    assert (seen.timed_out, failure_class(seen)) == (False, FailureClass.PAYLOAD)


def test_submitting_a_name_again_is_the_same_job(bench: Bench) -> None:
    job = bench.spec("echo once")
    job_id = bench.backend.submit(job)
    assert bench.backend.submit(job) == job_id
    bench.outcome(job_id)
    assert bench.backend.submit(job) == bench.backend.find([job.name])[job.name] == job_id
    assert bench.outcome(job_id).exit_code == 0
    assert job.stdout.read_text() == "once\n"


def test_only_known_names_are_found(bench: Bench) -> None:
    job = bench.spec("true")
    job_id = bench.backend.submit(job)
    assert bench.backend.find([job.name, "ccat-00000000-9-9"]) == {job.name: job_id}


def test_of_a_job_that_it_never_saw_it_says_unknown_and_never_failed(bench: Bench) -> None:
    seen = bench.look("ccat-00000000-9-9")
    assert (seen.state, seen.is_over, failure_class(seen)) == (JobState.UNKNOWN, False, None)
    assert bench.backend.logs("ccat-00000000-9-9") == ""
    bench.backend.cancel(["ccat-00000000-9-9"])


def test_a_running_job_can_be_cancelled_any_number_of_times(bench: Bench) -> None:
    job = bench.spec("echo here; sleep 100")
    job_id = bench.backend.submit(job)
    bench.until_it_says(job, "here")
    for _ in range(3):
        bench.backend.cancel([job_id])
    seen = bench.outcome(job_id)
    assert (seen.cancelled, failure_class(seen)) == (True, None)


COUNT = """
import signal, time
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
print("here", flush=True)
while not asked:
    time.sleep(0.01)
time.sleep(0.05)
print(len(asked), flush=True)
"""
"""A job that ends when it is asked to, and says how often it was."""


def test_a_job_is_asked_to_end_once_and_may_end_as_it_likes(bench: Bench) -> None:
    job = bench.spec("", command=("python3", "-c", COUNT))
    job_id = bench.backend.submit(job)
    bench.until_it_says(job, "here")
    for _ in range(3):
        bench.backend.cancel([job_id])
    seen = bench.outcome(job_id)
    assert (seen.exit_code, seen.cancelled, job.stdout.read_text()) == (0, True, "here\n1\n")


def test_a_job_that_ignores_the_request_to_end_is_killed_after_the_grace(bench: Bench) -> None:
    job = bench.spec("trap '' TERM; echo deaf; while :; do sleep 0.05; done")
    job_id = bench.backend.submit(job)
    bench.until_it_says(job, "deaf")
    bench.backend.cancel([job_id])
    assert bench.outcome(job_id).cancelled


def test_cancelling_what_has_finished_changes_nothing(bench: Bench) -> None:
    job = bench.submit("exit 0")
    before = bench.outcome(job)
    bench.backend.cancel([job])
    assert bench.look(job) == before
    assert not before.cancelled


# Memory


HOLD = 'import sys, time; x = b"x" * int(sys.argv[1]); print("here", flush=True); time.sleep(float(sys.argv[2]))'
"""A job that holds so many bytes for so many seconds."""


def test_a_job_that_uses_more_memory_than_it_asked_for_is_stopped(bench: Bench) -> None:
    job = bench.spec("", command=("python3", "-c", HOLD, "200000000", "100"), memory_gb=0.1)
    seen = bench.outcome(bench.backend.submit(job))
    assert (seen.state, seen.out_of_memory, seen.timed_out) == (JobState.FINISHED, True, False)
    assert failure_class(seen) is FailureClass.RESOURCES
    assert seen.peak_memory_bytes is None or seen.peak_memory_bytes > 1e8


def test_a_job_is_held_to_the_memory_of_all_its_processes_together(bench: Bench) -> None:
    hold = f"python3 -c '{HOLD}' 60000000 100"
    seen = bench.outcome(bench.submit(f"{hold} & {hold} & wait", memory_gb=0.1))
    assert (seen.out_of_memory, failure_class(seen)) == (True, FailureClass.RESOURCES)


def test_a_job_within_its_memory_goes_on(bench: Bench) -> None:
    job = bench.spec("", command=("python3", "-c", HOLD, "50000000", "0.7"), memory_gb=0.1)
    seen = bench.outcome(bench.backend.submit(job))
    assert (seen.exit_code, seen.out_of_memory) == (0, False)
    assert seen.peak_memory_bytes is None or seen.peak_memory_bytes > 5e7


# Capacity


def test_no_more_is_free_than_there_is(bench: Bench) -> None:
    place = bench.backend.capacity()
    assert place.cpus is None or 0 <= (place.free_cpus or 0) <= place.cpus
    assert place.memory_gb is None or 0 <= (place.free_memory_gb or 0) <= place.memory_gb


# Following


def test_what_a_job_writes_can_be_followed_until_its_end(bench: Bench) -> None:
    go = bench.base / "go"
    job = bench.spec(
        'seq 3; echo here >&2; until [ -e "$1" ]; do sleep 0.01; done; printf "more\nthe end" >&2', str(go)
    )
    job_id = bench.backend.submit(job)
    until(lambda: job.stderr.exists() and "here" in job.stderr.read_text())
    pieces = bench.backend.follow(job_id, lines=3)
    assert [next(pieces) for _ in range(3)] == ["2\n", "3\n", "here\n"]
    go.touch()
    assert "".join(pieces) == "more\nthe end"
    assert list(bench.backend.follow(job_id, lines=2)) == ["more\n", "the end"]


def test_following_a_job_that_is_not_known_ends_at_once(bench: Bench) -> None:
    assert list(bench.backend.follow("ccat-00000000-9-9")) == []


# Refusing


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"name": "../escape"}, "not a plain file name"),
        ({"command": ()}, "command is empty"),
        ({"environment": {"A": "b\0c"}}, "NUL"),
        ({"environment": {"A": "b" * 200_000}}, "longer than 128 KB"),
        ({"cpu": 0}, "at least one CPU"),
        ({"memory_gb": 0}, "a memory_gb above 0"),
        ({"memory_gb": float("nan")}, "a memory_gb above 0"),
        ({"time_limit": timedelta()}, "time limit is not positive"),
    ],
)
def test_a_job_that_can_never_run_is_refused(bench: Bench, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(JobRefused, match=problem):
        bench.submit("true", **changes)
