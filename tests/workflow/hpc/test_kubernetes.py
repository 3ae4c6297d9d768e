"""What only Kubernetes does; what every backend must do is in `test_contract.py`."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ccat_ops_db.states import FailureClass
from ccat_service.settings import SettingsError
from ccat_workflow_manager.hpc.base import BackendUnavailable, JobRefused, JobSpec, JobState
from ccat_workflow_manager.hpc.failures import failure_class, one_line_cause
from ccat_workflow_manager.hpc.kubernetes import asking
from ccat_workflow_manager.hpc.kubernetes.backend import KubernetesBackend
from tests.kubernetes_api import statuses
from tests.kubernetes_api.backend import kubernetes_backend
from tests.kubernetes_api.cluster import NAMESPACE, KubernetesCluster, kubernetes_cluster
from tests.kubernetes_api.controllers import delete_job
from tests.workflow.hpc.bench import ENVIRONMENT, Bench, processes_below, until

GRACE = timedelta(seconds=0.2)
JOBS = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
ABSENT_IMAGE = "registry.example.org/ccat/absent:1"

Backends = Callable[..., KubernetesBackend]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    found = tmp_path / "location"
    found.mkdir()
    return found


@pytest.fixture
def cluster(tmp_path: Path, base: Path) -> Iterator[KubernetesCluster]:
    with kubernetes_cluster(tmp_path / "kubernetes", claims={"data": base}) as found:
        yield found
    assert processes_below(base) == {}


@pytest.fixture
def backend(cluster: KubernetesCluster, base: Path) -> Backends:
    """Makes backends on the cluster, as if each were in a worker of its own, with settings as a location has them."""
    return lambda **settings: kubernetes_backend(cluster, base, grace=GRACE, **settings)


@pytest.fixture
def bench(backend: Backends, base: Path) -> Bench:
    return Bench(backend(), base)


def running(bench: Bench, script: str = "sleep 100", **changes: Any) -> JobSpec:
    """A job that has said that it is there, and goes on."""
    job = bench.spec(f"echo here; {script}", **changes)
    bench.backend.submit(job)
    bench.until_it_says(job, "here")
    return job


def pod_of(cluster: KubernetesCluster, job: JobSpec) -> str:
    return next(name for name in cluster.names("pods") if name.startswith(f"{job.name}-"))


# Handing in: once, whatever happens


def test_a_job_whose_making_was_not_confirmed_is_found_and_not_made_again(
    bench: Bench, cluster: KubernetesCluster
) -> None:
    job = bench.spec("echo once")
    cluster.fail(f"POST {JOBS}", None)
    with pytest.raises(BackendUnavailable, match="gives no answer"):
        bench.backend.submit(job)
    assert bench.backend.find([job.name]) == {job.name: job.name}
    assert bench.backend.submit(job) == job.name
    assert bench.outcome(job.name).exit_code == 0
    assert job.stdout.read_text() == "once\n"


def test_a_job_that_is_there_already_is_adopted(bench: Bench, cluster: KubernetesCluster) -> None:
    job = bench.spec("echo once")
    cluster.fail(f"POST {JOBS}", None)
    cluster.is_paused = True  # what has started is known by its mark, and nobody asks
    with pytest.raises(BackendUnavailable):
        bench.backend.submit(job)
    assert bench.backend.submit(job) == job.name
    cluster.is_paused = False
    assert len(cluster.requests(f"POST {JOBS}")) == 2
    assert cluster.names("jobs") == [job.name]
    assert bench.outcome(job.name).exit_code == 0


def test_two_workers_that_hand_in_the_same_job_run_it_once(bench: Bench, backend: Backends) -> None:
    job = bench.spec("echo once")
    assert bench.backend.submit(job) == backend().submit(job)
    assert bench.outcome(job.name).exit_code == 0
    assert job.stdout.read_text() == "once\n"


def test_a_job_that_ran_and_is_forgotten_is_not_made_again(bench: Bench, cluster: KubernetesCluster) -> None:
    job = bench.spec("echo once")
    cluster.fail(f"POST {JOBS}", None)
    with pytest.raises(BackendUnavailable):
        bench.backend.submit(job)
    until(lambda: (job.directory / "job.exit").exists() and "exit_code" in (job.directory / "job.exit").read_text())
    cluster.state.remove("jobs", job.name)
    assert bench.backend.submit(job) == job.name
    assert len(cluster.requests(f"POST {JOBS}")) == 1
    seen = bench.outcome(job.name)
    assert (seen.exit_code, job.stdout.read_text()) == (0, "once\n")


def test_a_job_of_somebody_else_with_the_same_name_is_not_taken_for_ours(
    bench: Bench, cluster: KubernetesCluster, tmp_path: Path
) -> None:
    other = Bench(kubernetes_backend(cluster, tmp_path / "other", grace=GRACE), tmp_path / "other")
    cluster.is_paused = True
    job = bench.spec("true")
    other.submit("true", name=job.name)
    with pytest.raises(JobRefused, match="not of this location; delete it, or name another namespace"):
        bench.backend.submit(job)


def test_a_second_pod_of_a_job_does_not_run_its_software(bench: Bench, cluster: KubernetesCluster) -> None:
    job = running(bench)
    first = cluster.state.get("pods", pod_of(cluster, job))
    metadata = {**first["metadata"], "name": f"{job.name}-zzzzz"}
    cluster.state.add("pods", {**first, "metadata": metadata, "status": {"phase": "Pending"}})
    until(lambda: cluster.state.get("pods", f"{job.name}-zzzzz")["status"]["phase"] == "Failed")
    assert job.stdout.read_text() == "here\n"
    # Its failure is that of the Job, which takes the first pod along: that attempt is lost, and tried again.
    assert failure_class(bench.outcome(job.name)) is FailureClass.INFRASTRUCTURE
    assert job.stdout.read_text() == "here\n"


def test_nothing_of_what_the_software_gets_stands_in_the_api(bench: Bench, cluster: KubernetesCluster) -> None:
    job = bench.spec('test "$1" = "$KEY"', "my-secret", environment={**ENVIRONMENT, "KEY": "my-secret"})
    assert bench.outcome(bench.backend.submit(job)).exit_code == 0
    known = [*cluster.pods(), cluster.state.get("jobs", job.name)]
    assert "my-secret" not in json.dumps(known)


def test_a_job_with_a_name_that_kubernetes_would_not_take_is_run_and_found(bench: Bench) -> None:
    job = bench.spec("true", name="A.Long_Name-" + "x" * 80)
    job_id = bench.backend.submit(job)
    assert bench.outcome(job_id).exit_code == 0
    assert bench.backend.find([job.name]) == {job.name: job_id}
    assert len(job_id) <= 63


def test_files_of_a_claim_are_where_the_location_has_them(backend: Backends, base: Path) -> None:
    bench = Bench(backend(claim="data"), base)
    assert bench.outcome(bench.submit("true")).exit_code == 0


def test_a_claim_that_is_not_there_is_told(backend: Backends, base: Path) -> None:
    bench = Bench(backend(claim="missing"), base)
    job = bench.submit("true")
    until(lambda: 'persistentvolumeclaim "missing" not found' in (bench.look(job).queue_reason or ""))


# One question for all


def submit_alike(bench: Bench, cluster: KubernetesCluster, number: int) -> list[str]:
    """Hand in so many jobs, all but the first of which come to the cluster without a request each."""
    first = bench.spec("true")
    bench.backend.submit(first)
    ids = [first.name]
    for spec in (bench.spec("true") for _ in range(number - 1)):
        assert isinstance(bench.backend, KubernetesBackend)
        bench.backend._files.keep(spec)
        bench.backend._files.know(spec.name, spec.name)
        alike = json.loads(json.dumps(cluster.state.get("jobs", first.name)).replace(first.name, spec.name))
        cluster.state.add("jobs", alike)
        ids.append(spec.name)
    return ids


def test_a_thousand_jobs_are_looked_at_with_two_questions_in_pages(bench: Bench, cluster: KubernetesCluster) -> None:
    cluster.scheduler.blocked = "0/1 nodes are available: 1 node(s) were unschedulable."
    cluster.is_paused = True
    ids = submit_alike(bench, cluster, 1000)
    cluster.jobs.sync()
    cluster.scheduler.sync()
    before = len(cluster.requests())
    seen = bench.backend.observe(ids)
    asked = [f"{one.path} {one.query['limit']}" for one in cluster.requests()[before:]]
    assert asked == [f"{JOBS} 500"] * 2 + [f"{PODS} 500"] * 2
    assert len(seen) == 1000
    assert {one.state for one in seen.values()} == {JobState.PENDING}
    assert all("were unschedulable" in (one.queue_reason or "") for one in seen.values())


def test_a_list_that_cannot_be_read_to_its_end_is_begun_anew(
    bench: Bench, cluster: KubernetesCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PAGE", 2)
    cluster.is_paused = True
    ids = [bench.submit("true") for _ in range(5)]
    cluster.fail(f"GET {JOBS}?continue", statuses.expired, times=2)
    assert {one.state for one in bench.backend.observe(ids).values()} == {JobState.PENDING}
    cluster.fail(f"GET {JOBS}?continue", statuses.expired, times=9)
    with pytest.raises(BackendUnavailable, match="forgets a list"):
        bench.backend.observe(ids)


def test_other_jobs_of_the_namespace_are_not_asked_for(
    bench: Bench, cluster: KubernetesCluster, tmp_path: Path
) -> None:
    cluster.is_paused = True
    (tmp_path / "other").mkdir()
    other = Bench(kubernetes_backend(cluster, tmp_path / "other", grace=GRACE), tmp_path / "other")
    job = bench.spec("true")
    other.submit("true", name="ccat-11111111-1-1")
    bench.backend.submit(job)
    assert bench.look("ccat-11111111-1-1").state is JobState.UNKNOWN
    assert bench.look(job.name).state is JobState.PENDING


# Waiting


def test_a_job_for_which_there_is_no_room_says_why_it_waits(bench: Bench) -> None:
    job = bench.submit("true", cpu=64)
    until(lambda: "Insufficient cpu" in (bench.look(job).queue_reason or ""))
    assert bench.look(job).state is JobState.PENDING


def test_a_job_for_which_no_pod_is_made_says_where_to_look(bench: Bench, cluster: KubernetesCluster) -> None:
    cluster.jobs.makes_pods = False
    job = bench.submit("true")
    assert "kubectl describe job" in (bench.look(job).queue_reason or "")
    cluster.jobs.makes_pods = True
    assert bench.outcome(job).exit_code == 0


def test_an_image_that_comes_late_is_waited_for(backend: Backends, base: Path, cluster: KubernetesCluster) -> None:
    bench = Bench(backend(image=ABSENT_IMAGE), base)
    job = bench.submit("true")
    until(lambda: "ImagePullBackOff: Back-off pulling image" in (bench.look(job).queue_reason or ""))
    assert bench.look(job).state is JobState.PENDING
    cluster.kubelet.images.add(ABSENT_IMAGE)
    assert bench.outcome(job).exit_code == 0


@pytest.mark.parametrize(("image", "word"), [(ABSENT_IMAGE, "ImagePullBackOff"), ("No Image", "InvalidImageName")])
def test_an_image_that_does_not_come_is_a_mistake_in_how_the_location_is_set_up(
    *, backend: Backends, base: Path, cluster: KubernetesCluster, image: str, word: str
) -> None:
    bench = Bench(backend(image=image, start_patience_seconds=0.01), base)
    job = bench.spec("true")
    bench.backend.submit(job)
    seen = bench.outcome(job.name)
    assert (seen.state, seen.exit_code, failure_class(seen)) == (JobState.FINISHED, 78, FailureClass.CONFIGURATION)
    cause = one_line_cause(bench.backend.logs(job.name), seen, memory_gb=1)
    assert word in cause
    assert "set a right `image`" in cause
    assert job.stderr.read_text().count("\n") == 1
    until(lambda: cluster.names("jobs") == [])
    assert bench.look(job.name) == seen


def test_a_job_that_was_given_up_is_deleted_at_the_next_look_where_the_api_was_away(
    backend: Backends, base: Path, cluster: KubernetesCluster
) -> None:
    bench = Bench(backend(image=ABSENT_IMAGE, start_patience_seconds=0.01), base)
    cluster.fail(f"DELETE {JOBS}", statuses.internal_error)
    job = bench.submit("true")
    assert bench.outcome(job).exit_code == 78
    assert len(cluster.requests(f"DELETE {JOBS}")) >= 2


def test_giving_up_goes_on_where_it_was_broken_off(backend: Backends, base: Path) -> None:
    bench = Bench(backend(image=ABSENT_IMAGE, start_patience_seconds=0.01), base)
    job = bench.spec("true")
    bench.backend.submit(job)
    (job.directory / "job.start").write_text('{"id": null}')
    assert failure_class(bench.outcome(job.name)) is FailureClass.CONFIGURATION


def test_a_job_that_has_started_is_not_given_up(backend: Backends, base: Path, cluster: KubernetesCluster) -> None:
    bench = Bench(backend(start_patience_seconds=0.01), base)
    job = running(bench)
    cluster.is_paused = True
    with cluster.state.changed("pods", pod_of(cluster, job)) as pod:
        pod["status"]["phase"] = "Pending"
        pod["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "CreateContainerError"}}
    assert not bench.look(job.name).is_over
    assert (job.directory / "job.exit").read_text().strip() == ""
    assert cluster.requests("DELETE") == []


# Being taken away


def test_an_evicted_job_is_lost_and_says_why(bench: Bench, cluster: KubernetesCluster) -> None:
    job = running(bench)
    cluster.evict(pod_of(cluster, job))
    seen = bench.outcome(job.name)
    assert (seen.state, failure_class(seen)) == (JobState.LOST, FailureClass.INFRASTRUCTURE)
    assert seen.trouble == "Evicted: The node was low on resource: memory."
    assert seen.host == "node-1"


def test_a_job_whose_pod_is_gone_is_lost(bench: Bench, cluster: KubernetesCluster) -> None:
    job = running(bench)
    cluster.preempt(pod_of(cluster, job))
    until(lambda: cluster.names("pods") == [] and "conditions" in cluster.state.get("jobs", job.name)["status"])
    seen = bench.outcome(job.name)
    assert (seen.state, failure_class(seen)) == (JobState.LOST, FailureClass.INFRASTRUCTURE)
    assert "its pod is gone" in (seen.trouble or "")


def test_a_job_that_somebody_deletes_while_it_runs_is_lost(bench: Bench, cluster: KubernetesCluster) -> None:
    job = running(bench)
    delete_job(cluster.state, job.name, policy="Background")
    until(lambda: cluster.names("pods") == [])
    seen = bench.outcome(job.name)
    assert (seen.state, seen.trouble) == (JobState.LOST, "somebody deleted its Job while it ran")


def test_a_job_that_ended_well_before_its_pod_went_has_ended_well(bench: Bench, cluster: KubernetesCluster) -> None:
    job = running(bench, "trap 'exit 0' TERM; while :; do sleep 0.02; done")
    cluster.preempt(pod_of(cluster, job))
    until(lambda: cluster.names("pods") == [])
    seen = bench.outcome(job.name)
    assert (seen.state, seen.exit_code) == (JobState.FINISHED, 0)


def test_a_job_whose_node_is_gone_runs_until_that_counts_as_lost(bench: Bench, cluster: KubernetesCluster) -> None:
    job = running(bench)
    cluster.lose_node(ago=timedelta())
    assert bench.look(job.name).state is JobState.RUNNING
    with cluster.state.changed("pods", pod_of(cluster, job)) as pod:
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    seen = bench.look(job.name)
    assert (seen.state, failure_class(seen)) == (JobState.LOST, FailureClass.INFRASTRUCTURE)
    assert "DeletionByTaintManager" in (seen.trouble or "")


def test_a_pod_that_kubernetes_ends_at_its_deadline_was_out_of_time(bench: Bench, cluster: KubernetesCluster) -> None:
    job = running(bench)
    with cluster.state.changed("pods", pod_of(cluster, job)) as pod:
        pod["spec"]["activeDeadlineSeconds"] = 1
    seen = bench.outcome(job.name)
    assert (seen.timed_out, failure_class(seen)) == (True, FailureClass.RESOURCES)


# Being forgotten


def test_a_job_that_kubernetes_has_forgotten_is_known_by_its_exit_mark(
    bench: Bench, cluster: KubernetesCluster
) -> None:
    job = bench.submit("exit 65")
    until(lambda: bench.look(job).is_over)
    cluster.state.remove("jobs", job)
    for pod in cluster.names("pods"):
        cluster.state.remove("pods", pod)
    seen = bench.look(job)
    assert (seen.state, seen.exit_code, failure_class(seen)) == (JobState.FINISHED, 65, FailureClass.DATA)


def test_a_job_that_is_forgotten_without_an_exit_mark_is_unknown_and_never_failed(
    bench: Bench, cluster: KubernetesCluster
) -> None:
    cluster.is_paused = True
    job = bench.submit("true")
    cluster.state.remove("jobs", job)
    seen = bench.look(job)
    assert (seen.state, failure_class(seen)) == (JobState.UNKNOWN, None)
    assert "neither its Job nor its pod is there" in (seen.trouble or "")


# The API


def test_jobs_go_on_while_the_api_is_away_and_none_of_them_has_failed(bench: Bench, cluster: KubernetesCluster) -> None:
    job, other = running(bench, "until [ -e go ]; do sleep 0.02; done; exit 65"), bench.spec("true")
    cluster.server.stop()
    for question in (lambda: bench.look(job.name), lambda: bench.backend.submit(other), bench.backend.capacity):
        with pytest.raises(BackendUnavailable, match="gives no answer"):
            question()
    assert "here" in bench.backend.logs(job.name)
    (job.working_directory / "go").touch()
    cluster.server.start()
    assert bench.outcome(job.name).exit_code == 65
    assert bench.outcome(bench.backend.submit(other)).exit_code == 0


def test_an_answer_that_takes_too_long_is_not_waited_for(
    backend: Backends, base: Path, cluster: KubernetesCluster
) -> None:
    bench = Bench(backend(answer_seconds=0.2), base)
    job = bench.submit("true")
    cluster.fail(f"GET {JOBS}", 1.0)
    before = time.monotonic()
    with pytest.raises(BackendUnavailable, match="timed out"):
        bench.look(job)
    assert time.monotonic() - before < 0.9
    assert bench.outcome(job).exit_code == 0


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (statuses.internal_error, "answers 500 when asked to list our Jobs: .*; it is in trouble itself"),
        (statuses.too_many_requests, "answers 429 .*; it asks us to slow down"),
        (statuses.unauthorized, "answers 401 .*; it does not know who we are: renew the token"),
        (lambda: statuses.forbidden("jobs", "", "no right"), "answers 403 .*no right; a quota .* or our account lacks"),
    ],
)
def test_an_api_in_trouble_says_nothing_of_any_job(
    *, bench: Bench, cluster: KubernetesCluster, refusal: Callable[[], statuses.Refusal], words: str
) -> None:
    job = bench.submit("true")
    cluster.fail(f"GET {JOBS}", refusal)
    with pytest.raises(BackendUnavailable, match=words):
        bench.look(job)
    assert bench.outcome(job).exit_code == 0


def test_a_quota_that_is_used_up_is_waited_for(bench: Bench, cluster: KubernetesCluster) -> None:
    cluster.api.quota = 0
    job = bench.spec("true")
    with pytest.raises(BackendUnavailable, match="exceeded quota"):
        bench.backend.submit(job)
    assert bench.backend.find([job.name]) == {}
    cluster.api.quota = None
    assert bench.outcome(bench.backend.submit(job)).exit_code == 0


def test_a_job_that_the_api_never_takes_is_refused_and_the_field_is_named(backend: Backends, base: Path) -> None:
    bench = Bench(backend(labels={"queue": "not a label"}), base)
    with pytest.raises(JobRefused, match=r"metadata\.labels.*not a label.*change what the step asks for"):
        bench.submit("true")


def test_a_namespace_that_is_missing_is_named(backend: Backends, base: Path) -> None:
    bench = Bench(backend(namespace="elsewhere"), base)
    with pytest.raises(BackendUnavailable, match='namespaces "elsewhere" not found; see that the namespace exists'):
        bench.submit("true")


def test_an_answer_that_is_none_says_nothing_of_any_job(bench: Bench, cluster: KubernetesCluster) -> None:
    job = running(bench)
    with cluster.state.changed("pods", pod_of(cluster, job)) as pod:
        pod["status"]["containerStatuses"][0]["restartCount"] = "many"
    with pytest.raises(BackendUnavailable, match="none that this version understands"):
        bench.look(job.name)
    bench.backend.cancel([job.name])


# Cancelling


def test_a_job_that_is_cancelled_before_it_starts_never_starts(bench: Bench, cluster: KubernetesCluster) -> None:
    cluster.scheduler.blocked = "0/1 nodes are available."
    job = bench.spec("echo never")
    bench.backend.submit(job)
    bench.backend.cancel([job.name])
    cluster.scheduler.blocked = None
    seen = bench.outcome(job.name)
    assert (seen.state, seen.cancelled, seen.exit_code, seen.started_at) == (JobState.FINISHED, True, None, None)
    assert not job.stdout.exists()


def test_a_job_that_is_cancelled_while_its_making_is_in_doubt_never_starts(
    bench: Bench, cluster: KubernetesCluster
) -> None:
    cluster.is_paused = True
    job = bench.spec("echo never")
    cluster.fail(f"POST {JOBS}", None)
    with pytest.raises(BackendUnavailable):
        bench.backend.submit(job)
    assert bench.backend.find([job.name]) == {job.name: job.name}
    bench.backend.cancel([job.name])
    cluster.is_paused = False
    assert bench.outcome(job.name).cancelled
    assert not job.stdout.exists()


def test_a_job_whose_cancellation_the_api_did_not_hear_in_time_never_starts(
    bench: Bench, cluster: KubernetesCluster
) -> None:
    cluster.scheduler.blocked = "0/1 nodes are available."
    job = bench.spec("echo never")
    bench.backend.submit(job)
    cluster.fail(f"DELETE {JOBS}", statuses.internal_error)
    with pytest.raises(BackendUnavailable):
        bench.backend.cancel([job.name])
    cluster.scheduler.blocked = None
    seen = bench.outcome(job.name)
    assert (seen.state, seen.cancelled, failure_class(seen)) == (JobState.FINISHED, True, None)
    assert not job.stdout.exists()


def test_a_cancellation_is_confirmed_only_when_nothing_of_the_job_runs(
    bench: Bench, cluster: KubernetesCluster
) -> None:
    job = running(bench, "trap 'sleep 0.1; exit 7' TERM; while :; do sleep 0.02; done")
    bench.backend.cancel([job.name])
    assert not bench.look(job.name).is_over
    seen = bench.outcome(job.name)
    assert (seen.cancelled, seen.exit_code) == (True, 7)
    assert {one.query["propagationPolicy"] for one in cluster.requests("DELETE")} == {"Foreground"}


def test_a_cancelled_job_is_over_also_where_it_could_not_leave_a_mark(bench: Bench, cluster: KubernetesCluster) -> None:
    job = running(bench)
    first = next(iter(cluster.kubelet.containers.values())).process.pid
    bench.backend.cancel([job.name])
    os.kill(first, signal.SIGKILL)
    seen = bench.outcome(job.name)
    assert (seen.cancelled, failure_class(seen)) == (True, None)


def test_a_cancellation_that_the_api_did_not_hear_is_repeated(bench: Bench, cluster: KubernetesCluster) -> None:
    job = running(bench)
    cluster.fail(f"DELETE {JOBS}", statuses.internal_error)
    with pytest.raises(BackendUnavailable):
        bench.backend.cancel([job.name])
    assert bench.look(job.name).state is JobState.RUNNING
    bench.backend.cancel([job.name])
    assert bench.outcome(job.name).cancelled


# Logs, capacity, settings


def test_what_kept_a_job_from_starting_stands_in_the_log_of_its_pod(bench: Bench, cluster: KubernetesCluster) -> None:
    cluster.is_paused = True
    job = bench.spec("true")
    bench.backend.submit(job)
    assert bench.backend.logs(job.name) == ""
    (job.directory / "job.run").unlink()
    cluster.is_paused = False
    until(lambda: "job.run" in bench.backend.logs(job.name))
    seen = bench.look(job.name)
    assert seen.state is JobState.RUNNING  # its exit mark may come yet, as the disk is that of another host
    assert not seen.is_over


def test_the_log_of_a_pod_follows_where_its_software_never_wrote(bench: Bench, cluster: KubernetesCluster) -> None:
    cluster.is_paused = True
    job = bench.spec("true")
    bench.backend.submit(job)
    (job.directory / "job.run").unlink()
    cluster.is_paused = False
    until(lambda: bench.backend.logs(job.name))
    said = bench.backend.logs(job.name)
    bench.backend.cancel([job.name])  # its pod is gone a moment later, and its log with it
    assert "".join(bench.backend.follow(job.name)) in {"", f"{said}\n"}


def test_a_pod_that_waits_has_no_log(bench: Bench, cluster: KubernetesCluster) -> None:
    cluster.scheduler.blocked = "0/1 nodes are available."
    job = bench.submit("true")
    until(lambda: cluster.names("pods"))
    assert bench.backend.logs(job) == ""
    assert [one.query for one in cluster.requests() if one.path.endswith("/log")] == [{"tailLines": "50"}]


def test_the_nodes_tell_what_they_give_where_we_may_look(bench: Bench, cluster: KubernetesCluster) -> None:
    place = bench.backend.capacity()
    assert (place.cpus, place.memory_gb, place.free_cpus) == (2, 16.0, None)
    cluster.api.forbidden.add("list nodes")
    assert bench.backend.capacity().cpus is None


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"kubeconfig": "/nowhere/kubeconfig"}, "/nowhere/kubeconfig cannot be used"),
        ({"kubeconfig": None}, "none is given, and we are in no pod"),
        ({"context": "other"}, "kubeconfig cannot be used: .*other"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_named(
    *, backend: Backends, monkeypatch: pytest.MonkeyPatch, named: dict[str, Any], words: str
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(SettingsError, match=words):
        backend(**named)


@pytest.mark.parametrize("text", ["", "{", "[]", "hello", "1", "current-context: test", "clusters: 1"])
def test_a_kubeconfig_that_is_none_is_named(*, backend: Backends, tmp_path: Path, text: str) -> None:
    file = tmp_path / "broken"
    file.write_text(text)
    with pytest.raises(SettingsError, match="broken cannot be used"):
        backend(kubeconfig=file)
