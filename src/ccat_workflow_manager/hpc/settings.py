import shlex
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pydantic

from ccat_workflow_manager.hpc.base import Placement


def _split_as_a_shell(value: Any) -> Any:
    return tuple(shlex.split(value)) if isinstance(value, str) else value


class PlaceSettings(pydantic.BaseModel):
    """`backend_settings` of a location, as far as they are the same for every backend."""

    model_config: ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(extra="forbid", frozen=True)

    pipeline_base_dir: Path | None = None
    """Root of the run directories; a relative one is taken below the location's path."""

    @property
    def poll(self) -> timedelta:
        """Pause between two questions about the jobs there."""
        return timedelta(milliseconds=100)


class ClusterSettings(PlaceSettings):
    """`backend_settings` of a location whose jobs a cluster runs."""

    poll_seconds: float = pydantic.Field(default=3, ge=0.5, le=600)
    """Pause between two questions about the jobs there."""
    grace_seconds: float = pydantic.Field(default=30, ge=0, le=3600)
    """Between asking a job to end and ending it."""

    @property
    def poll(self) -> timedelta:
        """Pause between two questions about the jobs there."""
        return timedelta(seconds=self.poll_seconds)

    @property
    def grace(self) -> timedelta:
        """Between asking a job to end and ending it."""
        return timedelta(seconds=self.grace_seconds)


class ContainerSettings(PlaceSettings):
    """`backend_settings` of a location that runs software in images."""

    sif_cache_dir: Path | None = None
    """Where container images are kept that all its hosts see; a relative one is taken below the location's path."""
    apptainer: str = pydantic.Field(default="apptainer", min_length=1)
    """The program on the hosts of jobs, with its path where that is not /usr/local/bin, /usr/bin or /bin."""
    apptainer_options: Annotated[tuple[str, ...], pydantic.BeforeValidator(_split_as_a_shell)] = ()
    """What `apptainer exec` is told besides, such as `--userns`."""
    gpu_option: Literal["--nv", "--rocm"] = "--nv"
    """How GPUs get into a container."""


class LocalSettings(ContainerSettings):
    """`backend_settings` of a location whose jobs run on the host of its workers."""

    cpus: pydantic.PositiveInt | None = None
    """CPUs for jobs, all of the host where it is not given: locations that share a host divide them by this."""
    memory_gb: pydantic.PositiveFloat | None = None
    """Memory for all jobs together, all of the host where it is not given."""
    cgroup: Path | None = None
    """Control group, delegated to the account of the workers, whose children hold jobs to their memory."""


class SlurmSettings(ClusterSettings, ContainerSettings):
    """`backend_settings` of a location whose jobs a Slurm cluster runs."""

    cluster: str | None = None
    """Name of the cluster, where one installation of Slurm serves several."""
    partition: str | None = None
    """Where jobs go whose step names none; so it is with the three that follow."""
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    small_minutes: float = pydantic.Field(default=15, ge=0, le=1440)
    """Jobs whose time limit is no longer are handed in as arrays, if they are of one step and ask for the same."""
    array_size: int = pydantic.Field(default=100, ge=1, le=1000)
    """Most jobs of an array; 1: each is handed in by itself."""
    jobs_per_task: int = pydantic.Field(default=10, ge=1, le=1000)
    """How many of them one task of the array runs, one after the other."""
    submissions_per_minute: pydantic.PositiveInt = 120
    """Most jobs and arrays that are handed in, by all workers of the location together."""

    @property
    def placement(self) -> Placement:
        """Where jobs go whose step does not say."""
        return Placement(partition=self.partition, account=self.account, qos=self.qos, constraint=self.constraint)
