"""The local backend: jobs are processes of this host that belong to nobody and outlive whoever started them."""

from ccat_workflow_manager.hpc.local.backend import LocalBackend, kill_jobs

__all__ = ["LocalBackend", "kill_jobs"]
