"""What Kubernetes is asked for, what settings say of it, and what its refusals mean, without any cluster."""

import json
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.client import ApiClient

from ccat_workflow_manager.hpc.base import JobRefused, JobSpec
from ccat_workflow_manager.hpc.kubernetes.errors import Answer, Declined
from ccat_workflow_manager.hpc.kubernetes.manifests import Place, job, passed, refuse_elsewhere
from ccat_workflow_manager.hpc.kubernetes.naming import cluster_name
from ccat_workflow_manager.hpc.kubernetes.settings import KubernetesSettings
from tests.kubernetes_api import schema
from tests.kubernetes_api.containers import expand
from tests.workflow.hpc.bench import ENVIRONMENT

REQUIRED = {"image": "registry.example.org/runner:1", "claim": "data"}


def spec(**changes: Any) -> JobSpec:
    directory = Path("/data/runs/run-1/attempt-1")
    asked: dict[str, Any] = {
        "name": "ccat-00000000-1-1",
        "command": ("true",),
        "environment": ENVIRONMENT,
        "directory": directory,
        "working_directory": directory / "workspace",
        "stdout": directory / "stdout",
        "stderr": directory / "stderr",
        "cpu": 2,
        "memory_gb": 1.5,
        "time_limit": timedelta(hours=1),
    }
    return JobSpec(**(asked | changes))


def manifest(job_spec: JobSpec, **settings: Any) -> Any:
    """What the API gets, as JSON, which it would take."""
    found = KubernetesSettings.model_validate(REQUIRED | settings)
    place = Place(root=Path("/data"), owner="0123456789ab", settings=found, grace=timedelta(seconds=10))
    value = ApiClient().sanitize_for_serialization(job(job_spec, place))
    schema.admit(json.dumps(value).encode())
    return value


def pod(job_spec: JobSpec, **settings: Any) -> Any:
    return manifest(job_spec, **settings)["spec"]["template"]["spec"]


def test_a_job_is_one_pod_that_is_tried_once() -> None:
    asked = manifest(spec())["spec"]
    assert (asked["backoffLimit"], asked["completions"], asked["parallelism"]) == (0, 1, 1)
    assert asked["template"]["spec"]["restartPolicy"] == "Never"
    assert asked["ttlSecondsAfterFinished"] == 3600


def test_the_time_limit_counts_on_the_node_and_leaves_time_for_the_exit_mark() -> None:
    asked = manifest(spec())["spec"]
    assert "activeDeadlineSeconds" not in asked
    assert asked["template"]["spec"]["activeDeadlineSeconds"] == 600 + 3600 + 10 + 60
    assert asked["template"]["spec"]["terminationGracePeriodSeconds"] == 15


def test_resources_are_asked_for_and_limited_alike() -> None:
    container = pod(spec(ntasks=2, gpus=1))["containers"][0]
    expected = {"cpu": "4", "memory": "1500000000", "nvidia.com/gpu": "1"}
    assert container["resources"] == {"requests": expected, "limits": expected}
    assert "nvidia.com/gpu" not in pod(spec())["containers"][0]["resources"]["limits"]
    amd = pod(spec(gpus=2), gpu_resource="amd.com/gpu")["containers"][0]["resources"]["limits"]
    assert amd["amd.com/gpu"] == "2"


def test_what_kubernetes_says_of_gpus_is_passed_where_there_are_any() -> None:
    assert passed(spec()) == ()
    assert "NVIDIA_VISIBLE_DEVICES" in passed(spec(gpus=1))


def test_pods_are_ours_and_get_no_rights() -> None:
    asked = pod(spec(), service_account="jobs")
    assert asked["securityContext"]["runAsUser"] == os.geteuid()
    assert asked["securityContext"]["fsGroup"] == os.getegid()
    assert (asked["automountServiceAccountToken"], asked["enableServiceLinks"]) == (False, False)
    assert asked["serviceAccountName"] == "jobs"


def test_the_location_is_mounted_where_we_have_it_and_other_files_where_they_are_told() -> None:
    cache = {"path": "/cache", "host_path": "/mnt/cache"}
    asked = pod(spec(), sub_path="ccat", mounts=[cache])
    assert asked["volumes"] == [
        {"name": "files-0", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "files-1", "hostPath": {"path": "/mnt/cache", "type": "Directory"}},
    ]
    assert asked["containers"][0]["volumeMounts"] == [
        {"name": "files-0", "mountPath": "/data", "subPath": "ccat"},
        {"name": "files-1", "mountPath": "/cache", "readOnly": True},
    ]


