import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ccat.stack.redis import RedisAddress
from ccat_ops_db.states import FailureClass
from ccat_workflow_manager.hpc.base import BackendUnavailable, JobSpec, JobState
from ccat_workflow_manager.hpc.failures import failure_class
from ccat_workflow_manager.hpc.local.backend import LocalBackend
from ccat_workflow_manager.hpc.local.killing import kill_jobs
from ccat_workflow_manager.hpc.local.launching import job_command
from tests.workflow.hpc.bench import Bench, processes_below, until
from tests.workflow.hpc.conftest import GRACE, LocalBackends

Afresh = Callable[[], Bench]


@pytest.fixture
def bench(local_backend: LocalBackends, tmp_path: Path) -> Bench:
    return Bench(local_backend(1), tmp_path)


@pytest.fixture
def afresh(local_backend: LocalBackends, tmp_path: Path) -> Afresh:
    """The same backend, as a worker that was just started has it."""
    return lambda: Bench(local_backend(1), tmp_path)


def first_process(job: JobSpec) -> int:
    """The pid that a job wrote into its start mark."""
    mark = job.directory / "job.start"
    until(lambda: mark.exists() and mark.read_text())
    return int(json.loads(mark.read_text())["process"]["pid"])


def change(mark: Path, **values: object) -> None:
    mark.write_text(json.dumps(json.loads(mark.read_text()) | values))


def running(bench: Bench, script: str, **changes: Any) -> JobSpec:
    """A job that has done what the script says, and goes on."""
    job = bench.spec(f"{script}\necho here\nsleep 100", **changes)
    bench.backend.submit(job)
    bench.until_it_says(job, "here")
    return job


# Slots


def test_the_reason_for_waiting_names_what_is_short(bench: Bench) -> None:
    running(bench, "true", memory_gb=10)
    waiting = bench.submit("true", memory_gb=7)
    assert bench.look(waiting).queue_reason == (
        "0 of 1 CPUs are free and the next job needs 1; 6 of 16 GB of memory are free and the next job needs 7"
    )


def test_one_slot_is_never_given_twice_whoever_looks_at_the_same_time(
    local_backend: LocalBackends, tmp_path: Path
) -> None:
    bench = Bench(local_backend(1), tmp_path)
    alone = 'mkdir "$1/alone" && echo start && sleep 0.02 && rmdir "$1/alone"'
    jobs = [bench.spec(alone, str(tmp_path)) for _ in range(8)]
    backends = [local_backend(1) for _ in range(4)]
    names = [job.name for job in jobs]
    together = threading.Barrier(4)

    def work(backend: LocalBackend) -> None:
        together.wait()
        for job in jobs:
            backend.submit(job)
        until(lambda: all(seen.is_over for seen in backend.observe(names).values()))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, backends))
    assert [bench.look(name).exit_code for name in names] == [0] * 8
    assert [job.stdout.read_text() for job in jobs] == ["start\n"] * 8


# Death of whoever started it


STARTER = """
import sys
from pathlib import Path
from pydantic import TypeAdapter
from redis import Redis
from ccat_workflow_manager.hpc.base import JobSpec
from ccat_workflow_manager.hpc.local.backend import LocalBackend

jobs = TypeAdapter(list[JobSpec]).validate_json(sys.stdin.read())
backend = LocalBackend(Redis.from_url(sys.argv[1]), base=Path(sys.argv[2]), cpus=2)
for job in jobs:
    print(backend.submit(job), flush=True)
while True:
    backend.observe([job.name for job in jobs])
"""


