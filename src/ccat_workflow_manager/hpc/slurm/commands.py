"""Slurm's commands as argument lists, and the batch script: values in, values out."""

import math
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from string import Template
from typing import Final

from ccat_workflow_manager.hpc.base import GIGABYTE, JobSpec, Placement
from ccat_workflow_manager.hpc.cluster.files import RUN_SCRIPT

_TASK: Final = Path(__file__).with_name("task.sh")
_MEBIBYTE: Final = 2**20
_MARGIN: Final = timedelta(minutes=1)
"""Beyond the time limit and the grace, so that the job ends by itself and leaves its exit mark."""
SQUEUE_FIELDS: Final = ("%i", "%j", "%T", "%S", "%e", "%B", "%r")
SACCT_FIELDS: Final = (
    *("JobID", "JobName", "State", "ExitCode", "Start", "End", "NodeList", "TotalCPU", "MaxRSS", "Suspended"),
)
SEPARATOR: Final = "|"
_GIVEN_WITH_GPUS: Final = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK")
_GIVEN_WITH_TASKS: Final = (
    *("SLURM_JOB_ID", "SLURM_JOBID", "SLURM_CONF", "SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NNODES"),
    *("SLURM_JOB_NUM_NODES", "SLURM_JOB_NODELIST", "SLURM_NODELIST", "SLURM_TASKS_PER_NODE", "SLURM_CPUS_PER_TASK"),
    *("SLURM_JOB_CPUS_PER_NODE", "SLURM_MEM_PER_NODE", "SLURM_SUBMIT_DIR", "SLURMD_NODENAME"),
)


@dataclass(frozen=True)
class Cluster:
    """Which cluster is meant, and what is asked for where a job does not say."""

    name: str | None = None
    """Of several that one installation of Slurm serves."""
    placement: Placement = field(default_factory=Placement)

    def options(self) -> list[str]:
        """What names the cluster to any command."""
        return [f"--clusters={self.name}"] if self.name else []


def passed(spec: JobSpec) -> Sequence[str]:
    """Variables of Slurm that a job needs to use what it was allotted: its GPUs, and the hosts of its tasks."""
    gpus = _GIVEN_WITH_GPUS if spec.gpus else ()
    return [*gpus, *(_GIVEN_WITH_TASKS if spec.nodes > 1 or spec.ntasks > 1 else ())]


def sbatch(
    spec: JobSpec,
    *,
    cluster: Cluster,
    grace: timedelta,
    name: str,
    output: Path,
    tasks: int | None = None,
    jobs_per_task: int = 1,
) -> list[str]:
    """Return the command that hands in a job or, with `tasks`, as many of them as one array, with jobs like it."""
    minutes = math.ceil(((spec.time_limit + grace) * jobs_per_task + _MARGIN) / timedelta(minutes=1))
    asked = {
        "job-name": name,
        "array": f"0-{tasks - 1}" if tasks else None,
        "nodes": spec.nodes,
        "ntasks": spec.ntasks,
        "cpus-per-task": spec.cpu,
        "mem": f"{math.ceil(spec.memory_gb * GIGABYTE / _MEBIBYTE)}M",
        "gpus-per-node": spec.gpus or None,
        "time": minutes,
        **_placement(spec.placement, cluster.placement),
        "chdir": spec.directory.parent,
        "output": _literal(output),
        "error": _literal(output),
    }
    options = [f"--{option}={value}" for option, value in asked.items() if value is not None]
    return ["sbatch", "--parsable", "--no-requeue", "--export=ALL", *cluster.options(), *options]


def batch_script(directory: Path) -> str:
    """Return what Slurm runs of one job."""
    return f'#!/bin/sh\nexec /bin/sh {shlex.quote(str(directory / RUN_SCRIPT))} "$SLURM_JOB_ID"\n'


def array_script(directories: Path, *, jobs_per_task: int) -> str:
    """Return what each task of an array runs: so many of its jobs, whose directories are the lines of a file."""
    values = {"list": shlex.quote(str(directories)), "run": RUN_SCRIPT, "jobs": str(jobs_per_task)}
    return Template(_TASK.read_text()).substitute(values)


def squeue(*, user: str, cluster: Cluster) -> list[str]:
    """Return the question for all jobs of ours that Slurm has not forgotten, in hidden partitions too."""
    fields = SEPARATOR.join(SQUEUE_FIELDS)
    return [
        "squeue",
        "--all",
        "--noheader",
        "--array",
        "--states=all",
        f"--user={user}",
        f"--format={fields}",
        *cluster.options(),
    ]


def sacct(
    *, cluster: Cluster, job_ids: Collection[str] = (), names: Collection[str] = (), since: datetime | None = None
) -> list[str]:
    """Return the question for jobs that Slurm has accounted for; `since` is UTC, in which it is asked."""
    which = [f"--jobs={','.join(job_ids)}"] if job_ids else []
    named = [f"--name={','.join(names)}"] if names else []
    begin = [f"--starttime={since:%Y-%m-%dT%H:%M:%S}"] if since else []
    fields = (
        f"--format={','.join(f'{field}%255' if field in {'JobName', 'NodeList'} else field for field in SACCT_FIELDS)}"
    )
    return ["sacct", "--noheader", "--parsable2", *which, *named, *begin, fields, *cluster.options()]


def scancel(job_ids: Collection[str], *, cluster: Cluster, gently: bool) -> list[str]:
    """Return the command that ends jobs: gently, their first process alone is asked to."""
    how = ["--batch", "--signal=TERM"] if gently else []
    return ["scancel", *how, *cluster.options(), *job_ids]


def sinfo(*, cluster: Cluster) -> list[str]:
    """Return the question for CPUs: allocated, idle, other and all."""
    partition = cluster.placement.partition
    return [
        "sinfo",
        "--noheader",
        "--format=%C",
        *([f"--partition={partition}"] if partition else []),
        *cluster.options(),
    ]


def _literal(path: Path) -> str:
    """A path for what a job writes, in which Slurm would read `%j` as the job's number."""
    return str(path).replace("%", "%%")


def _placement(asked: Placement, default: Placement) -> Mapping[str, str | None]:
    names = ("partition", "account", "qos", "constraint")
    return {name: getattr(asked, name) or getattr(default, name) for name in names}
