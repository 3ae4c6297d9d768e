"""Whoever dies, a local job runs at most once, and how it ended is known."""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from redis import Redis

from ccat.stack.redis import RedisAddress
from ccat_ops_db.states import FailureClass
from ccat_service.processes import ProcessIdentity
from ccat_workflow_manager.hpc.base import JobSpec, JobState
from ccat_workflow_manager.hpc.failures import failure_class
from ccat_workflow_manager.hpc.local.killing import kill_jobs
from ccat_workflow_manager.hpc.local.launching import job_command
from tests.workflow.hpc.bench import Bench, processes_below, until
from tests.workflow.hpc.conftest import GRACE, Afresh, LocalBackends
from tests.workflow.hpc.marks import change, first_process, running


@pytest.fixture
def bench(afresh: Afresh) -> Bench:
    return afresh()


# Death of whoever started it


WORKER = """
import sys
from pathlib import Path
from pydantic import TypeAdapter
from redis import Redis
from ccat_workflow_manager.hpc.base import JobSpec
from ccat_workflow_manager.hpc.local.backend import LocalBackend

jobs = TypeAdapter(list[JobSpec]).validate_json(sys.stdin.read())
backend = LocalBackend(Redis.from_url(sys.argv[1]), base=Path(sys.argv[2]), cpus=1, memory_gb=16)
for job in jobs:
    print(backend.submit(job), flush=True)
while True:
    backend.observe([job.name for job in jobs])
"""


@contextmanager
def worker(redis_address: RedisAddress, base: Path, *jobs: JobSpec) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that submits jobs and then looks at them without a pause, until it is killed."""
    command = [sys.executable, "-c", WORKER, redis_address.url, str(base)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(TypeAdapter(list[JobSpec]).dump_json(list(jobs)))
        process.stdin.close()
        yield process
        process.kill()


def test_killing_the_worker_in_the_middle_of_its_work_loses_and_repeats_nothing(
    bench: Bench, redis_address: RedisAddress
) -> None:
    jobs = [bench.spec("echo once; sleep 0.02") for _ in range(12)]
    with worker(redis_address, bench.base, *jobs) as process:
        assert process.stdout is not None
        for _ in range(4):
            process.stdout.readline()
    for job in jobs:
        bench.backend.submit(job)
    assert [bench.outcome(job.name).exit_code for job in jobs] == [0] * len(jobs)
    assert [job.stdout.read_text() for job in jobs] == ["once\n"] * len(jobs)


HOLD = """
import os, sys, time
x = b"x" * 50_000_000
print("here", flush=True)
until = time.process_time() + 0.1
while time.process_time() < until or not os.path.exists(sys.argv[1]):
    time.sleep(0.01) if time.process_time() >= until else None
