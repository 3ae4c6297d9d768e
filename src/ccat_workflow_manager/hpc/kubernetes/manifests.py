"""From a job to what Kubernetes is asked to make of it: values in, values out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from kubernetes.client import (
    V1Container,
    V1EnvVar,
    V1EnvVarSource,
    V1HostPathVolumeSource,
    V1Job,
    V1JobSpec,
    V1LocalObjectReference,
    V1ObjectFieldSelector,
    V1ObjectMeta,
    V1PersistentVolumeClaimVolumeSource,
    V1PodSecurityContext,
    V1PodSpec,
    V1PodTemplateSpec,
    V1ResourceRequirements,
    V1Toleration,
    V1Volume,
    V1VolumeMount,
)

from ccat_workflow_manager.hpc.base import GIGABYTE, JobRefused, JobSpec
from ccat_workflow_manager.hpc.cluster.files import RUN_SCRIPT
from ccat_workflow_manager.hpc.kubernetes.naming import DIRECTORY, JOB, OURS, cluster_name
from ccat_workflow_manager.hpc.kubernetes.settings import KubernetesSettings, Mount, Volume

CONTAINER: Final = "software"
_POD_NAME: Final = "CCAT_POD_NAME"
_MARGIN: Final = timedelta(seconds=60)
"""Beyond the time limit, the grace and the start, so that the job ends by itself and leaves its exit mark."""
_TO_LEAVE_THE_MARK_S: Final = 5
"""After the software was killed, until Kubernetes kills what is left."""
_GIVEN_WITH_GPUS: Final = (
    *("NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "CUDA_VISIBLE_DEVICES"),
    *("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"),
)
_NEVER_EVICTED: Final = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
"""A node is not taken away under a job only to save one."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where jobs of a location run, and how."""

    root: Path
    """Root of the location."""
    owner: str
    settings: KubernetesSettings
    grace: timedelta


def refuse_elsewhere(spec: JobSpec) -> None:
    """Raise JobRefused for a job that needs another kind of cluster."""
    if spec.nodes > 1:
        problem = f"it asks for {spec.nodes} nodes, and a job on Kubernetes is one pod on one node"
        raise JobRefused(
            spec.name, problem=problem, remedy="lower the step's nodes to 1, or run it at a Slurm location"
        )


def passed(spec: JobSpec) -> Sequence[str]:
    """Variables of the container that a job needs to use the GPUs that it was allotted."""
    return _GIVEN_WITH_GPUS if spec.gpus else ()


def job(spec: JobSpec, place: Place) -> V1Job:
    """Return the Job that runs an attempt, once.

    What the software gets stands in a file that only we can read, and not here. Which pod runs it is said to its first
    process, as Kubernetes may start two in rare cases, of which the start mark admits one.
    """
    labels = {**place.settings.labels, OURS: place.owner, JOB: cluster_name(spec.name)}
    template = V1PodTemplateSpec(
        metadata=V1ObjectMeta(labels=labels, annotations=dict(_NEVER_EVICTED)), spec=_pod(spec, place)
    )
    return V1Job(
        api_version="batch/v1",
        kind="Job",
        metadata=V1ObjectMeta(
            name=cluster_name(spec.name), labels=labels, annotations={DIRECTORY: str(spec.directory)}
        ),
        spec=V1JobSpec(
            template=template,
            parallelism=1,
            completions=1,
            backoff_limit=0,  # a pod that is taken away counts as a failure, so that none replaces it
            ttl_seconds_after_finished=place.settings.keep_seconds,
        ),
    )


def _pod(spec: JobSpec, place: Place) -> V1PodSpec:
    """Everything of the pod; its deadline is its own, as that of a Job counts while it waits for a node, too."""
    settings = place.settings
    start = timedelta(seconds=settings.start_patience_seconds)
    return V1PodSpec(
        containers=[_container(spec, place)],
        volumes=[_volume(number, one) for number, one in enumerate(_mounts(place))],
        restart_policy="Never",
        active_deadline_seconds=math.ceil((start + spec.time_limit + place.grace + _MARGIN).total_seconds()),
        termination_grace_period_seconds=math.ceil(place.grace.total_seconds()) + _TO_LEAVE_THE_MARK_S,
        security_context=V1PodSecurityContext(
            run_as_user=settings.run_as_user,
            run_as_group=settings.run_as_group,
            fs_group=settings.fs_group,
            fs_group_change_policy="OnRootMismatch",  # else every pod walks through all files of the claim
        ),
        service_account_name=settings.service_account,
        automount_service_account_token=False,
        enable_service_links=False,
        image_pull_secrets=[V1LocalObjectReference(name=name) for name in settings.image_pull_secrets] or None,
        node_selector=dict(settings.node_selector) or None,
        tolerations=[V1Toleration(**one.model_dump(exclude_none=True)) for one in settings.tolerations] or None,
        runtime_class_name=settings.runtime_class,
        priority_class_name=settings.priority_class,
    )


def _container(spec: JobSpec, place: Place) -> V1Container:
    own_name = V1EnvVarSource(field_ref=V1ObjectFieldSelector(field_path="metadata.name"))
    asked = dict(_resources(spec, gpu=place.settings.gpu_resource))
    return V1Container(
        name=CONTAINER,
        image=place.settings.image,
        image_pull_policy=place.settings.image_pull_policy,
        command=["/bin/sh", _literally(str(spec.directory / RUN_SCRIPT)), f"$({_POD_NAME})"],
        env=[V1EnvVar(name=_POD_NAME, value_from=own_name)],
        resources=V1ResourceRequirements(requests=asked, limits=dict(asked)),
        volume_mounts=[_volume_mount(number, one) for number, one in enumerate(_mounts(place))],
    )


def _resources(spec: JobSpec, *, gpu: str) -> Mapping[str, str]:
    asked = {"cpu": str(spec.cpus), "memory": str(math.ceil(spec.memory_gb * GIGABYTE))}
    return asked | ({gpu: str(spec.gpus)} if spec.gpus else {})


def _mounts(place: Place) -> Sequence[Mount]:
    settings = place.settings
    of_root = Volume(claim=settings.claim, sub_path=settings.sub_path, host_path=settings.host_path)
    return [Mount(path=place.root, read_only=False, **of_root.model_dump()), *settings.mounts]


def _volume(number: int, one: Volume) -> V1Volume:
    name = f"files-{number}"
    if one.claim:
        return V1Volume(name=name, persistent_volume_claim=V1PersistentVolumeClaimVolumeSource(claim_name=one.claim))
    return V1Volume(name=name, host_path=V1HostPathVolumeSource(path=str(one.host_path), type="Directory"))


def _volume_mount(number: int, one: Mount) -> V1VolumeMount:
    name, path = f"files-{number}", str(one.path)
    return V1VolumeMount(name=name, mount_path=path, sub_path=one.sub_path or None, read_only=one.read_only or None)


def _literally(text: str) -> str:
    """Text in which Kubernetes finds no variable of the container."""
    return text.replace("$", "$$")
