"""The cluster of the tests against the published schema, as the official client has it, and the documentation."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import config
from kubernetes.client import (
    ApiClient,
    ApiException,
    BatchV1Api,
    Configuration,
    CoreV1Api,
    V1JobList,
    V1NodeList,
    V1PodList,
    V1Status,
)

from tests.kubernetes_api import statuses
from tests.kubernetes_api.cluster import IMAGE, NAMESPACE, NODE, KubernetesCluster, kubernetes_cluster
from tests.kubernetes_api.containers import expand
from tests.workflow.hpc.bench import until


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KubernetesCluster]:
    with kubernetes_cluster(tmp_path / "kubernetes") as found:
        yield found


@pytest.fixture
def client(cluster: KubernetesCluster) -> ApiClient:
    configuration = Configuration()
    config.load_kube_config(str(cluster.kubeconfig), client_configuration=configuration)
    return ApiClient(configuration)


@pytest.fixture
def batch(client: ApiClient) -> Any:
    return BatchV1Api(client)


@pytest.fixture
def core(client: ApiClient) -> Any:
    return CoreV1Api(client)


def job(name: str = "a-job", script: str = "true", **changes: Any) -> dict[str, Any]:
    """A Job as a person would write it, with little more than what is required."""
    container = {"name": "main", "image": IMAGE, "command": ["/bin/sh", "-c", script], **changes.pop("container", {})}
    pod = {"restartPolicy": "Never", "containers": [container], **changes.pop("pod", {})}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {"of": "this-test"}},
        "spec": {"template": {"spec": pod}, "backoffLimit": 0, **changes},
    }


def ask(cluster: KubernetesCluster, path: str, sent: object = None) -> dict[str, Any]:
    """What the API answers, as it comes."""
    url, headers = f"http://127.0.0.1:{cluster.server.port}{path}", {"Authorization": "Bearer a-token"}
    body = None if sent is None else json.dumps(sent).encode()
    request = urllib.request.Request(url, headers=headers, data=body)
    with urllib.request.urlopen(request) as answer:  # noqa: S310 - the same
        found: dict[str, Any] = json.load(answer)
    return found


def phases(core: Any) -> list[str | None]:
    return [pod.status.phase for pod in core.list_namespaced_pod(NAMESPACE).items]


def test_the_client_reads_a_job_from_its_making_to_its_end(batch: Any, core: Any) -> None:
    made = batch.create_namespaced_job(NAMESPACE, job(script="echo hello; exit 3"))
    assert (made.spec.completion_mode, made.spec.backoff_limit) == ("NonIndexed", 0)
    until(lambda: phases(core) == ["Failed"])
    pod = core.list_namespaced_pod(NAMESPACE, label_selector="batch.kubernetes.io/job-name=a-job").items[0]
    end = pod.status.container_statuses[0].state.terminated
    assert (end.exit_code, end.reason) == (3, "Error")
    assert core.read_namespaced_pod_log(pod.metadata.name, NAMESPACE) == "hello\n"
    until(lambda: "Failed" in conditions(batch))
    assert conditions(batch)["Failed"] == "BackoffLimitExceeded"


def conditions(batch: Any, name: str = "a-job") -> dict[str, str | None]:
    status = batch.read_namespaced_job(name, NAMESPACE).status
    return {one.type: one.reason for one in status.conditions or []}


def test_no_answer_has_a_field_that_the_schema_does_not_know(cluster: KubernetesCluster, batch: Any) -> None:
    scripts = {"well": "true", "ill": "exit 3", "on": "sleep 100", "waiting": "true"}
    for name, script in scripts.items():
        batch.create_namespaced_job(
            NAMESPACE, job(name, script, container={"image": "no/such:1"} if name == "waiting" else {})
        )
    until(lambda: {one["status"]["phase"] for one in cluster.pods()} == {"Succeeded", "Failed", "Running", "Pending"})
    cluster.evict(next(name for name in cluster.names("pods") if name.startswith("on-")))
    until(lambda: all(one["status"]["phase"] != "Running" for one in cluster.pods()))
    of_namespace = f"namespaces/{NAMESPACE}"
    assert len(V1JobList.model_validate(ask(cluster, f"/apis/batch/v1/{of_namespace}/jobs")).items) == 4
    assert len(V1PodList.model_validate(ask(cluster, f"/api/v1/{of_namespace}/pods?limit=3")).items) == 3
    assert len(V1NodeList.model_validate(ask(cluster, "/api/v1/nodes")).items) == 1


@pytest.mark.parametrize(
    "refusal",
    [
        statuses.not_found("jobs", "a"),
        statuses.not_found("namespaces", "a"),
        statuses.already_exists("jobs", "a"),
        statuses.conflict("jobs", "a"),
        statuses.invalid("jobs", "a", [statuses.Cause("FieldValueRequired", "spec", "Required value")]),
        statuses.bad_request("no"),
        statuses.unauthorized(),
        statuses.forbidden("jobs", "a", "no"),
        statuses.expired(),
        statuses.too_many_requests(),
        statuses.internal_error(),
    ],
    ids=lambda refusal: refusal.status["reason"],
)
def test_every_refusal_is_a_status_object(refusal: statuses.Refusal) -> None:
    status = V1Status.model_validate(refusal.status)
    assert (status.code, status.status, status.kind) == (refusal.code, "Failure", "Status")
    assert status.message


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "Not_A_Label"}, "metadata.name"),
        ({"name": "a" * 64}, "metadata.name"),
        ({"backoffLimit": -1}, "spec.backoffLimit"),
        ({"ttlSecondsAfterFinished": -1}, "spec.ttlSecondsAfterFinished"),
        ({"selector": {"matchLabels": {"a": "b"}}}, "spec.selector"),
        ({"pod": {"restartPolicy": "Always"}}, "spec.template.spec.restartPolicy"),
        ({"pod": {"restartPolicy": None}}, "spec.template.spec.restartPolicy"),
        ({"pod": {"containers": []}}, "spec.template.spec.containers"),
        ({"pod": {"activeDeadlineSeconds": 0}}, "spec.template.spec.activeDeadlineSeconds"),
        ({"pod": {"volumes": [{"name": "a"}]}}, "spec.template.spec.volumes[0]"),
        ({"pod": {"tolerations": [{"operator": "Maybe"}]}}, "spec.template.spec.tolerations[0].operator"),
        ({"container": {"image": ""}}, "spec.template.spec.containers[0].image"),
        ({"container": {"imagePullPolicy": "Once"}}, "spec.template.spec.containers[0].imagePullPolicy"),
        ({"container": {"env": [{"name": "a=b"}]}}, "spec.template.spec.containers[0].env[0].name"),
        (
            {"container": {"volumeMounts": [{"name": "none", "mountPath": "/a"}]}},
            "spec.template.spec.containers[0].volumeMounts[0].name",
        ),
        (
            {"container": {"resources": {"limits": {"cpu": "many"}}}},
            "spec.template.spec.containers[0].resources.limits.cpu",
        ),
        (
            {"container": {"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}},
            "spec.template.spec.containers[0].resources.requests",
        ),
    ],
)
def test_a_job_that_is_not_as_the_schema_says_is_invalid(batch: Any, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ApiException) as caught:
        batch.create_namespaced_job(NAMESPACE, job(**changes))
    assert caught.value.status == 422
    status = V1Status.from_json(caught.value.body or "")
    causes = (status.details and status.details.causes) if status else None
    assert field in [cause.field for cause in causes or ()]


def test_a_value_of_another_kind_is_a_bad_request(cluster: KubernetesCluster) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400"):
        ask(cluster, f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs", job(backoffLimit="none"))


def test_a_job_that_is_deleted_in_the_foreground_is_there_until_its_pod_has_ended(
    cluster: KubernetesCluster, batch: Any
) -> None:
    script = "trap 'sleep 0.3; exit 0' TERM; echo here; while :; do sleep 0.02; done"
    batch.create_namespaced_job(NAMESPACE, job(script=script))
    until(lambda: any(one["status"]["phase"] == "Running" for one in cluster.pods()))
    until(lambda: "here" in (cluster.kubelet.log(cluster.pods()[0]["metadata"]["uid"]) or ""))
    batch.delete_namespaced_job("a-job", NAMESPACE, propagation_policy="Foreground")
    asked_at = time.monotonic()
    left = batch.read_namespaced_job("a-job", NAMESPACE).metadata
    assert left.deletion_timestamp is not None
    assert left.finalizers == ["foregroundDeletion"]
    until(lambda: not cluster.names("jobs"))
    assert time.monotonic() - asked_at > 0.25
    assert cluster.names("pods") == []


def test_a_job_that_is_deleted_in_the_background_is_gone_at_once_and_its_pod_later(
    cluster: KubernetesCluster, batch: Any
) -> None:
    batch.create_namespaced_job(NAMESPACE, job(script="sleep 100"))
    until(lambda: any(one["status"]["phase"] == "Running" for one in cluster.pods()))
    batch.delete_namespaced_job("a-job", NAMESPACE, propagation_policy="Background")
    assert cluster.names("jobs") == []
    assert "deletionTimestamp" in cluster.pods()[0]["metadata"]
    until(lambda: not cluster.names("pods"))


def test_a_job_is_forgotten_some_time_after_its_end(cluster: KubernetesCluster, batch: Any) -> None:
    batch.create_namespaced_job(NAMESPACE, job(ttlSecondsAfterFinished=0))
    until(lambda: not cluster.names("jobs"))
    assert cluster.names("pods") == []


def test_a_job_ends_at_its_own_deadline(batch: Any) -> None:
    batch.create_namespaced_job(NAMESPACE, job(script="sleep 100", activeDeadlineSeconds=1))
    until(lambda: "Failed" in conditions(batch))
    assert conditions(batch)["Failed"] == "DeadlineExceeded"


def test_pods_wait_for_room_and_say_so(cluster: KubernetesCluster, batch: Any) -> None:
    wide = {"resources": {"requests": {"cpu": "2"}}}
    for name in ("first", "second"):
        batch.create_namespaced_job(NAMESPACE, job(name, "sleep 100", container=wide))
    until(lambda: sorted(one["status"]["phase"] for one in cluster.pods()) == ["Pending", "Running"])
    waiting = next(one for one in cluster.pods() if one["status"]["phase"] == "Pending")
    until(lambda: "conditions" in cluster.state.get("pods", waiting["metadata"]["name"])["status"])
    told = cluster.state.get("pods", waiting["metadata"]["name"])["status"]["conditions"][0]
    assert (told["type"], told["status"], told["reason"]) == ("PodScheduled", "False", "Unschedulable")
    assert told["message"].startswith("0/1 nodes are available: 1 Insufficient cpu")


def test_a_list_in_pages_shows_one_moment(cluster: KubernetesCluster, batch: Any) -> None:
    cluster.is_paused = True
    for number in range(5):
        batch.create_namespaced_job(NAMESPACE, job(f"job-{number}"))
    first = batch.list_namespaced_job(NAMESPACE, limit=3, label_selector="of=this-test")
    batch.create_namespaced_job(NAMESPACE, job("job-9"))
    rest = batch.list_namespaced_job(NAMESPACE, limit=3, _continue=first.metadata.var_continue)
    names = [one.metadata.name for one in (*first.items, *rest.items)]
    assert names == [f"job-{number}" for number in range(5)]
    assert not rest.metadata.var_continue
    with pytest.raises(ApiException) as caught:
        batch.list_namespaced_job(NAMESPACE, limit=3, _continue=first.metadata.var_continue)
    assert caught.value.status == 410


def test_only_the_last_lines_of_a_log_come_where_these_are_asked_for(core: Any, batch: Any) -> None:
    batch.create_namespaced_job(NAMESPACE, job(script="seq 10"))
    until(lambda: phases(core) == ["Succeeded"])
    about = core.list_namespaced_pod(NAMESPACE).items[0].metadata
    assert core.read_namespaced_pod_log(about.name, NAMESPACE, tail_lines=2) == "9\n10\n"


def test_a_container_has_the_environment_that_kubernetes_gives(core: Any, batch: Any) -> None:
    own = {"name": "OWN", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    script = "echo $OWN $HOSTNAME ${KUBERNETES_SERVICE_HOST:+known} $(NODE) $$OWN"
    env = [own, {"name": "NODE", "value": NODE}]
    batch.create_namespaced_job(NAMESPACE, job(container={"command": ["/bin/sh", "-c", script], "env": env}))
    until(lambda: phases(core) == ["Succeeded"])
    name = core.list_namespaced_pod(NAMESPACE).items[0].metadata.name
    assert core.read_namespaced_pod_log(name, NAMESPACE) == f"{name} {name} known {NODE} {name}\n"


def test_variables_of_a_command_are_put_in_as_documented() -> None:
    environment = {"A": "1", "B_2": "two"}
    text = "$(A) $(B_2) $(NONE) $$(A) $A $"
    assert expand(text, environment) == "1 two $(NONE) $(A) $A $"
