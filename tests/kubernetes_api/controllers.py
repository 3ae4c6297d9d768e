"""What Kubernetes' controllers do with Jobs: make pods, count them, conclude, clean up; and its scheduler."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from tests.kubernetes_api.state import (
    Object,
    State,
    condition,
    has_condition,
    moment,
    random_suffix,
    read_moment,
    set_condition,
)

TRACKED = "batch.kubernetes.io/job-tracking"
"""Finalizer that keeps a pod until its Job has counted it."""
FOREGROUND = "foregroundDeletion"
OVER = ("Complete", "Failed")


@dataclass
class JobController:
    """Makes one pod after the other for each Job, until one has succeeded or too many have failed."""

    state: State
    makes_pods: bool = True
    """False: a quota of the namespace, or a policy, forbids pods."""

    def sync(self) -> None:
        with self.state.lock:
            pods: dict[str, list[Object]] = {}
            for pod in self.state.all("pods"):
                for owner in pod["metadata"].get("ownerReferences", []):
                    pods.setdefault(owner["uid"], []).append(pod)
            for job in self.state.all("jobs"):
                self._sync(job, pods.get(job["metadata"]["uid"], []))

    def _sync(self, job: Object, pods: Sequence[Object]) -> None:
        if "deletionTimestamp" in job["metadata"]:
            self._collect(job, pods)
        elif has_condition(job, *OVER):
            self._expire(job)
        else:
            self._count(job, pods)

    def _collect(self, job: Object, pods: Sequence[Object]) -> None:
        """Delete the pods of a Job that is deleted, and the Job when they are gone."""
        for pod in pods:
            self._untrack(pod)
            delete_pod(self.state, pod["metadata"]["name"])
        if not pods:
            self.state.remove("jobs", job["metadata"]["name"])

    def _expire(self, job: Object) -> None:
        ttl = job["spec"].get("ttlSecondsAfterFinished")
        ended = next(one for one in job["status"]["conditions"] if one["type"] in OVER)
        if ttl is not None and datetime.now(UTC) >= read_moment(ended["lastTransitionTime"]) + timedelta(seconds=ttl):
            delete_job(self.state, job["metadata"]["name"], policy="Foreground")

    def _count(self, job: Object, pods: Sequence[Object]) -> None:
        before, status, spec = copy.deepcopy(job["status"]), job["status"], job["spec"]
        status.setdefault("startTime", moment())
        for pod in pods:
            if TRACKED in pod["metadata"].get("finalizers", []) and _outcome(pod):
                status[_outcome(pod)] = status.get(_outcome(pod), 0) + 1
                self._untrack(pod)
        living = [pod for pod in pods if pod["status"]["phase"] not in {"Succeeded", "Failed"}]
        active = [pod for pod in living if "deletionTimestamp" not in pod["metadata"]]
        self._judge(job, active)
        if has_condition(job, "FailureTarget") and not living:
            _follow(status, "FailureTarget", "Failed")
        if has_condition(job, "SuccessCriteriaMet") and not living:
            _follow(status, "SuccessCriteriaMet", "Complete")
            status["completionTime"] = moment()
        is_decided = has_condition(job, "FailureTarget", "SuccessCriteriaMet")
        if not is_decided and not active and not spec["suspend"] and self.makes_pods:
            self._make_pod(job)
            active.append({})
        status |= {"active": len(active), "terminating": len(living) - len([one for one in active if one])}
        status |= {"ready": len([one for one in living if one["status"]["phase"] == "Running"])}
        status["uncountedTerminatedPods"] = {}
        if status != before:
            with self.state.changed("jobs", job["metadata"]["name"]):
                pass

    def _judge(self, job: Object, active: Sequence[Object]) -> None:
        status, spec = job["status"], job["spec"]
        deadline = spec.get("activeDeadlineSeconds")
        started_at = read_moment(status["startTime"])
        if has_condition(job, "FailureTarget", "SuccessCriteriaMet"):
            return
        if status.get("succeeded", 0) >= spec["completions"]:
            told = condition("SuccessCriteriaMet", reason="CompletionsReached")
        elif status.get("failed", 0) > spec["backoffLimit"]:
            message = "Job has reached the specified backoff limit"
            told = condition("FailureTarget", reason="BackoffLimitExceeded", message=message)
        elif deadline is not None and datetime.now(UTC) > started_at + timedelta(seconds=deadline):
            message = "Job was active longer than specified deadline"
            told = condition("FailureTarget", reason="DeadlineExceeded", message=message)
        else:
            return
        set_condition(status, told)
        for pod in active:
            delete_pod(self.state, pod["metadata"]["name"])

    def _make_pod(self, job: Object) -> None:
        template, about = job["spec"]["template"], job["metadata"]
        reference = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": about["name"],
            "uid": about["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
        name = about["name"][:57] + "-" + random_suffix()
        metadata = {
            "name": name,
            "generateName": about["name"] + "-",
            "labels": template["metadata"].get("labels", {}),
            "annotations": template["metadata"].get("annotations", {}),
            "ownerReferences": [reference],
            "finalizers": [TRACKED],
        }
        status = {"phase": "Pending", "qosClass": "Guaranteed"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"], "status": status}
        self.state.add("pods", copy.deepcopy(pod))

    def _untrack(self, pod: Object) -> None:
        finalizers = pod["metadata"].get("finalizers", [])
        if TRACKED in finalizers:
            finalizers.remove(TRACKED)
            with self.state.changed("pods", pod["metadata"]["name"]):
                pass
            remove_if_over(self.state, pod)


@dataclass
class Scheduler:
    """Puts pods on the node of the tests, where they fit and it is not told otherwise."""

    state: State
    claims: Mapping[str, Path]
    blocked: str | None = None
    """Why nothing is scheduled, in the scheduler's words."""
    _told: dict[str, str] = field(default_factory=dict)

    def sync(self) -> None:
        with self.state.lock:
            pods = self.state.all("pods")
            taken = [one for one in pods if one["spec"].get("nodeName") and not _is_over(one)]
            for pod in pods:
                if "nodeName" in pod["spec"] or "deletionTimestamp" in pod["metadata"]:
                    continue
                why = self.blocked or self._why_not(pod["spec"], taken)
                if why is None:
                    self._bind(pod)
                    taken.append(pod)
                elif self._told.get(pod["metadata"]["uid"]) != why:
                    self._told[pod["metadata"]["uid"]] = why
                    told = condition("PodScheduled", status="False", reason="Unschedulable", message=why)
                    with self.state.changed("pods", pod["metadata"]["name"]) as found:
                        set_condition(found["status"], told)

    def _bind(self, pod: Object) -> None:
        with self.state.changed("pods", pod["metadata"]["name"]) as found:
            found["spec"]["nodeName"] = self.state.all("nodes")[0]["metadata"]["name"]
            set_condition(found["status"], condition("PodScheduled"))

    def _why_not(self, spec: Object, taken: Sequence[Object]) -> str | None:
        node = self.state.all("nodes")[0]
        for volume in spec.get("volumes", []):
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim is not None and claim not in self.claims:
                return f'0/1 nodes are available: persistentvolumeclaim "{claim}" not found.'
        labels = node["metadata"]["labels"]
        if any(labels.get(name) != value for name, value in spec.get("nodeSelector", {}).items()):
            return "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
        for taint in node["spec"].get("taints", []):
            if not any(_tolerates(one, taint) for one in spec.get("tolerations", [])):
                return f"0/1 nodes are available: 1 node(s) had untolerated taint {{{taint['key']}}}."
        for resource, asked in _requests(spec).items():
            given = parse_quantity(node["status"]["allocatable"].get(resource, "0"))
            used = sum(_requests(one["spec"]).get(resource, 0) for one in taken)
            if asked > given - used:
                return f"0/1 nodes are available: 1 Insufficient {resource}. preemption: 0/1 nodes are available."
        return None


