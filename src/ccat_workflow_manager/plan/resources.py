"""What the next attempt of a run asks for: more of what the last one used up."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any, Final

from ccat_ops_db.states import Resource
from ccat_workflow_manager.hpc.base import JobObservation, JobSpec, Placement

GROWTH: Final = 1.5
_WORTH_IT: Final = 1.05
"""Times as much that is worth another attempt."""
DEFAULT_CAP: Final = 4.0
"""Times what a step asks for, up to which its attempts may ask, where it does not say."""


@dataclass(frozen=True)
class Asked:
    """What an attempt asks the cluster for, beside its CPUs."""

    memory_gb: float
    time_hours: float

    @property
    def time_limit(self) -> timedelta:
        """The time limit of its job."""
        return timedelta(hours=self.time_hours)


def allotted(job: JobSpec, resources: Mapping[str, Any]) -> JobSpec:
    """The job with the GPUs, nodes, tasks and place in a cluster that its step's `resources` ask for."""
    return replace(
        job,
        gpus=resources.get("gpus", 0),
        nodes=resources.get("nodes", 1),
        ntasks=resources.get("ntasks", 1),
        placement=Placement(**{one.name: resources.get(one.name) for one in fields(Placement)}),
    )


def exhausted(observation: JobObservation) -> Resource | None:
    """Of what a job needed more than it had, if that ended it."""
    if observation.out_of_memory:
        return Resource.MEMORY
    return Resource.TIME if observation.timed_out else None


def next_request(resources: Mapping[str, Any], last: Asked | None = None, exhausted: Resource | None = None) -> Asked:
    """What the next attempt asks for, given the step's `resources`, and what the last one asked for and used up.

    What was once too little is not asked for again. Nothing is asked for beyond the step's caps.
    """
    step, most = _step(resources), _most(resources)
    if last is None:
        return step
    grown = _grown(last, exhausted)
    return Asked(
        min(most.memory_gb, max(step.memory_gb, grown.memory_gb)),
        min(most.time_hours, max(step.time_hours, grown.time_hours)),
    )


def may_grow(resources: Mapping[str, Any], last: Asked, exhausted: Resource | None) -> bool:
    """Whether the next attempt would have noticeably more of what the last one used up."""
    asked = next_request(resources, last, exhausted)
    match exhausted:
        case Resource.MEMORY:
            return asked.memory_gb > last.memory_gb * _WORTH_IT
        case Resource.TIME:
            return asked.time_hours > last.time_hours * _WORTH_IT
        case None:
            return False


def _grown(last: Asked, exhausted: Resource | None) -> Asked:
    match exhausted:
        case Resource.MEMORY:
            return replace(last, memory_gb=last.memory_gb * GROWTH)
        case Resource.TIME:
            return replace(last, time_hours=last.time_hours * GROWTH)
        case None:
            return last


def _step(resources: Mapping[str, Any]) -> Asked:
    return Asked(resources["memory_gb"], resources["time_hours"])


def _most(resources: Mapping[str, Any]) -> Asked:
    step = _step(resources)
    return Asked(
        resources.get("max_memory_gb") or step.memory_gb * DEFAULT_CAP,
        resources.get("max_time_hours") or step.time_hours * DEFAULT_CAP,
    )
