"""The Slurm backend on a real cluster: the whole contract first, as imported, then what only a cluster does."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from signal import SIGKILL

import pytest
from pydantic import TypeAdapter
from redis import Redis

from ccat.crashing import points
from ccat.stack.redis import RedisAddress
from ccat_workflow_manager.hpc.base import BackendUnavailable, JobRefused, JobSpec, JobState, Placement
from ccat_workflow_manager.hpc.cluster.files import ClusterFiles
from ccat_workflow_manager.hpc.failures import failure_class, one_line_cause
from ccat_workflow_manager.hpc.slurm.asking import Slurm
from ccat_workflow_manager.hpc.slurm.backend import SlurmBackend
from ccat_workflow_manager.hpc.slurm.commands import Cluster, squeue
from ccat_workflow_manager.hpc.slurm.pacing import Pace
from ccat_workflow_manager.hpc.slurm.parsing import parse_squeue
from tests.slurm_cluster import SlurmCluster, slurm_cluster
from tests.workflow.hpc.bench import Bench, until
from tests.workflow.hpc.test_contract import *  # noqa: F403 - the fixture `bench` of this module takes the place of the other one
from tests.workflow.verbs.crashes.mortals import OF_CLUSTERS, REPOSITORY

pytestmark = pytest.mark.timeout(300)
GRACE = timedelta(seconds=0.2)
FILES = "ccat_workflow_manager.hpc.cluster.files.ClusterFiles"
MORTAL = Path(__file__).parent / "programs/slurm_mortal.py"


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    """A cluster of one node, for all tests of this module."""
    with tempfile.TemporaryDirectory(prefix="slurm-") as directory, slurm_cluster(Path(directory)) as found:
        yield found


@pytest.fixture
def slurm(cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmCluster]:
    """The same, as this process finds it; its jobs end with the test."""
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    cluster.resume()
    yield cluster
    cluster.run("scancel", "--quiet", f"--user={os.geteuid()}")


class Counting(Slurm):
    """Slurm, and which of its commands were asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def run(self, command: Sequence[str], *, given: str = "") -> str:
        self.asked.append(command[0])
        return super().run(command, given=given)


class Silent(Slurm):
    """Slurm, whose answer to `sbatch` is lost the first time."""

    is_silent = True

    def run(self, command: Sequence[str], *, given: str = "") -> str:
        answer = super().run(command, given=given)
        if command[0] == "sbatch" and self.is_silent:
            self.is_silent = False
            raise BackendUnavailable("slurm", "`sbatch` did not answer")
        return answer


@pytest.fixture
def backend(slurm: SlurmCluster, tmp_path: Path) -> SlurmBackend:
    del slurm
    return SlurmBackend(tmp_path, grace=GRACE, bundle_size=10, jobs_per_task=2, patience=timedelta(seconds=8))


@pytest.fixture
def bench(backend: SlurmBackend, tmp_path: Path) -> Bench:
    return Bench(backend, tmp_path)


def once(bench: Bench, script: str = "", **changes: object) -> JobSpec:
    """A job that writes down that it was started."""
    return bench.spec(f'echo started >>"$1/starts"; {script}', str(bench.base), **changes)


def starts(bench: Bench) -> int:
    """How often such jobs were started."""
    file = bench.base / "starts"
    return len(file.read_text().splitlines()) if file.exists() else 0


# What a job asks for


def test_slurm_is_asked_for_all_that_a_job_asks_for(bench: Bench, slurm: SlurmCluster) -> None:
    job = bench.backend.submit(
        bench.spec(
            "sleep 20",
            cpu=2,
            memory_gb=1.5,
            time_limit=timedelta(hours=2),
            placement=Placement(partition="main"),
        )
    )
    told = slurm.run("scontrol", "--oneliner", "show", "job", job)
    wanted = [
        "Partition=main",
        "NumNodes=1-1",
        "NumCPUs=2",
        "NumTasks=1",
        "CPUs/Task=2",
        "Requeue=0",
        "MinMemoryNode=1431M",
    ]
    wanted.append("TimeLimit=02:02:00")
    assert [one for one in wanted if one not in told.split()] == []


