"""What an instance knows of a processing location that it serves: where runs lie, and what its backend may use."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pydantic

from ccat_ops_db import models
from ccat_ops_db.naming import nearest
from ccat_ops_db.states import BackendName, LocationType
from ccat_service.settings import SettingsError
from ccat_workflow_manager.hpc.kubernetes.settings import KubernetesSettings
from ccat_workflow_manager.hpc.settings import LocalSettings, PlaceSettings, SlurmSettings

_SETTINGS: Final[Mapping[BackendName, type[PlaceSettings]]] = {
    BackendName.LOCAL: LocalSettings,
    BackendName.SLURM: SlurmSettings,
    BackendName.KUBERNETES: KubernetesSettings,
}


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
    backend: PlaceSettings


def serve(location: models.DataLocation, *, default_base: Path) -> ServedLocation:
    """What is known of a location; raises SettingsError, which names it, where it cannot be served.

    Run directories lie where the location says, else in `default_base` if that is inside of it, else in `pipelines`.
    """
    name = f"{location.site.short_name}/{location.name}"
    if location.location_type is not LocationType.PROCESSING:
        raise SettingsError(f"location {name}", f"its type is {location.location_type}: nothing is processed there")
    if location.backend is None:
        raise SettingsError(f"location {name}", "it names no backend")
    if not isinstance(location, models.DiskDataLocation):
        raise SettingsError(f"location {name}", "it is no disk; jobs need a file system")
    settings, root = _settings(name, location, _SETTINGS[location.backend]), Path(location.path)
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


def _settings(name: str, location: models.DataLocation, kind: type[PlaceSettings]) -> PlaceSettings:
    try:
        return kind.model_validate(location.backend_settings)
    except pydantic.ValidationError as error:
        detail = error.errors(include_input=False, include_context=False, include_url=False)[0]
        key = ".".join(map(str, detail["loc"]))
        where = f"location {name}, backend_settings{'.' if key else ''}{key}"
        if detail["type"] == "extra_forbidden":
            raise SettingsError(where, f"no such setting.{nearest(key, kind.model_fields)}") from None
        raise SettingsError(where, detail["msg"].removeprefix("Value error, ")) from None
