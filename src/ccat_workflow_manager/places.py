"""What an instance knows of a processing location that it serves: where runs lie, and what its backend may use."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pydantic

from ccat_ops_db import models
from ccat_ops_db.naming import nearest
from ccat_ops_db.states import BackendName, LocationType
from ccat_service.settings import SettingsError


class LocalSettings(pydantic.BaseModel):
    """`backend_settings` of a location whose jobs run on the host of its workers."""

    model_config: ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(extra="forbid", frozen=True)

    pipeline_base_dir: Path | None = None
    """Root of the run directories; a relative one is taken below the location's path."""
    cpus: pydantic.PositiveInt | None = None
    """CPUs for jobs, all of the host where it is not given: locations that share a host divide them by this."""
    memory_gb: pydantic.PositiveFloat | None = None
    """Memory for all jobs together, all of the host where it is not given."""
    cgroup: Path | None = None
    """Control group, delegated to the account of the workers, whose children hold jobs to their memory."""


@dataclass(frozen=True)
class ServedLocation:
    """A processing location that an instance serves."""

    id: int
    name: str
    """`site/location`."""
    queue_name: str
    """`{site}_{location}`, as queues are called."""
    root: Path
    """Directory of the location."""
    base: Path
    """Root of the run directories, inside of it."""
    backend: LocalSettings


def serve(location: models.DataLocation, *, default_base: Path) -> ServedLocation:
    """What is known of a location; raises SettingsError, which names it, where it cannot be served.

    Run directories lie where the location says, else in `default_base` if that is inside of it, else in `pipelines`.
    """
    name = f"{location.site.short_name}/{location.name}"
    if location.location_type is not LocationType.PROCESSING:
        raise SettingsError(f"location {name}", f"its type is {location.location_type}: nothing is processed there")
    if location.backend is not BackendName.LOCAL:
        raise SettingsError(f"location {name}", f"its backend {location.backend} is not available yet")
    if not isinstance(location, models.DiskDataLocation):
        raise SettingsError(f"location {name}", "it is no disk; jobs need a file system")
    settings, root = _settings(name, location), Path(location.path)
    named = settings.pipeline_base_dir or (default_base if default_base.is_relative_to(root) else Path("pipelines"))
    base = root / named
    if not base.is_relative_to(root) or ".." in base.parts:
        problem = f"{named} is outside of {root}, the root of the location"
        raise SettingsError(f"location {name}, backend_settings.pipeline_base_dir", problem)
    queue_name = f"{location.site.short_name}_{location.name}"
    return ServedLocation(location.id, name, queue_name, root=root, base=base, backend=settings)


def refuse_shared(served: Iterable[ServedLocation]) -> None:
    """Raise SettingsError where two locations would have the same run directories: their jobs would be one pool."""
    by_base: dict[Path, ServedLocation] = {}
    for one in served:
        other = by_base.setdefault(one.base, one)
        if other is not one:
            problem = f"its run directories {one.base} are those of {other.name} too; name another pipeline_base_dir"
            raise SettingsError(f"location {one.name}", problem)


def _settings(name: str, location: models.DataLocation) -> LocalSettings:
    try:
        return LocalSettings.model_validate(location.backend_settings)
    except pydantic.ValidationError as error:
        detail = error.errors(include_input=False, include_context=False, include_url=False)[0]
        key = ".".join(map(str, detail["loc"]))
        where = f"location {name}, backend_settings.{key}"
        if detail["type"] == "extra_forbidden":
            raise SettingsError(where, f"no such setting.{nearest(key, LocalSettings.model_fields)}") from None
        raise SettingsError(where, detail["msg"]) from None
