import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ccat_workflow_manager.hpc.base import BackendUnavailable, JobState
from ccat_workflow_manager.hpc.local.backend import LocalBackend
from ccat_workflow_manager.hpc.local.killing import kill_jobs
from tests.workflow.hpc.bench import Bench, processes_below, until
from tests.workflow.hpc.conftest import Afresh, LocalBackends
from tests.workflow.hpc.marks import first_process, running


@pytest.fixture
def bench(afresh: Afresh) -> Bench:
    return afresh()


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


def test_what_redis_lost_when_it_was_started_anew_is_told_again(bench: Bench, redis: Redis) -> None:
    blocker, waiting = running(bench, "true"), bench.spec("true")
    bench.backend.submit(waiting)
    for key in redis.scan_iter():
        if key.endswith(b":restored"):
            redis.set(key, "the server before")
        else:
            redis.delete(key)
    assert bench.backend.capacity().free_cpus == 0
    assert bench.look(waiting.name).state is JobState.PENDING
    bench.backend.cancel([blocker.name])
    assert bench.outcome(waiting.name).exit_code == 0


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


def test_records_go_when_nobody_asks_for_them_any_more_and_drafts_when_their_writer_is_dead(
    bench: Bench, afresh: Afresh, redis: Redis
) -> None:
    kept, old = bench.spec("true"), bench.spec("true")
    for job in (kept, old):
        bench.outcome(bench.backend.submit(job))
    records = bench.base / "local-jobs"
    draft = records / ".ccat-00000000-7-7.json.0123abcd"
    draft.touch()
    for file in (records / "over" / f"{old.name}.json", records / "over" / ".pruned", draft):
        file.touch()
        os.utime(file, (0, 0))
    redis.flushdb()
    later = afresh()
    later.backend.observe([])
    assert later.backend.find([kept.name, old.name]) == {kept.name: kept.name}
    assert not draft.exists()


def test_a_record_can_be_read_by_its_owner_only(bench: Bench) -> None:
    job = running(bench, "true")
    assert (bench.base / "local-jobs" / f"{job.name}.json").stat().st_mode & 0o077 == 0


def test_a_job_has_nothing_of_its_worker_but_three_streams(bench: Bench) -> None:
    left_open, other = os.pipe()
    os.set_inheritable(left_open, True)  # noqa: FBT003 its name says it
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    job = bench.spec("ls -l /proc/self/fd >fds; grep SigBlk /proc/self/status >signals")
    try:
        bench.backend.submit(job)
        assert bench.outcome(job.name).exit_code == 0
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.close(left_open)
        os.close(other)
    assert "pipe:" not in (job.working_directory / "fds").read_text()
    assert (job.working_directory / "signals").read_text().split() == ["SigBlk:", "0" * 16]


def in_session(leader: int) -> Iterator[psutil.Process]:
    """The processes of a session, whatever else comes and goes on the host."""
    for one in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(one.pid) == leader:
                yield one


def test_the_first_process_of_a_job_is_a_shell_and_no_interpreter_is_started_beside_it(bench: Bench) -> None:
    job = running(bench, "true")
    first = psutil.Process(first_process(job))
    assert first.cmdline()[0] == "/bin/sh"
    assert Path(first.exe()) == Path("/bin/sh").resolve()
    assert {one.name() for one in in_session(first.pid)} == {"sh", "timeout", "sleep"}


def test_of_an_ended_job_not_even_a_zombie_stays(bench: Bench) -> None:
    job = bench.spec("true")
    bench.backend.submit(job)
    pid = first_process(job)
    bench.outcome(job.name)
    until(lambda: not psutil.pid_exists(pid))
