"""What the kubelet of the node does: run the containers of pods, and write down what becomes of them."""

import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from kubernetes.utils.quantity import parse_quantity

from tests.kubernetes_api.containers import Container, expand, processes
from tests.kubernetes_api.controllers import remove_if_over
from tests.kubernetes_api.state import Object, State, condition, moment, read_moment, set_condition

_IMAGE = re.compile(r"[a-z0-9]+([._/:-][a-zA-Z0-9]+)*(:[\w.-]+)?(@sha256:[0-9a-f]{64})?")
_BETWEEN_SAMPLES_S = 0.1
_SERVICE = {
    "KUBERNETES_SERVICE_HOST": "10.96.0.1",
    "KUBERNETES_SERVICE_PORT": "443",
    "KUBERNETES_SERVICE_PORT_HTTPS": "443",
    "KUBERNETES_PORT": "tcp://10.96.0.1:443",
    "KUBERNETES_PORT_443_TCP": "tcp://10.96.0.1:443",
    "KUBERNETES_PORT_443_TCP_ADDR": "10.96.0.1",
    "KUBERNETES_PORT_443_TCP_PORT": "443",
    "KUBERNETES_PORT_443_TCP_PROTO": "tcp",
}
"""What every container gets, whatever its pod asks for."""
_OF_IMAGE = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}


