from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from ccat_ops_db.queries.images import images_in_use
from ccat_service.database import DatabaseConnection
from ccat_workflow_manager.hpc.base import GIGABYTE
from ccat_workflow_manager.hpc.images.cache import SifCache
from ccat_workflow_manager.hpc.images.containers import Containers
from ccat_workflow_manager.hpc.settings import ContainerSettings
from ccat_workflow_manager.places import ServedLocation
from ccat_workflow_manager.settings import WorkflowManagerSettings


def containers_of(
    served: Iterable[ServedLocation], settings: WorkflowManagerSettings, database: DatabaseConnection
) -> Mapping[int, Containers]:
    """How locations run images, by id, for those that do; what is kept in one directory is one cache."""
    caches: dict[Path, SifCache] = {}
    found: dict[int, Containers] = {}
    for one in served:
        if isinstance(given := one.backend, ContainerSettings):
            directory = one.root / (given.sif_cache_dir or settings.sif_cache_dir)
            most, in_use = int(settings.sif_cache_gb * GIGABYTE), _in_use(database)
            cache = caches.setdefault(directory, SifCache(directory, most_bytes=most, in_use=in_use))
            found[one.id] = Containers(cache, given.apptainer, given.apptainer_options, given.gpu_option)
    return found


def _in_use(database: DatabaseConnection) -> Callable[[], Collection[str]]:
    def ask() -> Collection[str]:
        with database.transaction() as session:
            return images_in_use(session)

    return ask