def test_what_a_cluster_needs_beside_is_passed_on() -> None:
    told = {
        "image_pull_secrets": '["registry"]',
        "node_selector": '{"pool": "batch"}',
        "tolerations": '[{"key": "batch", "effect": "NoSchedule"}]',
        "labels": '{"kueue.x-k8s.io/queue-name": "reductions"}',
        "image_pull_policy": "Always",
        "runtime_class": "nvidia",
        "priority_class": "low",
    }
    asked, found = pod(spec(), **told), manifest(spec(), **told)
    assert asked["imagePullSecrets"] == [{"name": "registry"}]
    assert asked["nodeSelector"] == {"pool": "batch"}
    assert asked["tolerations"] == [{"key": "batch", "operator": "Exists", "effect": "NoSchedule"}]
    assert found["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "reductions"
    assert (asked["runtimeClassName"], asked["priorityClassName"]) == ("nvidia", "low")
    assert asked["containers"][0]["imagePullPolicy"] == "Always"


@given(
    st.text(st.characters(exclude_characters="/\0", codec="utf-8"), max_size=20)
    | st.lists(st.sampled_from(["$", "$(HOME)", "(", ")", "CCAT_POD_NAME"]), max_size=6).map("".join)
)
def test_kubernetes_puts_nothing_into_the_path_of_a_job(name: str) -> None:
    directory = Path("/data") / f"x{name}"
    command = pod(spec(directory=directory))["containers"][0]["command"]
    given_to_the_container = {"CCAT_POD_NAME": "pod-1", "HOME": "/root"}
    words = [expand(word, given_to_the_container) for word in command]
    assert words == ["/bin/sh", str(directory / "job.run"), "pod-1"]


def test_more_than_one_node_is_refused() -> None:
    with pytest.raises(JobRefused, match=r"it asks for 2 nodes, and a job on Kubernetes is one pod on one node; lower"):
        refuse_elsewhere(spec(nodes=2))
    refuse_elsewhere(spec(ntasks=4))


# Names


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]*", fullmatch=True))
def test_every_name_becomes_one_that_kubernetes_takes(name: str) -> None:
    found = cluster_name(name)
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", found)
    assert len(found) <= 63
    assert cluster_name(found) == found


def test_our_own_names_stay_and_others_stay_apart() -> None:
    assert cluster_name("ccat-0a1b2c3d-12345678-10") == "ccat-0a1b2c3d-12345678-10"
    alike = ["A.b", "a.b", "a_b", "A_B", "a" * 64, "a" * 65, "..."]
    assert len({cluster_name(name) for name in alike}) == len(alike)


# Settings


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"claim": None}, "either a `claim` or a `host_path`"),
        ({"host_path": "/data"}, "either a `claim` or a `host_path`"),
        ({"claim": None, "host_path": "data"}, "absolute"),
        ({"sub_path": "../other"}, "stays inside of its claim"),
        ({"claim": "Not A Name"}, "pattern"),
        ({"image": ""}, "at least 1 character"),
        ({"gpu_resource": "gpu"}, "pattern"),
        ({"keep_seconds": 1}, "greater than or equal to 60"),
        ({"tolerations": "batch"}, "write it as JSON"),
        ({"mounts": [{"path": "/a"}]}, "either a `claim` or a `host_path`"),
        ({"nodeselector": {}}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=problem):
        KubernetesSettings.model_validate(REQUIRED | changes)


def test_the_image_is_required() -> None:
    with pytest.raises(pydantic.ValidationError, match="image"):
        KubernetesSettings.model_validate({"claim": "data"})


# Refusals


@given(st.integers(100, 599), st.text())
def test_any_answer_is_understood_as_far_as_it_goes(status: int, body: str) -> None:
    answer = Answer.of(status, body)
    assert not answer.is_known_already
    assert not answer.is_missing
    assert str(status) in str(Declined("list our Jobs", answer))


def test_an_answer_of_a_proxy_is_told_as_it_is() -> None:
    page = "<html>\n<body>Bad  Gateway</body></html>"
    told = str(Declined("create a Job", Answer.of(502, page)))
    assert "answers 502 when asked to create a Job: <html> <body>Bad Gateway</body></html>; it is in trouble" in told


@pytest.mark.parametrize(("status", "is_for_ever"), [(400, True), (413, True), (422, True), (403, False), (429, False)])
def test_only_what_would_be_refused_again_is_refused_for_ever(*, status: int, is_for_ever: bool) -> None:
    assert Answer(status).is_for_ever is is_for_ever


def test_status_and_reason_decide_together() -> None:
    assert Answer(409, "AlreadyExists").is_known_already
    assert not Answer(409, "Conflict").is_known_already
    assert Answer(404, "NotFound", kind="jobs").is_missing
    assert not Answer(404, "NotFound", kind="namespaces").is_missing
    assert not Answer(404, message="404 page not found").is_missing
