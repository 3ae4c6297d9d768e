"""A Kubernetes cluster of one node, small and quick, that a test may set against a backend.

It is made of the API's published schema, by the official client's models, and of what the documentation says of Jobs,
pods and the kubelet: an API over HTTP, the controllers of Jobs, a scheduler, and a kubelet that runs real processes.
What it has not: images, file systems of one's own for pods, watches, more than one namespace, TLS.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import yaml

from tests.kubernetes_api.controllers import JobController, Scheduler, delete_pod
from tests.kubernetes_api.kubelet import Kubelet
from tests.kubernetes_api.server import Api, Asked, Fault, Server
from tests.kubernetes_api.state import Object, State, condition, set_condition
from tests.kubernetes_api.statuses import Refusal

NAMESPACE = "ccat-workflows"
NODE = "node-1"
IMAGE = "registry.example.org/ccat/runner:1"
_TOKEN = "a-token"
_BETWEEN_S = 0.01


@dataclass
class KubernetesCluster:
    """The cluster; whatever a test changes holds from the next round of its controllers."""

    directory: Path
    state: State
    api: Api
    server: Server
    jobs: JobController
    scheduler: Scheduler
    kubelet: Kubelet
    is_paused: bool = False
    """Whether all but the API stands still."""

    @property
    def kubeconfig(self) -> Path:
        """A file that says where the API is, and who asks."""
        path = self.directory / "kubeconfig"
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{self.server.port}"}}],
            "users": [{"name": "worker", "user": {"token": _TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "worker"}}],
            "current-context": "test",
        }
        path.write_text(yaml.safe_dump(content))
        return path

    def fail(self, begins: str, does: Callable[[], Refusal] | float | None, *, times: int = 1) -> None:
        """Have requests fail that begin like this, such as `POST /apis/batch`."""
        self.api.faults.append(Fault(begins, does, times))

    def requests(self, begins: str = "") -> list[Asked]:
        """What was asked so far."""
        return [one for one in list(self.api.asked) if str(one).startswith(begins)]

    def pods(self) -> list[Object]:
        """All pods as they are now."""
        with self.state.lock:
            return [self.state.get("pods", pod["metadata"]["name"]) for pod in self.state.all("pods")]

    def names(self, resource: str) -> list[str]:
        """The names of all objects of a kind."""
        with self.state.lock:
            return [str(one["metadata"]["name"]) for one in self.state.all(resource)]

    def evict(self, pod: str) -> None:
        """Have the kubelet end a pod, as its node is short of memory."""
        self.kubelet.evict(pod, "The node was low on resource: memory.")

    def preempt(self, pod: str) -> None:
        """Have the scheduler take a pod away for another one that goes first."""
        message = "default-scheduler: preempting to accommodate a higher priority pod"
        self._disrupt(pod, "PreemptionByScheduler", message)
        delete_pod(self.state, pod)

    def lose_node(self, *, ago: timedelta) -> None:
        """Take the node away, so long ago: its pods are deleted, and nobody confirms it."""
        self.kubelet.is_away = True
        with self.state.changed("nodes", NODE) as node:
            told = condition("Ready", status="Unknown", reason="NodeStatusUnknown")
            set_condition(node["status"], told)
        for pod in self.names("pods"):
            message = "Taint manager: deleting due to NoExecute taint"
            self._disrupt(pod, "DeletionByTaintManager", message)
            delete_pod(self.state, pod, ago=ago)

    def tick(self) -> None:
        """One round of everything but the API."""
        if not self.is_paused:
            self.jobs.sync()
            self.scheduler.sync()
            self.kubelet.sync()

    def _disrupt(self, name: str, reason: str, message: str) -> None:
        with self.state.changed("pods", name) as pod:
            set_condition(pod["status"], condition("DisruptionTarget", reason=reason, message=message))


@contextmanager
def kubernetes_cluster(
    directory: Path, *, claims: Mapping[str, Path] | None = None, cpus: int = 2
) -> Iterator[KubernetesCluster]:
    """A running cluster whose node has so many CPUs and 16 GB; what it runs ends with it."""
    logs = directory / "pods"
    logs.mkdir(parents=True)
    state, known = State(NAMESPACE), claims or {}
    kubelet = Kubelet(state, logs, known, images={IMAGE})
    api = Api(state, kubelet, token=_TOKEN)
    cluster = KubernetesCluster(
        directory, state, api, Server(api), JobController(state), Scheduler(state, known), kubelet
    )
    state.add("nodes", _node(cpus))
    has_ended, failure = threading.Event(), list[BaseException]()

    def control() -> None:
        try:
            while not has_ended.wait(_BETWEEN_S):
                cluster.tick()
        except BaseException as error:
            failure.append(error)
            raise

    controllers = threading.Thread(target=control, daemon=True)
    cluster.server.start()
    controllers.start()
    try:
        yield cluster
    finally:
        has_ended.set()
        controllers.join()
        cluster.server.stop()
        kubelet.kill_all()
    assert not failure, failure


def _node(cpus: int) -> Object:
    given = {"cpu": f"{cpus * 1000}m", "memory": "15625000Ki", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}},
        "spec": {},
        "status": {
            "allocatable": given,
            "capacity": {**given, "cpu": str(cpus)},
            "conditions": [condition("Ready", reason="KubeletReady")],
        },
    }
