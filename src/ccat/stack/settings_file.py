"""The settings that tell our own processes where the embedded servers are."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ccat.stack.redis import RedisAddress


@dataclass(frozen=True, kw_only=True)
class StackSettings:
    """What only the stack knows."""

    database_url: str
    redis: RedisAddress
    pipeline_base_dir: Path
    sif_cache_dir: Path
    processing_location_ids: Sequence[int] = ()
    """Unknown, and not written, as long as the database is not prepared."""


def as_toml(settings: StackSettings) -> str:
    """The text of `ccat.toml`."""
    redis: dict[str, str | int] = {
        "redis_host": settings.redis.host,
        "redis_port": settings.redis.port,
        "redis_password": settings.redis.password,
    }
    directories = {"pipeline_base_dir": str(settings.pipeline_base_dir), "sif_cache_dir": str(settings.sif_cache_dir)}
    workflow_manager = {**redis, **directories}
    if settings.processing_location_ids:
        workflow_manager["processing_location_id"] = ",".join(map(str, settings.processing_location_ids))
    sections: dict[str, dict[str, str | int]] = {
        "ops_db": {"url": settings.database_url},
        "workflow_manager": workflow_manager,
        "data_transfer": redis,
    }
    return "\n".join(_section(name, values) for name, values in sections.items())


def _section(name: str, values: Mapping[str, str | int]) -> str:
    # A JSON string is a TOML string too, as long as characters outside the basic plane stay themselves.
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join([f"[{name}]", *lines, ""])