@dataclass
class Kubelet:
    """The agent of the one node."""

    state: State
    logs: Path
    claims: Mapping[str, Path]
    images: set[str]
    """Images that can be pulled."""
    secrets: set[str] = field(default_factory=set)
    is_away: bool = False
    """Whether its node does not answer any more; what it runs goes on."""
    containers: dict[str, Container] = field(default_factory=dict)
    _evicted: dict[str, str] = field(default_factory=dict)
    _overdue: set[str] = field(default_factory=set)
    _sampled_at: float = 0

    def sync(self) -> None:
        if not self.is_away and self.containers and time.monotonic() - self._sampled_at > _BETWEEN_SAMPLES_S:
            known = processes()
            for one in self.containers.values():
                one.hold_to_memory(known)
            self._sampled_at = time.monotonic()
        with self.state.lock:
            pods = [] if self.is_away else self.state.all("pods")  # asked here: who takes it away holds the lock next
            for pod in [pod for pod in pods if pod["spec"].get("nodeName")]:
                if pod["status"]["phase"] not in {"Succeeded", "Failed"}:
                    self._sync(pod)

    def evict(self, name: str, message: str) -> None:
        """End a pod for want of something of the node."""
        with self.state.changed("pods", name) as pod:
            self._evicted[pod["metadata"]["uid"]] = message
            told = condition("DisruptionTarget", reason="TerminationByKubelet", message=message)
            set_condition(pod["status"], told)

    def log(self, uid: str) -> str | None:
        """What a pod wrote; None before its container started."""
        path = self.logs / f"{uid}.log"
        return path.read_text(errors="replace") if path.exists() else None

    def kill_all(self) -> None:
        for one in self.containers.values():
            one.kill()
        self.containers.clear()

    def _sync(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        container = self.containers.get(uid)
        if container is not None:
            self._watch(pod, container)
        elif "deletionTimestamp" in pod["metadata"] or uid in self._evicted or self._is_past_deadline(pod):
            self._end(pod, None, 137)
        else:
            self._start(pod)

    def _start(self, pod: Object) -> None:
        if "startTime" not in pod["status"]:
            with self.state.changed("pods", pod["metadata"]["name"]) as found:
                found["status"]["startTime"] = moment()
                for kind in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"):
                    reason = "" if kind == "Initialized" else "ContainersNotReady"
                    set_condition(found["status"], condition(kind, status="False" if reason else "True", reason=reason))
            self._write(pod, {"waiting": {"reason": "ContainerCreating"}})
        waits = self._why_waiting(pod["spec"])
        if waits is not None:
            self._write(pod, {"waiting": waits})
            return
        self._run(pod)

    def _why_waiting(self, spec: Object) -> Object | None:
        one = spec["containers"][0]
        image = one["image"]
        for volume in spec.get("volumes", []):
            host = volume.get("hostPath")
            if host is not None and host.get("type") == "Directory" and not Path(host["path"]).is_dir():
                return {"reason": "ContainerCreating"}  # an event of the pod alone says that it is no directory
        if not _IMAGE.fullmatch(image):
            message = (
                f'Failed to apply default image tag "{image}": couldn\'t parse image name: invalid reference format'
            )
            return {"reason": "InvalidImageName", "message": message}
        if image not in self.images:
            message = f'Back-off pulling image "{image}": ErrImagePull: {image}: not found'
            never = {
                "reason": "ErrImageNeverPull",
                "message": f'Container image "{image}" is not present with pull policy of Never',
            }
            return never if one["imagePullPolicy"] == "Never" else {"reason": "ImagePullBackOff", "message": message}
        return None

    def _run(self, pod: Object) -> None:
        one, uid = pod["spec"]["containers"][0], pod["metadata"]["uid"]
        command = [*one.get("command", []), *one.get("args", [])]
        limit = one["resources"].get("limits", {}).get("memory")
        memory = int(parse_quantity(limit)) if limit else None
        environment = self._environment(pod)
        try:
            absent = [mount["mountPath"] for mount in one.get("volumeMounts", []) if not self._is_there(pod, mount)]
            if absent:
                raise FileNotFoundError(f"{absent[0]}: this cluster has files at their own paths only")
            container = Container.start(command, environment, log=self.logs / f"{uid}.log", memory=memory)
        except OSError as error:
            message = f"failed to create containerd task: exec: {expand(command[0], environment)}: {error}"
            self._fail_to_start(pod, message)
            return
        self.containers[uid] = container
        self._write(pod, {"running": {"startedAt": moment(container.started_at)}}, phase="Running")

    def _environment(self, pod: Object) -> Mapping[str, str]:
        values = {"metadata.name": pod["metadata"]["name"], "spec.nodeName": pod["spec"]["nodeName"]}
        environment = {**_OF_IMAGE, "HOSTNAME": pod["metadata"]["name"], **_SERVICE}
        for one in pod["spec"]["containers"][0].get("env", []):
            source = one.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            environment[one["name"]] = values[source] if source else expand(one.get("value", ""), environment)
        return environment

    def _is_there(self, pod: Object, mount: Object) -> bool:
        """Whether files are found where they are mounted: there are no file systems of one's own here."""
        volume = next(one for one in pod["spec"]["volumes"] if one["name"] == mount["name"])
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        source: Path = self.claims[claim] if claim is not None else Path(volume["hostPath"]["path"])
        found: Path = (source / mount.get("subPath", "")).resolve()
        return found == Path(mount["mountPath"]).resolve()

    def _watch(self, pod: Object, container: Container) -> None:
        uid, about = pod["metadata"]["uid"], pod["metadata"]
        grace = float(pod["spec"]["terminationGracePeriodSeconds"])
        if "deletionTimestamp" in about:
            container.ask_to_end(grace=float(about["deletionGracePeriodSeconds"]))
        elif uid in self._evicted or self._is_past_deadline(pod):
            container.ask_to_end(grace=grace)
        code = container.code()
        if code is not None:
            self._end(pod, container, 137 if container.ran_out_of_memory else code)

    def _is_past_deadline(self, pod: Object) -> bool:
        seconds, started_at = pod["spec"].get("activeDeadlineSeconds"), pod["status"].get("startTime")
        if seconds is None or started_at is None:
            return False
        if datetime.now(UTC) > read_moment(started_at) + timedelta(seconds=seconds):
            self._overdue.add(pod["metadata"]["uid"])
        return pod["metadata"]["uid"] in self._overdue

    def _end(self, pod: Object, container: Container | None, code: int) -> None:
        uid = pod["metadata"]["uid"]
        self.containers.pop(uid, None)
        more = {}
        if uid in self._evicted:
            more = {"reason": "Evicted", "message": self._evicted[uid]}
        elif uid in self._overdue:
            message = "Pod was active on the node longer than the specified deadline"
            more = {"reason": "DeadlineExceeded", "message": message}
        phase = "Succeeded" if code == 0 and not more else "Failed"
        if container is None:
            with self.state.changed("pods", pod["metadata"]["name"]) as found:
                found["status"] |= {"phase": phase, **more}
        else:
            reason = "OOMKilled" if container.ran_out_of_memory else "Error" if code else "Completed"
            self._write(pod, {"terminated": _ended(container.started_at, code, reason)}, phase=phase, more=more)
        remove_if_over(self.state, pod)

    def _fail_to_start(self, pod: Object, message: str) -> None:
        ended = {**_ended(datetime.fromtimestamp(0, UTC), 128, "StartError"), "message": message}
        self._write(pod, {"terminated": ended}, phase="Failed")

    def _write(
        self, pod: Object, state: Object, *, phase: str | None = None, more: Mapping[str, str] | None = None
    ) -> None:
        """Put what became of the container into the status of its pod."""
        kind, one = next(iter(state)), pod["spec"]["containers"][0]
        status = {
            "name": one["name"],
            "state": state,
            "lastState": {},
            "ready": kind == "running",
            "started": kind == "running",
            "restartCount": 0,
            "image": one["image"],
            "imageID": "" if kind == "waiting" else f"{one['image']}@sha256:{'0' * 64}",
        }
        if kind != "waiting":
            status["containerID"] = f"containerd://{uuid.uuid5(uuid.NAMESPACE_URL, pod['metadata']['uid']).hex}"
        if pod["status"].get("containerStatuses") == [status] and phase is None:
            return
        with self.state.changed("pods", pod["metadata"]["name"]) as found:
            found["status"] |= {"containerStatuses": [status], "hostIP": "192.0.2.1", **(more or {})}
            found["status"] |= {"phase": phase} if phase else {}
            for kind_of in ("Ready", "ContainersReady"):
                reason = "" if kind == "running" else "PodCompleted" if kind == "terminated" else "ContainersNotReady"
                set_condition(found["status"], condition(kind_of, status="False" if reason else "True", reason=reason))


def _ended(started_at: datetime, code: int, reason: str) -> Object:
    return {"exitCode": code, "reason": reason, "startedAt": moment(started_at), "finishedAt": moment()}