def test_killing_the_worker_in_the_middle_of_its_work_loses_and_repeats_nothing(
    bench: Bench, redis_address: RedisAddress
) -> None:
    jobs = [bench.spec("echo once; sleep 0.02") for _ in range(12)]
    command = [sys.executable, "-c", STARTER, redis_address.url, str(bench.base)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(TypeAdapter(list[JobSpec]).dump_json(jobs))
        worker.stdin.close()
        for _ in range(4):
            worker.stdout.readline()
        worker.kill()
    for job in jobs:
        bench.backend.submit(job)
    assert [bench.outcome(job.name).exit_code for job in jobs] == [0] * len(jobs)
    assert [job.stdout.read_text() for job in jobs] == ["once\n"] * len(jobs)


def test_a_job_goes_on_when_the_worker_that_started_it_is_killed(bench: Bench, redis_address: RedisAddress) -> None:
    job = bench.spec('echo here; until [ -e "$1" ]; do sleep 0.01; done; echo done', str(bench.base / "go"))
    command = [sys.executable, "-c", STARTER, redis_address.url, str(bench.base)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as worker:
        assert worker.stdin is not None
        worker.stdin.write(TypeAdapter(list[JobSpec]).dump_json([job]))
        worker.stdin.close()
        bench.until_it_says(job, "here")
        worker.kill()
    (bench.base / "go").touch()
    assert bench.outcome(job.name).exit_code == 0
    assert job.stdout.read_text() == "here\ndone\n"


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
    until(lambda: mark.exists() and mark.read_text())
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


# Cancelling what waits


def test_a_waiting_job_that_is_cancelled_never_starts(bench: Bench) -> None:
    blocker = running(bench, "true")
    waiting = bench.spec("echo started")
    bench.backend.submit(waiting)
    bench.backend.cancel([waiting.name])
    seen = bench.look(waiting.name)
    assert (seen.state, seen.cancelled, seen.exit_code, seen.started_at) == (JobState.FINISHED, True, None, None)
    bench.backend.submit(waiting)
    bench.backend.cancel([blocker.name, waiting.name])
    bench.outcome(blocker.name)
    assert bench.look(waiting.name) == seen
    assert not waiting.stdout.exists()


# Redis


def test_nothing_is_lost_and_no_slot_given_twice_when_redis_forgets_everything(
    bench: Bench, local_backend: LocalBackends, redis: Redis
) -> None:
    go = bench.base / "go"
    first = bench.spec('echo here; until [ -e "$1" ]; do sleep 0.01; done', str(go))
    second = bench.spec("echo here")
    for job in (first, second):
        bench.backend.submit(job)
    bench.until_it_says(first, "here")
    redis.flushdb()
    other = Bench(local_backend(1), bench.base)
    assert other.backend.find([first.name, second.name]) == {first.name: first.name, second.name: second.name}
    assert [other.look(job.name).state for job in (first, second)] == [JobState.RUNNING, JobState.PENDING]
    go.touch()
    assert [other.outcome(job.name).exit_code for job in (first, second)] == [0, 0]


def test_without_redis_running_jobs_are_still_seen_and_new_ones_wait(bench: Bench) -> None:
    job = running(bench, "true")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        deaf = Redis(host="127.0.0.1", port=closed.getsockname()[1], retry=Retry(NoBackoff(), 0))
        cut_off = Bench(LocalBackend(deaf, base=bench.base, cpus=1), bench.base / "cut-off")
        waiting = cut_off.spec("true", name="ccat-00000000-2-1")
        with pytest.raises(BackendUnavailable, match=r"Redis does not answer .* tried again") as refused:
            cut_off.backend.submit(waiting)
        assert refused.value.transient
        seen = cut_off.backend.observe([job.name, waiting.name])
    assert seen[job.name].state is JobState.RUNNING
    assert seen[waiting.name].state is JobState.PENDING
    assert "Redis does not answer" in (seen[waiting.name].queue_reason or "")
    bench.backend.cancel([job.name])
    assert bench.backend.submit(waiting) == waiting.name
    assert bench.outcome(waiting.name).exit_code == 0


def test_every_key_in_redis_has_the_prefix_and_an_end(bench: Bench, redis: Redis) -> None:
    running(bench, "true")
    bench.submit("true")
    keys = [key.decode() for key in redis.scan_iter()]
    assert keys
    assert all(key.startswith("local:jobs:") for key in keys)
    assert all(redis.ttl(key) > 0 for key in keys)


def test_nothing_stays_in_redis_of_a_job_that_is_over(bench: Bench, redis: Redis) -> None:
    bench.outcome(bench.submit("true"))
    bench.backend.observe([])
    assert [key.decode().rpartition(":")[2] for key in redis.scan_iter()] == ["restored"]


# The end of a stack


def test_killing_the_jobs_of_a_base_directory_leaves_none_of_their_processes(bench: Bench) -> None:
    job = running(bench, "setsid sleep 100 &")
    kill_jobs(bench.base)
    assert processes_below(job.directory) == {}
    assert bench.outcome(job.name).state is JobState.LOST


def test_a_record_can_be_read_by_its_owner_only(bench: Bench) -> None:
    job = running(bench, "true")
    assert (bench.base / "local-jobs" / f"{job.name}.json").stat().st_mode & 0o077 == 0