def delete_job(state: State, name: str, *, policy: str | None) -> Object | None:
    """Delete a Job, and its pods before or after; the Job, where it is not gone at once."""
    with state.lock:
        job = state.get("jobs", name)
        if policy == "Foreground":
            with state.changed("jobs", name) as found:
                found["metadata"].setdefault("deletionTimestamp", moment())
                found["metadata"] |= {"deletionGracePeriodSeconds": 0, "finalizers": [FOREGROUND]}
                return copy.deepcopy(found)
        state.remove("jobs", name)
        if policy != "Orphan":
            for pod in state.all("pods"):
                if any(one["uid"] == job["metadata"]["uid"] for one in pod["metadata"].get("ownerReferences", [])):
                    pod["metadata"]["finalizers"] = []
                    delete_pod(state, pod["metadata"]["name"])
        return None


def delete_pod(state: State, name: str, *, grace: int | None = None, ago: timedelta = timedelta()) -> None:
    """Ask for the end of a pod; one that is on no node is gone as soon as nobody keeps it."""
    with state.lock:
        pod = next(one for one in state.all("pods") if one["metadata"]["name"] == name)
        if "deletionTimestamp" not in pod["metadata"]:
            seconds = pod["spec"]["terminationGracePeriodSeconds"] if grace is None else grace
            if not pod["spec"].get("nodeName") or _is_over(pod):
                seconds = 0
            ends_by = datetime.now(UTC) + timedelta(seconds=seconds) - ago
            with state.changed("pods", name) as found:
                found["metadata"] |= {"deletionTimestamp": moment(ends_by), "deletionGracePeriodSeconds": seconds}
        remove_if_over(state, pod)


def remove_if_over(state: State, pod: Object) -> None:
    about = pod["metadata"]
    on_node = pod["spec"].get("nodeName") and not _is_over(pod)
    if "deletionTimestamp" in about and not about.get("finalizers") and not on_node:
        state.remove("pods", about["name"])


def _outcome(pod: Object) -> str:
    """How a pod counts; one that is being deleted has failed, so that it is not waited for."""
    if pod["status"]["phase"] == "Succeeded":
        return "succeeded"
    return "failed" if pod["status"]["phase"] == "Failed" or "deletionTimestamp" in pod["metadata"] else ""


def _is_over(pod: Object) -> bool:
    return pod["status"]["phase"] in {"Succeeded", "Failed"}


def _follow(status: Object, before: str, after: str) -> None:
    """The condition that says the same once all pods have ended."""
    found = next(one for one in status["conditions"] if one["type"] == before)
    told = condition(after, reason=found.get("reason", ""), message=found.get("message", ""))
    set_condition(status, told)


def _requests(spec: Object) -> dict[str, Any]:
    asked = spec["containers"][0].get("resources", {})
    return {name: parse_quantity(size) for name, size in (asked.get("limits", {}) | asked.get("requests", {})).items()}


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("key") not in {None, taint["key"]} or toleration.get("effect") not in {None, taint["effect"]}:
        return False
    return toleration.get("operator") == "Exists" or toleration.get("value") == taint.get("value")
