"""What is told of a Kubernetes cluster in the settings of a location."""

import json
import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import pydantic

from ccat_workflow_manager.hpc.settings import ClusterSettings


def _read_text(value: Any) -> Any:
    """Take JSON, as `ccat location set` knows text only."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("write it as JSON, in which names and texts stand in double quotes") from None


_SETTINGS: pydantic.ConfigDict = pydantic.ConfigDict(extra="forbid", frozen=True)
_LABEL: str = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
Label = Annotated[str, pydantic.Field(pattern=f"^{_LABEL}$")]
"""A name as Kubernetes takes it for namespaces."""
Name = Annotated[str, pydantic.Field(pattern=rf"^{_LABEL}(\.{_LABEL})*$", max_length=253)]
"""A name as Kubernetes takes it for most other things."""
Text = Annotated[str, pydantic.Field(min_length=1)]
_FROM_TEXT = pydantic.BeforeValidator(_read_text)
_Labels = Annotated[dict[str, str], _FROM_TEXT]


class Volume(pydantic.BaseModel):
    """Where files of the pods come from: a claim of the namespace, or a directory of every node."""

    model_config: ClassVar[pydantic.ConfigDict] = _SETTINGS

    claim: Name | None = None
    """A PersistentVolumeClaim of the namespace."""
    sub_path: str = ""
    """Directory in the claim that is meant, all of it where it is empty."""
    host_path: Path | None = None
    """Directory that all nodes have, such as a file system that is mounted on each."""

    @pydantic.model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.claim is None) == (self.host_path is None):
            raise ValueError("name either a `claim` or a `host_path`, and not both")
        if self.host_path is not None and (not self.host_path.is_absolute() or self.sub_path):
            raise ValueError("a `host_path` is absolute and has no `sub_path`: write the whole path")
        if self.sub_path.startswith("/") or ".." in Path(self.sub_path).parts:
            raise ValueError("a `sub_path` is relative and stays inside of its claim")
        return self


class Mount(Volume):
    """Files that jobs need beside those of their location, such as a cache of images."""

    path: Path
    """Where jobs find it."""
    read_only: bool = True


class Toleration(pydantic.BaseModel):
    """A taint of nodes that jobs take no notice of."""

    model_config: ClassVar[pydantic.ConfigDict] = _SETTINGS

    key: Text | None = None
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class KubernetesSettings(ClusterSettings, Volume):
    """`backend_settings` of a location whose jobs run on a Kubernetes cluster.

    Its `claim` or `host_path` has the location's root, which jobs see at the same path as we do.
    """

    kubeconfig: Path | None = None
    """File that says where the API is and who we are; without it, we are in a pod of the cluster ourselves."""
    context: Text | None = None
    """Which of the kubeconfig's contexts, its current one where it is not given."""
    namespace: Label | None = None
    """Where jobs are made; `K8S_NAMESPACE` where it is not given."""
    mounts: Annotated[tuple[Mount, ...], _FROM_TEXT] = ()
    image: Text
    """Image that jobs run in: it needs `/bin/sh`, coreutils, and what runs the software."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: Annotated[tuple[Name, ...], _FROM_TEXT] = ()
    service_account: Name | None = None
    """Account of the pods; they get no token of it."""
    run_as_user: pydantic.NonNegativeInt = pydantic.Field(default_factory=os.geteuid)
    """Whom files of jobs belong to: us, where it is not given. Nobody else but root can read what a job is given."""
    run_as_group: pydantic.NonNegativeInt = pydantic.Field(default_factory=os.getegid)
    fs_group: pydantic.NonNegativeInt = pydantic.Field(default_factory=os.getegid)
    """Group that a claim is given to, where its kind of storage can be."""
    gpu_resource: Annotated[str, pydantic.Field(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")] = "nvidia.com/gpu"
    """What a GPU is called on the nodes."""
    runtime_class: Name | None = None
    priority_class: Name | None = None
    node_selector: _Labels = pydantic.Field(default_factory=dict)
    """Labels that a node must have."""
    tolerations: Annotated[tuple[Toleration, ...], _FROM_TEXT] = ()
    labels: _Labels = pydantic.Field(default_factory=dict)
    """More labels of jobs and pods, as a queue or an accounting wants them."""
    keep_seconds: Annotated[int, pydantic.Field(ge=60)] = 3600
    """How long Kubernetes remembers a job that is over."""
    start_patience_seconds: pydantic.PositiveFloat = 600
    """After a node has taken a pod, until its job has failed whose container cannot start, as for want of its image."""
    answer_seconds: pydantic.PositiveFloat = 30
    """How long an answer of the API is waited for."""