sys.exit(3)
"""
"""A job that uses 50 MB and a tenth of a second of CPU, until a file is there."""


def test_the_end_of_a_job_is_known_though_all_of_us_are_killed_and_redis_forgets(
    bench: Bench, redis_address: RedisAddress, redis: Redis, afresh: Afresh
) -> None:
    go = bench.base / "go"
    job = bench.spec("", command=("python3", "-c", HOLD, str(go)))
    with worker(redis_address, bench.base, job):
        bench.until_it_says(job, "here")
        measured = job.directory / "job.memory"
        until(lambda: measured.exists() and int(measured.read_text()) > 5e7)
    redis.flushdb()
    go.touch()
    until(lambda: is_gone(first_process(job)))
    seen = afresh().outcome(job.name)
    assert (seen.state, seen.exit_code) == (JobState.FINISHED, 3)
    assert seen.started_at is not None
    assert seen.ended_at is not None
    assert seen.wall_time == seen.ended_at - seen.started_at
    assert seen.cpu_time is not None
    assert seen.wall_time + timedelta(seconds=0.1) >= seen.cpu_time >= timedelta(seconds=0.1)
    assert seen.peak_memory_bytes is not None
    assert 5e7 < seen.peak_memory_bytes < 2e8
    assert job.stdout.read_text() == "here\n"


def written(mark: Path) -> str:
    """What stands in a file for which room is kept."""
    return mark.read_text().strip() if mark.exists() else ""


def test_how_much_memory_a_job_used_is_unknown_where_nobody_looked_in_time(bench: Bench) -> None:
    job = bench.spec("true")
    bench.backend.submit(job)
    until(lambda: written(job.directory / "job.exit"))
    assert bench.outcome(job.name).peak_memory_bytes is None


def test_a_job_whose_starter_died_between_claim_and_start_is_started_by_the_next(
    local_backend: LocalBackends, bench: Bench
) -> None:
    job = bench.spec("true")
    dying = local_backend(1)
    dying.observe([])  # so that Redis is told of everything
    record = dying._files.keep(job, host=socket.gethostname())
    assert dying._queue.turn(new=record) == [job.name]
    assert bench.look(job.name).queue_reason == "it is about to start"
    assert bench.outcome(job.name).exit_code == 0


def test_where_a_start_mark_exists_a_second_start_is_refused_and_touches_nothing(bench: Bench) -> None:
    job = bench.spec("echo once")
    bench.backend.submit(job)
    bench.outcome(job.name)
    before = {path: path.read_bytes() for path in job.directory.glob("job.*")}
    again = subprocess.run(job_command(job, grace=GRACE), check=False)
    assert again.returncode == 75
    assert {path: path.read_bytes() for path in job.directory.glob("job.*")} == before
    assert job.stdout.read_text() == "once\n"


def test_of_many_starts_at_the_same_moment_one_runs(bench: Bench) -> None:
    job = bench.spec("echo once")
    starts = [subprocess.Popen(job_command(job, grace=GRACE)) for _ in range(8)]
    assert sorted(start.wait() for start in starts) == [0, *[75] * 7]
    assert job.stdout.read_text() == "once\n"


def test_a_record_that_a_power_failure_cut_is_written_again(bench: Bench, afresh: Afresh) -> None:
    blocker, waiting = running(bench, "true"), bench.spec("echo once")
    bench.backend.submit(waiting)
    (bench.base / "local-jobs" / f"{waiting.name}.json").write_text("")
    later = afresh()
    assert later.backend.find([waiting.name]) == {}
    later.backend.submit(waiting)
    later.backend.cancel([blocker.name])
    assert later.outcome(waiting.name).exit_code == 0
    assert waiting.stdout.read_text() == "once\n"


# Death of the job's own processes


def test_a_killed_command_leaves_its_signal_as_exit_code(bench: Bench) -> None:
    job = bench.spec("kill -9 $$")
    seen = bench.outcome(bench.backend.submit(job))
    assert (seen.state, seen.exit_code, failure_class(seen)) == (JobState.FINISHED, 137, FailureClass.PAYLOAD)
    assert (seen.timed_out, seen.out_of_memory) == (False, False)


def test_a_kill_while_the_kernel_ran_out_of_memory_is_a_matter_of_resources(bench: Bench) -> None:
    job = bench.spec("kill -9 $$")
    bench.backend.submit(job)
    mark = job.directory / "job.exit"
    until(lambda: written(mark))
    assert json.loads(mark.read_text())["oom_kills"] == 0
    change(mark, oom_kills=1)
    seen = bench.outcome(job.name)
    assert (seen.out_of_memory, failure_class(seen)) == (True, FailureClass.RESOURCES)


def test_a_job_whose_first_process_is_killed_is_lost_once_the_rest_is_gone_too(bench: Bench) -> None:
    job = running(bench, "sleep 100 & sleep 100 &")
    os.kill(first_process(job), signal.SIGKILL)
    seen = bench.outcome(job.name)
    assert (seen.state, seen.exit_code, failure_class(seen)) == (JobState.LOST, None, FailureClass.INFRASTRUCTURE)
    assert processes_below(job.directory) == {}
    assert bench.look(job.name) == seen


def test_a_job_that_was_killed_whole_is_lost(bench: Bench) -> None:
    job = running(bench, "true")
    for pid in processes_below(job.directory):
        os.kill(pid, signal.SIGKILL)
    assert bench.outcome(job.name).state is JobState.LOST


@pytest.mark.parametrize("escape", ["", "setsid "])
def test_what_a_job_leaves_behind_is_killed_before_it_counts_as_finished(bench: Bench, escape: str) -> None:
    job = bench.spec(f"{escape}sleep 100 & echo here")
    bench.backend.submit(job)
    bench.until_it_says(job, "here")
    assert bench.outcome(job.name).exit_code == 0
    assert processes_below(job.directory) == {}


SHY = "env -i sleep 100 & echo $! >shy"
"""A process that hides that it belongs to the job, but stays in its session."""


def is_gone(pid: int) -> bool:
    return ProcessIdentity.of(pid) is None


def shy(job: JobSpec) -> int:
    return int((job.working_directory / "shy").read_text())


def leaders(job: JobSpec) -> set[int]:
    """Those of its processes that lead a session."""
    return {pid for pid in processes_below(job.directory) if os.getsid(pid) == pid}


def test_a_job_is_lost_only_once_the_whole_session_is_gone(bench: Bench) -> None:
    job = running(bench, SHY)
    os.kill(first_process(job), signal.SIGKILL)
    assert bench.outcome(job.name).state is JobState.LOST
    assert is_gone(shy(job))


def test_a_job_is_lost_only_once_what_left_its_session_is_gone_too(bench: Bench) -> None:
    job = running(bench, "setsid sleep 100 &")
    first = first_process(job)
    until(lambda: leaders(job) - {first})
    [escaped] = leaders(job) - {first}
    for pid in (first, *(processes_below(job.directory).keys() - {first, escaped})):
        with suppress(ProcessLookupError):  # each ends when the one that it waits for does
            os.kill(pid, signal.SIGKILL)
    until(lambda: set(processes_below(job.directory)) == {escaped})
    assert bench.look(job.name).state is JobState.RUNNING  # it was still there, and is killed now
    until(lambda: bench.look(job.name).state is not JobState.RUNNING)
    assert is_gone(escaped)
    seen = bench.look(job.name)
    assert (seen.state, seen.exit_code, failure_class(seen)) == (JobState.LOST, None, FailureClass.INFRASTRUCTURE)


def test_a_job_is_finished_only_once_the_whole_session_is_gone(bench: Bench) -> None:
    job = bench.spec(SHY)
    bench.backend.submit(job)
    assert bench.outcome(job.name).exit_code == 0
    assert is_gone(shy(job))


def test_cancelling_reaches_the_whole_session(bench: Bench) -> None:
    job = running(bench, "env -i sh -c 'trap \"echo asked; exit\" TERM; echo shy; while :; do sleep 0.02; done' &")
    bench.until_it_says(job, "shy")
    bench.backend.cancel([job.name])
    bench.until_it_says(job, "asked")
    assert bench.outcome(job.name).cancelled


def test_a_stack_that_goes_down_takes_whole_sessions_with_it(bench: Bench) -> None:
    job = running(bench, SHY)
    kill_jobs(bench.base)
    assert is_gone(shy(job))


def test_after_a_reboot_what_was_running_is_lost(bench: Bench, afresh: Afresh) -> None:
    job = running(bench, "true")
    mark = job.directory / "job.start"
    process = json.loads(mark.read_text())["process"]
    kill_jobs(bench.base)
    change(mark, process=process | {"pid": os.getpid(), "boot_id": "the one before"})
    assert afresh().look(job.name).state is JobState.LOST


def test_a_start_mark_that_a_power_failure_cut_is_no_riddle(bench: Bench, afresh: Afresh) -> None:
    job = running(bench, "true")
    kill_jobs(bench.base)
    mark = job.directory / "job.start"
    mark.write_text("")
    assert afresh().look(job.name).state is JobState.RUNNING  # as whoever writes it may be about to
    os.utime(mark, (0, 0))
    assert afresh().look(job.name).state is JobState.LOST


def test_a_job_of_another_host_is_unknown_here_until_it_has_left_its_exit(bench: Bench, afresh: Afresh) -> None:
    job = running(bench, "true")
    change(bench.base / "local-jobs" / f"{job.name}.json", host="elsewhere")
    elsewhere = afresh()
    assert elsewhere.look(job.name).state is JobState.UNKNOWN
    assert processes_below(job.directory)
    kill_jobs(bench.base)
    (job.directory / "job.exit").write_text('{"exit_code": 0, "ended_at": "2026-01-01T00:00:00Z"}')
    assert elsewhere.look(job.name).exit_code == 0


def test_a_job_whose_directory_was_deleted_holds_no_slot(bench: Bench) -> None:
    gone, following = bench.spec("sleep 100"), bench.spec("true")
    bench.backend.submit(gone)
    until((gone.directory / "job.start").exists)
    shutil.rmtree(gone.directory)
    bench.backend.submit(following)
    assert bench.outcome(following.name).exit_code == 0
    assert bench.outcome(gone.name).state is JobState.LOST


def test_a_job_whose_workspace_is_gone_is_lost_and_not_started_again_and_again(bench: Bench) -> None:
    job = bench.spec("true")
    job.working_directory.rmdir()
    bench.backend.submit(job)
    assert bench.outcome(job.name).state is JobState.LOST


# Death of a host, and of a disk


def test_what_had_not_started_when_the_power_failed_is_lost(bench: Bench, afresh: Afresh) -> None:
    blocker, waiting = running(bench, "true"), bench.spec("echo once")
    bench.backend.submit(waiting)
    change(bench.base / "local-jobs" / f"{waiting.name}.json", boot_id="the one before")
    later = afresh()
    later.backend.cancel([blocker.name])
    seen = later.outcome(waiting.name)
    assert (seen.state, seen.cancelled, failure_class(seen)) == (JobState.LOST, False, FailureClass.INFRASTRUCTURE)
    assert not waiting.stdout.exists()


def test_what_waits_for_a_host_that_starts_nothing_any_more_is_lost(
    bench: Bench, afresh: Afresh, local_backend: LocalBackends, redis: Redis
) -> None:
    running(bench, "true")
    waiting = bench.submit("true")
    change(bench.base / "local-jobs" / f"{waiting}.json", host="elsewhere")
    redis.flushdb()
    redis.set(f"{local_backend(1)._prefix('elsewhere')}:restored", "")
    later = afresh()
    assert [later.look(waiting).state for _ in range(2)] == [JobState.PENDING] * 2
    redis.delete(f"{local_backend(1)._prefix('elsewhere')}:restored")
    assert later.outcome(waiting).state is JobState.LOST


AWAY = "Nothing is known of any job: its disk is away, mount it"


def test_a_disk_that_goes_away_takes_no_living_job_with_it(bench: Bench, afresh: Afresh) -> None:
    job, base = running(bench, "true"), bench.base
    waiting = bench.submit("true")
    assert bench.look(job.name).state is JobState.RUNNING
    base.rename(base.with_name("unmounted"))
    try:
        without_disk = {bench.look(job.name).state, afresh().look(job.name).state, bench.look(waiting).state}
        assert bench.look(waiting).trouble == f"{AWAY}: {base}"
        with pytest.raises(OSError, match="its disk is away"):
            afresh().backend.find([job.name])
        base.mkdir()
        without_disk.add(bench.look(job.name).state)
        base.rmdir()
    finally:
        base.with_name("unmounted").rename(base)
    assert without_disk == {JobState.UNKNOWN}
    assert bench.look(job.name).state is JobState.RUNNING
    assert processes_below(job.directory)


@contextmanager
def full_disk() -> Iterator[None]:
    """Files can be made, but nothing can be written into them."""
    _, most = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_on_a_full_disk_running_jobs_are_ended_all_the_same(bench: Bench) -> None:
    job, waiting = running(bench, "true"), bench.spec("true")
    bench.backend.submit(waiting)
    with full_disk(), pytest.raises(OSError, match="large"):
        bench.backend.cancel([waiting.name, job.name])
    assert bench.outcome(job.name).cancelled
    assert not list(waiting.directory.glob(".*"))


def test_where_not_even_a_mark_can_be_made_it_is_remembered_that_a_job_was_to_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(self: Path, **_: object) -> None:
        raise OSError(28, f"No space left on device: {self}")

    job = running(bench, "trap '' TERM")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "touch", no_space)
        bench.backend.cancel([job.name])
        seen = bench.outcome(job.name)
    assert (seen.exit_code, seen.cancelled) == (137, True)


# Limits


def test_a_time_limit_holds_even_if_what_watches_it_is_dead(bench: Bench) -> None:
    job = running(bench, "true", time_limit=timedelta(seconds=0.5))
    [watchman] = [pid for pid, command in processes_below(job.directory).items() if command.startswith("timeout")]
    os.kill(watchman, signal.SIGSTOP)
    seen = bench.outcome(job.name)
    assert (seen.state, seen.exit_code, seen.timed_out) == (JobState.FINISHED, 137, True)
    assert failure_class(seen) is FailureClass.RESOURCES


def test_a_job_that_was_killed_whole_for_its_memory_ran_out_of_memory(bench: Bench, afresh: Afresh) -> None:
    job = running(bench, "true")
    (job.directory / "job.limit").write_text("memory")
    kill_jobs(bench.base)
    seen = afresh().look(job.name)
    assert (seen.state, seen.exit_code, seen.out_of_memory) == (JobState.FINISHED, 137, True)
    assert afresh().look(job.name).out_of_memory


def test_who_does_not_end_when_told_is_killed_and_how_it_ended_is_known(bench: Bench) -> None:
    job = running(bench, "trap '' TERM")
    bench.backend.cancel([job.name])
    seen = bench.outcome(job.name)
    assert (seen.state, seen.exit_code, seen.cancelled) == (JobState.FINISHED, 137, True)
    assert seen.ended_at is not None


def test_how_a_job_ended_whose_disk_was_away_is_known_when_that_is_back(bench: Bench, tmp_path: Path) -> None:
    go = tmp_path.with_name(f"{tmp_path.name}.go")
    job = bench.spec('echo here; until [ -e "$1" ]; do sleep 0.01; done; exit 7', str(go))
    bench.backend.submit(job)
    bench.until_it_says(job, "here")
    first = first_process(job)
    bench.base.rename(bench.base.with_name("unmounted"))
    try:
        go.touch()
        until(lambda: is_gone(first))
    finally:
        bench.base.with_name("unmounted").rename(bench.base)
        go.unlink()
    seen = bench.outcome(job.name)
    assert (seen.state, seen.exit_code, failure_class(seen)) == (JobState.FINISHED, 7, FailureClass.PAYLOAD)


def test_no_job_is_started_whose_end_could_not_be_written_down(local_backend: LocalBackends, tmp_path: Path) -> None:
    bench = Bench(local_backend(1), tmp_path)
    go = tmp_path / "go"
    before = bench.spec('until [ -e "$1" ]; do sleep 0.01; done', str(go))
    job = bench.spec("echo once")
    for one in (before, job):
        bench.backend.submit(one)
    with full_disk():
        go.touch()
        until((job.directory / "job.exit").exists)  # it was to be the next, and found no room
        until(lambda: "has its directory room" in (bench.look(job.name).queue_reason or ""))
    assert not (job.directory / "job.start").exists()
    seen = bench.outcome(job.name)
    assert (seen.state, seen.exit_code) == (JobState.FINISHED, 0)
    assert job.stdout.read_text() == "once\n"