def test_a_job_runs_in_a_directory_whose_name_slurm_would_read_as_a_pattern(bench: Bench) -> None:
    directory = bench.base / "100 %j" / "attempt-1"
    directory.mkdir(parents=True)
    assert bench.outcome(bench.submit("true", directory=directory)).exit_code == 0


def test_several_tasks_find_each_other_by_what_slurm_tells_them(bench: Bench) -> None:
    job = bench.spec("srun --mpi=none --ntasks=2 echo task", ntasks=2, environment=dict(os.environ))
    assert bench.outcome(bench.backend.submit(job)).exit_code == 0, job.stderr.read_text()
    assert job.stdout.read_text() == "task\ntask\n"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"placement": Placement(partition="nowhere")}, "invalid partition specified: nowhere"),
        ({"memory_gb": 10_000}, "Memory specification can not be satisfied"),
        ({"placement": Placement(constraint="gold")}, "Invalid feature specification"),
        ({"gpus": 1}, r"Invalid generic resource \(gres\) specification"),
    ],
)
def test_what_slurm_never_runs_is_refused_with_its_words(bench: Bench, changes: dict[str, object], said: str) -> None:
    job = bench.spec("true", **changes)
    with pytest.raises(JobRefused, match=said):
        bench.backend.submit(job)
    assert bench.backend.find([job.name]) == {}


def test_why_a_job_waits_is_told(bench: Bench) -> None:
    bench.submit("sleep 60", cpu=2)
    waiting = bench.submit("true", cpu=2)
    until(lambda: bench.look(waiting).queue_reason is not None)
    seen = bench.look(waiting)
    assert seen.state is JobState.PENDING
    assert seen.queue_reason in {
        "jobs of a higher priority go first (Priority)",
        "it waits for nodes to become free (Resources)",
    }


# Asking


def test_slurm_is_asked_once_a_round_whatever_the_number_of_jobs(slurm: SlurmCluster, tmp_path: Path) -> None:
    del slurm
    asked = Counting()
    bench = Bench(SlurmBackend(tmp_path, grace=GRACE, slurm=asked, jobs_per_task=10), tmp_path)
    specs = [bench.spec("true") for _ in range(40)]
    assert isinstance(bench.backend, SlurmBackend)
    ids = [bench.submit("true"), *bench.backend.submit_bundle("bundle", specs).values()]
    until(lambda: all(one.is_over for one in bench.backend.observe(ids).values()), within=60)
    asked.asked.clear()
    bench.backend.observe(ids)
    assert sorted(asked.asked) == ["sacct", "squeue"]


def test_one_of_several_clusters_is_named_to_every_command(slurm: SlurmCluster, tmp_path: Path) -> None:
    del slurm
    backend = SlurmBackend(tmp_path, cluster=Cluster("test"), grace=GRACE, jobs_per_task=2)
    bench = Bench(backend, tmp_path)
    specs = [bench.spec("exit 3"), bench.spec("exit 4")]
    ids = [bench.submit("exit 2"), *backend.submit_bundle("ccat-00000000-bundle-7", specs).values()]
    stopped = bench.submit("sleep 100")
    until(lambda: bench.look(stopped).state is JobState.RUNNING)
    backend.cancel([stopped])
    assert [bench.outcome(job_id).exit_code for job_id in ids] == [2, 3, 4]
    assert bench.outcome(stopped).cancelled
    assert backend.capacity().cpus == 2
    lost = SlurmBackend(tmp_path / "elsewhere", cluster=Cluster("test"), grace=GRACE, slurm=Silent())
    job = Bench(lost, tmp_path / "elsewhere").spec("exit 5")
    with pytest.raises(BackendUnavailable):
        lost.submit(job)
    assert Bench(lost, tmp_path).outcome(lost.find([job.name])[job.name]).exit_code == 5
    unknown = SlurmBackend(tmp_path, cluster=Cluster("nowhere"), slurm=Slurm())
    with pytest.raises(BackendUnavailable, match="nowhere"):
        unknown.observe(ids)


