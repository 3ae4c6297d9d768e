from datetime import timedelta
from pathlib import Path
from typing import Any

from ccat_workflow_manager.hpc.kubernetes.asking import KubernetesApi
from ccat_workflow_manager.hpc.kubernetes.backend import KubernetesBackend
from ccat_workflow_manager.hpc.kubernetes.settings import KubernetesSettings
from tests.kubernetes_api.cluster import IMAGE, NAMESPACE, KubernetesCluster


def kubernetes_backend(
    cluster: KubernetesCluster, base: Path, *, grace: timedelta = timedelta(seconds=10), **settings: Any
) -> KubernetesBackend:
    """A backend on a cluster that has the files below `base` itself, as settings of a location say it."""
    told: dict[str, Any] = {"kubeconfig": cluster.kubeconfig, "image": IMAGE, "host_path": base, "poll_seconds": 0.5}
    told |= {"host_path": None} if "claim" in settings else {}
    found = KubernetesSettings.model_validate(told | settings)
    api = KubernetesApi.connect(found, namespace=NAMESPACE)
    return KubernetesBackend(base, root=base, settings=found, api=api, grace=grace)
