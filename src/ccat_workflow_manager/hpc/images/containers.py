from dataclasses import dataclass

from ccat_workflow_manager.hpc.images.cache import SifCache


@dataclass(frozen=True)
class Containers:
    """How a location runs software in images: where these are, and what it adds to Apptainer's options."""

    cache: SifCache
    program: str = "apptainer"
    options: tuple[str, ...] = ()
    gpu_option: str = "--nv"
    """Added for steps that ask for GPUs."""
