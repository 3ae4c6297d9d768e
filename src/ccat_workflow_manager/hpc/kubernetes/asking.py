"""The API of a Kubernetes cluster, as far as jobs need it."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar

import urllib3
import yaml
from kubernetes import config
from kubernetes.client import ApiClient, ApiException, BatchV1Api, Configuration, CoreV1Api, V1Job

from ccat_service.settings import SettingsError
from ccat_workflow_manager.hpc.base import BackendUnavailable
from ccat_workflow_manager.hpc.kubernetes.errors import Answer, Declined
from ccat_workflow_manager.hpc.kubernetes.naming import JOB, OURS
from ccat_workflow_manager.hpc.kubernetes.seeing import SeenJob, SeenNode, SeenPod, seen_job, seen_node, seen_pod
from ccat_workflow_manager.hpc.kubernetes.settings import KubernetesSettings

S = TypeVar("S")

PAGE: Final = 500
"""Objects of one answer, so that none is too large; the next goes on where it ended."""
_BEGINNINGS: Final = 3
"""How often a list is begun whose rest cannot be had any more."""


class KubernetesApi:
    """One namespace of a cluster; no answer is waited for longer than `patience`, and nothing is asked twice.

    Every method raises BackendUnavailable where it gets no answer, and Declined where it gets one that is none.
    """

    def __init__(self, configuration: Configuration, *, namespace: str, patience: timedelta) -> None:
        configuration.retries = False  # the next round asks again
        api = ApiClient(configuration)
        self._batch = BatchV1Api(api)
        self._core = CoreV1Api(api)
        self._patience = patience.total_seconds()
        self._host = configuration.host
        self._namespace = namespace

    @classmethod
    def connect(cls, settings: KubernetesSettings, *, namespace: str) -> "KubernetesApi":
        """Find the API that the settings name, else that of the cluster that we are in; nothing is asked yet.

        The namespace counts where the settings name none. Raises SettingsError.
        """
        configuration, file = Configuration(), settings.kubeconfig
        try:
            if file is not None:
                config.load_kube_config(str(file), settings.context, configuration, persist_config=False)
            else:
                config.load_incluster_config(configuration)
        except (config.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, AttributeError) as error:
            named = f"{file} cannot be used" if file else "none is given, and we are in no pod with an account"
            remedy = "name a file that says where the API is and who we are"
            raise SettingsError(
                "backend_settings.kubeconfig", f"{named}: {' '.join(str(error).split())}; {remedy}"
            ) from error
        patience = timedelta(seconds=settings.answer_seconds)
        return cls(configuration, namespace=settings.namespace or namespace, patience=patience)

    def create(self, job: V1Job) -> None:
        """Make a Job."""
        self._ask("create a Job", self._batch.create_namespaced_job, self._namespace, job)

    def job(self, name: str) -> SeenJob | None:
        """Look at one Job; None where there is none."""
        what = "show a Job"
        try:
            found = self._document(what, self._batch.read_namespaced_job, name, self._namespace)
        except Declined as error:
            if error.answer.is_missing:
                return None
            raise
        return self._seen(what, [found], seen_job)[0]

    def jobs(self, owner: str) -> Mapping[str, SeenJob]:
        """Look at all Jobs of an owner that the cluster has not forgotten, by name."""
        what, ours = "list our Jobs", f"{OURS}={owner}"
        values = self._all(what, self._batch.list_namespaced_job, self._namespace, label_selector=ours)
        return {one.name: one for one in self._seen(what, values, seen_job)}

    def pods(self, owner: str) -> Mapping[str, Sequence[SeenPod]]:
        """Look at the pods of all Jobs of an owner, by the names of these."""
        return self._pods(f"{OURS}={owner}")

    def pods_of(self, name: str) -> Sequence[SeenPod]:
        """Look at the pods of one Job."""
        return self._pods(f"{JOB}={name}").get(name, ())

    def delete(self, name: str) -> None:
        """Ask for the end of a Job and its pods; it is there until all these have ended. That it is gone is well."""
        try:
            self._ask(
                "delete a Job",
                self._batch.delete_namespaced_job,
                *(name, self._namespace),
                propagation_policy="Foreground",
            )
        except Declined as error:
            if not error.answer.is_missing:
                raise

    def log(self, pod: str, *, lines: int) -> str:
        """Return the last lines that a pod wrote; nothing where there are none to be had."""
        read = self._core.read_namespaced_pod_log
        try:
            return self._ask("show a log", read, pod, self._namespace, tail_lines=lines).decode(errors="replace")
        except Declined as error:
            if error.answer.is_no_log_yet:
                return ""
            raise

    def nodes(self, labels: Mapping[str, str]) -> Sequence[SeenNode] | None:
        """Look at all nodes with these labels; None where our account may not."""
        what, which = "list nodes", ",".join(f"{name}={value}" for name, value in labels.items())
        try:
            values = self._all(what, self._core.list_node, label_selector=which or None)
        except Declined as error:
            if error.answer.is_forbidden:
                return None
            raise
        return self._seen(what, values, seen_node)

    def _pods(self, labels: str) -> Mapping[str, Sequence[SeenPod]]:
        what, found = "list our pods", dict[str, list[SeenPod]]()
        values = self._all(what, self._core.list_namespaced_pod, self._namespace, label_selector=labels)
        for pod in self._seen(what, values, seen_pod):
            found.setdefault(pod.job, []).append(pod)
        return found

    def _seen(self, what: str, values: Iterable[Mapping[str, Any]], see: Callable[[Mapping[str, Any]], S]) -> list[S]:
        try:
            return [see(value) for value in values]
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # also of a model of the client
            told = " ".join(str(error).split())
            raise self._unavailable(what, f"its answer is none that this version understands: {told}") from error

    def _all(self, what: str, call: Callable[..., Any], *where: str, **how: Any) -> Sequence[Mapping[str, Any]]:
        """All objects of a list that is given in pages, as of one moment."""
        for _ in range(_BEGINNINGS):
            try:
                return list(self._pages(what, call, *where, **how))
            except Declined as error:
                if not error.answer.has_expired:
                    raise
        raise BackendUnavailable("kubernetes", f"its API forgets a list while it is read, when asked to {what}")

    def _pages(self, what: str, call: Callable[..., Any], *where: str, **how: Any) -> Iterator[Mapping[str, Any]]:
        rest: str | None = None
        while rest != "":
            page = self._document(what, call, *where, limit=PAGE, _continue=rest, **how)
            yield from page.get("items") or ()
            rest = (page.get("metadata") or {}).get("continue") or ""

    def _document(self, what: str, call: Callable[..., Any], *arguments: Any, **how: Any) -> Mapping[str, Any]:
        answer = self._ask(what, call, *arguments, **how)
        try:
            found: Mapping[str, Any] = json.loads(answer)
        except ValueError:
            raise self._unavailable(what, "its answer is no JSON") from None
        return found

    def _ask(self, what: str, call: Callable[..., Any], *arguments: Any, **how: Any) -> bytes:
        """Ask for something, and return the answer as it comes."""
        try:
            answer = call(*arguments, **how, _preload_content=False, _request_timeout=self._patience)
            found: bytes = answer.data  # all of it is read, so that its connection serves the next question
        except ApiException as error:
            if not error.status:  # the certificate of the server
                raise self._unavailable(what, str(error.reason)) from error
            raise Declined(what, Answer.of(error.status, error.body or str(error.reason or ""))) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unavailable(what, str(error)) from error
        return found

    def _unavailable(self, what: str, problem: str) -> BackendUnavailable:
        told = f"asked to {what}, its API at {self._host} gives no answer that can be used: {problem}"
        return BackendUnavailable("kubernetes", told)
