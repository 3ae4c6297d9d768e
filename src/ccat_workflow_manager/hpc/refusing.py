"""What no backend runs, told before it is handed in."""

import os
import re
from datetime import timedelta
from functools import partial
from typing import Final

from ccat_workflow_manager.hpc.base import JobRefused, JobSpec

_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LONGEST_TEXT: Final = 128 * 1024
_ELSEWHERE: Final = "or run it at another location"


def refuse_malformed(spec: JobSpec) -> None:
    """Raise JobRefused for a job that can run nowhere."""
    refused = partial(JobRefused, spec.name)
    if not _SAFE_NAME.fullmatch(spec.name):
        raise refused(problem="its name is not a plain file name", remedy="use letters, digits, dots and dashes")
    if spec.time_limit <= timedelta():
        raise refused(problem="its time limit is not positive", remedy="give the step a time_hours above 0")
    if spec.gpus < 0 or spec.nodes < 1 or spec.ntasks < 1:
        problem = f"it asks for {spec.gpus} GPUs on {spec.nodes} nodes for {spec.ntasks} tasks"
        raise refused(problem=problem, remedy="give the step at least one task on one node, and no less than 0 GPUs")
    if not spec.memory_gb > 0 or spec.cpu < 1:
        problem = f"it asks for {spec.cpu} CPUs and {spec.memory_gb:g} GB of memory"
        raise refused(problem=problem, remedy="give the step at least one CPU and a memory_gb above 0")
    texts = [*spec.command, *(f"{name}={value}" for name, value in spec.environment.items())]
    if not spec.command or "\0" in "".join(texts):
        raise refused(problem="its command is empty or has a NUL in it", remedy="mend the software version's command")
    if any(len(os.fsencode(text)) >= _LONGEST_TEXT for text in texts):
        problem = (
            f"an argument or a variable of it is longer than {_LONGEST_TEXT // 1024} KB, the most that Linux takes"
        )
        raise refused(problem=problem, remedy="give the software a file with it")


def refuse_too_large(spec: JobSpec, *, cpus: int, memory_gb: float) -> None:
    """Raise JobRefused for a job that asks for more than a host has."""
    if spec.gpus or spec.nodes > 1:
        problem = f"it asks for {spec.gpus} GPUs and {spec.nodes} nodes, and only a cluster allots these"
        raise JobRefused(spec.name, problem=problem, remedy=f"lower the step's gpus and nodes, {_ELSEWHERE}")
    if spec.cpus > cpus:
        problem = f"it asks for {spec.cpus} CPUs and this host gives {cpus}"
        raise JobRefused(spec.name, problem=problem, remedy=f"lower the step's cpu, {_ELSEWHERE}")
    if spec.memory_gb > memory_gb:
        problem = f"it asks for {spec.memory_gb:g} GB of memory and this host gives {memory_gb:g} GB"
        raise JobRefused(spec.name, problem=problem, remedy=f"lower the step's memory_gb, {_ELSEWHERE}")
