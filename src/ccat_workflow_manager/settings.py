import shlex
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, PositiveFloat
from pydantic_settings import NoDecode, SettingsConfigDict

from ccat_service.servers import RedisSettings
from ccat_service.settings import ComponentSettings


def _split_at_commas(value: Any) -> Any:
    return [part for part in (part.strip() for part in value.split(",")) if part] if isinstance(value, str) else value


def _split_as_a_shell(value: Any) -> Any:
    return tuple(shlex.split(value)) if isinstance(value, str) else value


class WorkflowManagerSettings(RedisSettings, ComponentSettings):
    """Settings of the workflow-manager's processes."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(env_prefix="CCAT_WORKFLOW_MANAGER_")

    hpc_backend: Literal["local", "slurm", "kubernetes"] = "local"
    """Kind of cluster where a location names none; each processing location of the database names its own."""
    pipeline_base_dir: Path = Path("/data/pipelines")
    """Root of the run directories of the location that it is inside of, unless that location names its own."""
    processing_location_id: Annotated[tuple[int, ...], NoDecode, BeforeValidator(_split_at_commas)] = Field(
        min_length=1, description="ids of the DataLocations that this instance serves, separated by commas"
    )
    k8s_namespace: str = "ccat-workflows"
    slurm_partition: str = ""
    alert_command: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_as_a_shell)] = ()
    """Argument list of a command that tells people: it gets JSON on its standard input. No shell reads it."""
    alert_webhook: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = None
    """Where the same JSON is posted."""
    alert_backlog_hours: PositiveFloat = 12
    """What has waited for so long is told."""
    sif_cache_dir: Path = Path("/data/sif-cache")
    """Where locations keep their container images that name no place of their own."""
    sif_cache_gb: PositiveFloat = 100
    """Beyond this, images go that were wanted least recently."""