def test_jobs_in_a_partition_that_slurm_hides_are_seen_by_who_is_not_root(slurm: SlurmCluster) -> None:
    """Their own jobs too: a job that is not seen counts as forgotten."""
    somebody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups") if os.geteuid() == 0 else ()
    user = "65534" if somebody else str(os.geteuid())
    slurm.run("scontrol", "create", "partitionname=hidden", "nodes=ALL", "hidden=yes")
    hand_in = ("sbatch", "--parsable", "--partition=hidden", "--chdir=/tmp", "--output=/dev/null", "--wrap=sleep 60")
    job = slurm.run(*somebody, *hand_in).strip()
    try:
        found = parse_squeue(slurm.run(*somebody, *squeue(user=user, cluster=Cluster())))
        assert job in found
    finally:
        slurm.run("scancel", job)
        until(lambda: "hidden" not in slurm.run("squeue", "--all", "--noheader", "--format=%P"))
        slurm.run("scontrol", "delete", "partitionname=hidden")


def test_no_more_is_handed_in_than_the_cluster_likes(slurm: SlurmCluster, tmp_path: Path, redis: Redis) -> None:
    del slurm
    backends = [
        SlurmBackend(tmp_path, grace=GRACE, pace=Pace(redis, key="slurm:submissions:1", per_minute=2)) for _ in range(2)
    ]
    bench = Bench(backends[0], tmp_path)
    until(lambda: time.time() % 60 < 50)  # all of it within one minute
    for backend in backends:
        backend.submit(bench.spec("true"))
    with pytest.raises(BackendUnavailable, match="no more than 2 submissions a minute"):
        backends[1].submit(bench.spec("true"))
    assert all(int(redis.ttl(key)) > 0 for key in redis.scan_iter("slurm:*"))


def test_a_job_whose_number_was_lost_is_adopted_and_runs_once(slurm: SlurmCluster, tmp_path: Path) -> None:
    del slurm
    bench = Bench(SlurmBackend(tmp_path, grace=GRACE, slurm=Silent()), tmp_path)
    job = once(bench)
    with pytest.raises(BackendUnavailable):
        bench.backend.submit(job)
    assert bench.backend.find([job.name]).keys() == {job.name}
    assert bench.outcome(bench.backend.submit(job)).exit_code == 0
    assert starts(bench) == 1


