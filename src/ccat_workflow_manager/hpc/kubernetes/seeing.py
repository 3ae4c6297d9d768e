"""What one look at a cluster shows of a Job and of its pods.

Of long lists only this is made into objects, as all of a thousand Jobs takes a second.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from kubernetes.client import V1JobStatus, V1ObjectMeta, V1PodStatus
from kubernetes.utils.quantity import parse_quantity

from ccat_workflow_manager.hpc.kubernetes.naming import JOB, OURS


@dataclass(frozen=True, kw_only=True)
class SeenJob:
    """A Job at one moment."""

    name: str
    owner: str | None = None
    """What stands in the label that tells ours from others."""
    status: V1JobStatus
    is_suspended: bool = False
    is_ending: bool = False
    """Whether somebody asked for its end."""


@dataclass(frozen=True, kw_only=True)
class SeenPod:
    """A pod at one moment."""

    name: str
    job: str
    status: V1PodStatus
    node: str | None = None
    made_at: datetime | None = None
    ends_by: datetime | None = None
    """When it should have ended, as somebody asked for that."""


@dataclass(frozen=True, kw_only=True)
class SeenNode:
    """What a node gives to pods."""

    cpus: Decimal
    memory_bytes: Decimal
    is_open: bool
    """Whether pods may be put on it."""


def seen_job(value: Mapping[str, Any]) -> SeenJob:
    """Read a Job as the API gives it."""
    about, labels = _about(value)
    return SeenJob(
        name=about.name or "",
        owner=labels.get(OURS),
        status=V1JobStatus.from_dict(dict(value.get("status") or {})) or V1JobStatus(),
        is_suspended=(value.get("spec") or {}).get("suspend") is True,
        is_ending=about.deletion_timestamp is not None,
    )


def seen_pod(value: Mapping[str, Any]) -> SeenPod:
    """Read a pod as the API gives it."""
    about, labels = _about(value)
    return SeenPod(
        name=about.name or "",
        job=labels.get(JOB, ""),
        status=V1PodStatus.from_dict(dict(value.get("status") or {})) or V1PodStatus(),
        node=(value.get("spec") or {}).get("nodeName"),
        made_at=about.creation_timestamp,
        ends_by=about.deletion_timestamp,
    )


def seen_node(value: Mapping[str, Any]) -> SeenNode:
    """Read a node as the API gives it."""
    status = value.get("status") or {}
    given = status.get("allocatable") or {}
    ready = [
        one for one in status.get("conditions") or () if one.get("type") == "Ready" and one.get("status") == "True"
    ]
    return SeenNode(
        cpus=parse_quantity(given.get("cpu", "0")),
        memory_bytes=parse_quantity(given.get("memory", "0")),
        is_open=bool(ready) and (value.get("spec") or {}).get("unschedulable") is not True,
    )


def _about(value: Mapping[str, Any]) -> tuple[V1ObjectMeta, Mapping[str, str]]:
    said = {key: part for key, part in value["metadata"].items() if key != "managedFields"}
    about = V1ObjectMeta.from_dict(said) or V1ObjectMeta()
    return about, about.labels or {}