def test_where_slurm_was_given_a_job_twice_only_one_runs_and_that_one_is_followed(
    bench: Bench, slurm: SlurmCluster
) -> None:
    """As where it took the first one so late that nobody found it any more."""
    job = once(bench, "sleep 1; exit 3")
    script = f"#!/bin/sh\nexec /bin/sh {job.directory}/job.run $SLURM_JOB_ID\n"
    second = bench.backend.submit(job)
    twin = subprocess.run(
        ["sbatch", "--parsable", f"--job-name={job.name}", "--output=/dev/null"],
        input=script,
        env={**os.environ, "SLURM_CONF": str(slurm.conf)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    assert twin != second
    assert bench.outcome(second).exit_code == 3
    assert starts(bench) == 1


# What goes first


def preempt(bench: Bench) -> None:
    """Have a job that needs the whole node and goes first, to its end."""
    first = bench.submit("true", cpu=2, placement=Placement(partition="urgent"))
    assert bench.outcome(first).exit_code == 0


@pytest.mark.parametrize("partition", ["main", "again"])
def test_a_job_that_is_preempted_is_lost_whatever_its_software_makes_of_it_and_does_not_come_back(
    bench: Bench, partition: str
) -> None:
    ways = ("sleep 100", "trap 'exit 1' TERM; while :; do sleep 0.1; done")
    jobs = [once(bench, f"echo here; {way}", placement=Placement(partition=partition)) for way in ways]
    ids = [bench.backend.submit(job) for job in jobs]
    for job in jobs:
        bench.until_it_says(job, "here")
    preempt(bench)
    seen = [bench.outcome(job_id) for job_id in ids]
    assert [(one.state, one.cancelled) for one in seen] == [(JobState.LOST, False)] * len(ways)
    assert {one.trouble for one in seen} == {"it was preempted by a job that goes first"}
    assert starts(bench) == len(ways)


def test_of_an_array_what_runs_as_its_task_is_preempted_is_lost_and_all_else_is_done(bench: Bench) -> None:
    assert isinstance(bench.backend, SlurmBackend)
    scripts = ("true", "echo here; trap 'exit 1' TERM; while :; do sleep 0.1; done", "true")
    specs = [once(bench, script, cpu=2) for script in scripts]
    ids = bench.backend.submit_bundle("ccat-00000000-bundle-6", specs)
    bench.until_it_says(specs[1], "here")
    preempt(bench)
    seen = [bench.outcome(ids[spec.name]) for spec in specs]
    assert [one.exit_code if one.state is JobState.FINISHED else one.trouble for one in seen] == [
        *(0, "it was preempted by a job that goes first", 0)
    ]
    assert starts(bench) == len(scripts)


def test_a_job_that_the_cluster_suspends_beyond_its_time_is_lost_and_did_not_take_too_long(
    bench: Bench, slurm: SlurmCluster
) -> None:
    job = bench.spec("echo here; sleep 100", time_limit=timedelta(seconds=2))
    job_id = bench.backend.submit(job)
    bench.until_it_says(job, "here")
    slurm.run("scontrol", "suspend", job_id)
    assert bench.look(job_id).state is JobState.RUNNING
    time.sleep(3)
    slurm.run("scontrol", "resume", job_id)
    seen = bench.outcome(job_id)
    assert seen.state is JobState.LOST, seen
    assert "and its time limit passed meanwhile" in one_line_cause("", seen, memory_gb=1)


# Arrays


def test_jobs_of_an_array_are_as_any_others(bench: Bench, slurm: SlurmCluster) -> None:
    assert isinstance(bench.backend, SlurmBackend)
    specs = [bench.spec(f"echo {number}; exit {number}") for number in range(4)]
    ids = bench.backend.submit_bundle("ccat-00000000-bundle-1", specs)
    [number] = {job_id.partition("_")[0] for job_id in ids.values()}
    assert list(ids.values()) == [f"{number}_0:0", f"{number}_0:1", f"{number}_1:0", f"{number}_1:1"]
    assert [bench.outcome(ids[spec.name]).exit_code for spec in specs] == [0, 1, 2, 3]
    assert [spec.stdout.read_text() for spec in specs] == ["0\n", "1\n", "2\n", "3\n"]
    assert bench.backend.find([spec.name for spec in specs]) == ids
    assert "ccat-00000000-bundle-1" in slurm.run("squeue", "--states=all", "--noheader", "--format=%j")


def test_one_job_of_an_array_is_cancelled_and_the_others_go_on(bench: Bench) -> None:
    assert isinstance(bench.backend, SlurmBackend)
    specs = [bench.spec("echo here; sleep 5; echo done") for _ in range(4)]
    ids = bench.backend.submit_bundle("ccat-00000000-bundle-2", specs)
    bench.until_it_says(specs[0], "here")
    for _ in range(2):
        bench.backend.cancel([ids[specs[0].name], ids[specs[3].name]])
    seen = [bench.outcome(ids[spec.name]) for spec in specs]
    assert [one.cancelled for one in seen] == [True, False, False, True]
    assert [one.exit_code for one in seen[1:]] == [0, 0, None]
    assert [spec.stdout.exists() and spec.stdout.read_text() for spec in specs] == [
        *("here\n", "here\ndone\n", "here\ndone\n", False)
    ]


def test_a_job_of_a_task_that_is_ended_may_end_as_it_likes_and_none_starts_after_it(
    bench: Bench, slurm: SlurmCluster
) -> None:
    assert isinstance(bench.backend, SlurmBackend)
    saves = "trap 'echo saved; exit 3' TERM; echo here; while :; do sleep 0.05; done"
    specs = [bench.spec(saves), bench.spec("echo started")]
    ids = list(bench.backend.submit_bundle("ccat-00000000-bundle-6", specs).values())
    bench.until_it_says(specs[0], "here")
    slurm.run("scancel", ids[0].partition(":")[0])
    seen = bench.outcome(ids[0])
    assert (seen.exit_code, seen.cancelled, specs[0].stdout.read_text()) == (3, True, "here\nsaved\n")
    assert bench.look(ids[1]).state is not JobState.RUNNING
    assert not specs[1].stdout.exists()


def test_what_waits_for_its_turn_in_a_task_that_ends_before_is_lost_and_not_cancelled(
    bench: Bench, slurm: SlurmCluster
) -> None:
    assert isinstance(bench.backend, SlurmBackend)
    specs = [bench.spec("echo here; sleep 100") for _ in range(2)]
    ids = list(bench.backend.submit_bundle("ccat-00000000-bundle-4", specs).values())
    bench.until_it_says(specs[0], "here")
    assert bench.look(ids[1]).queue_reason == "others of its array task go before it"
    slurm.run("scancel", ids[0].partition(":")[0])
    first, second = (bench.outcome(job_id) for job_id in ids)
    assert (first.cancelled, second.state, second.cancelled) == (True, JobState.LOST, False)
    assert "its array task ended before its turn" in one_line_cause("", second, memory_gb=1)


def test_what_a_job_of_an_array_leaves_behind_ends_with_it(bench: Bench) -> None:
    assert isinstance(bench.backend, SlurmBackend)
    specs = [bench.spec("sleep 1000 & echo $!; exit 0"), bench.spec("sleep 3")]
    ids = bench.backend.submit_bundle("ccat-00000000-bundle-5", specs)
    assert bench.outcome(ids[specs[0].name]).exit_code == 0
    left = int(specs[0].stdout.read_text())
    until(lambda: not Path(f"/proc/{left}").exists(), within=2)


def test_an_array_whose_number_was_lost_is_adopted(slurm: SlurmCluster, tmp_path: Path) -> None:
    del slurm
    backend = SlurmBackend(tmp_path, grace=GRACE, slurm=Silent(), jobs_per_task=2)
    bench = Bench(backend, tmp_path)
    specs = [once(bench) for _ in range(3)]
    with pytest.raises(BackendUnavailable):
        backend.submit_bundle("ccat-00000000-bundle-3", specs)
    found = backend.find([spec.name for spec in specs])
    assert sorted(job_id.partition("_")[2] for job_id in found.values()) == ["0:0", "0:1", "1:0"]
    assert [bench.outcome(found[spec.name]).exit_code for spec in specs] == [0, 0, 0]
    assert starts(bench) == 3


# What Slurm forgets, or cannot tell


def test_a_job_that_slurm_has_forgotten_is_known_by_its_exit_mark(bench: Bench, slurm: SlurmCluster) -> None:
    job = bench.submit("exit 3")
    until(lambda: job not in slurm.run("squeue", "--noheader", "--states=all", "--format=%i").split(), within=60)
    assert bench.outcome(job).exit_code == 3


def test_nothing_is_declared_failed_while_the_controller_is_down(bench: Bench, slurm: SlurmCluster) -> None:
    job = once(bench, "sleep 3")
    job_id = bench.backend.submit(job)
    until(lambda: starts(bench) == 1)
    slurm.kill("slurmctld")
    try:
        with pytest.raises(BackendUnavailable, match="squeue"):
            bench.look(job_id)
        with pytest.raises(BackendUnavailable, match="sbatch"):
            bench.submit("true")
    finally:
        slurm.restart_controller(first_job=1000)
    until(lambda: bench.look(job_id).is_over, within=60)
    assert bench.look(job_id).exit_code == 0  # whatever the controller remembers of it
    assert starts(bench) == 1


def test_without_an_answer_of_the_accounting_exit_marks_tell(bench: Bench, slurm: SlurmCluster) -> None:
    slurm.kill("slurmdbd")
    try:
        seen = bench.outcome(bench.submit("exit 3"))
        assert (seen.exit_code, seen.peak_memory_bytes) == (3, None), seen
    finally:
        slurm.restart_accounting()


def test_a_cluster_that_keeps_no_accounts_tells_everything_but_the_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="slurm-") as place,
        slurm_cluster(Path(place), has_accounting=False) as bare,
    ):
        monkeypatch.setenv("SLURM_CONF", str(bare.conf))
        bench = Bench(SlurmBackend(tmp_path, grace=GRACE), tmp_path)
        jobs = [bench.spec("exit 3"), bench.spec("exit 0")]
        ids = [bench.backend.submit(job) for job in jobs]
        seen = [bench.outcome(job_id) for job_id in ids]
        assert [(one.exit_code, one.peak_memory_bytes) for one in seen] == [(3, None), (0, None)]
        assert bench.backend.find([job.name for job in jobs]) == dict(zip([job.name for job in jobs], ids, strict=True))
        lost = SlurmBackend(tmp_path / "elsewhere", grace=GRACE, slurm=Silent())
        other = Bench(lost, tmp_path / "elsewhere").spec("exit 4")
        with pytest.raises(BackendUnavailable):
            lost.submit(other)
        assert lost.find([other.name])


def test_a_job_whose_processes_were_killed_is_lost_and_never_a_success(bench: Bench) -> None:
    job = bench.spec("echo $PPID; sleep 100")
    job_id = bench.backend.submit(job)
    until(lambda: job.stdout.exists() and job.stdout.read_text().endswith("\n"))
    timeout = int(job.stdout.read_text())
    wrapper = int(Path(f"/proc/{timeout}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(wrapper, SIGKILL)
    until(lambda: bench.look(job_id).is_over, within=60)
    seen = bench.look(job_id)
    assert (seen.state, seen.exit_code) == (JobState.LOST, None), seen
    assert one_line_cause("", seen, memory_gb=1).startswith("the job was lost on ")
    assert failure_class(seen) is not None


def test_a_job_that_somebody_else_cancels_at_the_cluster_is_cancelled(bench: Bench, slurm: SlurmCluster) -> None:
    job = bench.spec("echo here; sleep 100")
    job_id = bench.backend.submit(job)
    bench.until_it_says(job, "here")
    slurm.run("scancel", job_id)
    assert bench.outcome(job_id).cancelled


def test_measures_come_from_the_accounting_where_it_has_them(bench: Bench) -> None:
    """Slurm sometimes has none of a job of a few seconds: then its peak is unknown."""
    hold = "import time; x = b'x' * 150_000_000; time.sleep(2.5)"
    ids = [
        bench.backend.submit(
            bench.spec("", command=("python3", "-c", hold), memory_gb=0.3, time_limit=timedelta(hours=1))
        )
        for _ in range(4)
    ]
    peaks = [peak for job_id in ids if (peak := bench.outcome(job_id).peak_memory_bytes) is not None]
    assert peaks
    assert all(1.5e8 < peak < 3e8 for peak in peaks)


# Death


POINTS = [point for point in points() if point.startswith(OF_CLUSTERS)]


def die(base: Path, what: str, *jobs: str, at: str) -> bool:
    """Have another process do something and die of it; whether it came to that point."""
    command = [sys.executable, str(MORTAL), str(base), what, *jobs]
    environment = {**os.environ, "CCAT_CRASH_AT": at, "PYTHONPATH": f"{REPOSITORY}/src:{REPOSITORY}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in {0, -SIGKILL}, done.stderr
    return done.returncode == -SIGKILL


def written(job: JobSpec) -> str:
    """The file that tells another process of a job."""
    file = job.directory / f"{job.name}.spec.json"
    file.write_bytes(TypeAdapter(JobSpec).dump_json(job))
    return str(file)


def test_a_job_runs_once_wherever_processes_die_while_it_is_handed_in(
    bench: Bench, tmp_path: Path, redis_address: RedisAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each point one process dies; a healthy one goes on, and in the end all is as if nobody had died."""
    assert isinstance(bench.backend, SlurmBackend)
    monkeypatch.setenv("CCAT_TEST_REDIS", redis_address.url)
    ids = tmp_path / "cluster-jobs/ids"
    ids.mkdir(parents=True)
    for number in range(1, 1000):  # of the time before the cluster counted anew
        for name in (f"{number}", f"{number}_0:0"):
            (ids / name).symlink_to("a-job-of-before")
    elsewhere = ("prune", "forget", "conclude_unstarted")  # see the tests that follow
    jobs = {point: once(bench) for point in POINTS if not any(f".{name}:" in point for name in elsewhere)}
    for number, (point, job) in enumerate(jobs.items()):
        way = "submit" if number % 4 < 2 else "submit_bundle"  # each at both moments of a place
        assert die(tmp_path, way, written(job), at=point), point
    handed_in = {job.name: adopted_or_handed_in(bench, job) for job in jobs.values()}
    assert [bench.outcome(job_id).exit_code for job_id in handed_in.values()] == [0] * len(jobs)
    assert starts(bench) == len(jobs)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_job_that_slurm_refuses_is_refused_again_where_who_was_told_so_died(
    bench: Bench, tmp_path: Path, moment: str
) -> None:
    job = bench.spec("true", placement=Placement(partition="nowhere"))
    assert die(tmp_path, "submit", written(job), at=f"{FILES}.forget:unlink:{moment}")
    with pytest.raises(JobRefused):
        adopted_or_handed_in(bench, job)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_why_a_job_never_started_is_in_its_log_also_where_who_wrote_it_died(tmp_path: Path, moment: str) -> None:
    job = Bench(SlurmBackend(tmp_path), tmp_path).spec("true")
    files = ClusterFiles(tmp_path, grace=GRACE)
    record = files.keep(job)
    assert die(tmp_path, "conclude_unstarted", job.name, at=f"{FILES}.conclude_unstarted:open:{moment}")
    for _ in range(2):
        assert files.conclude_unstarted(record, exit_code=78, because="its image is not there")
    end = files.marks(record).exit
    assert end is not None
    assert (end.exit_code, job.stderr.read_text()) == (78, "its image is not there\n")


@pytest.mark.parametrize("point", [point for point in POINTS if "prune" in point])
def test_old_records_are_removed_also_where_somebody_died_of_it(bench: Bench, tmp_path: Path, point: str) -> None:
    job = bench.spec("true")
    bench.outcome(bench.backend.submit(job))
    for path in (tmp_path / "cluster-jobs").rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    assert die(tmp_path, "observe", "1", at=point)
    for path in (tmp_path / "cluster-jobs").rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    SlurmBackend(tmp_path).observe([])
    assert SlurmBackend(tmp_path).find([job.name]) == {}


def adopted_or_handed_in(bench: Bench, job: JobSpec) -> str:
    """What a worker does with a job that may have been handed in."""
    return bench.backend.find([job.name]).get(job.name) or bench.backend.submit(job)
