"""What every long-running process shares.

The published names are loaded when they are first asked for: a command that only reads the database does not pay for
Celery.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ccat_service.database import DatabaseConnection
    from ccat_service.health import HealthCheck
    from ccat_service.logging import StructuredLogger
    from ccat_service.tasks import make_celery_task

__all__ = ["DatabaseConnection", "HealthCheck", "StructuredLogger", "make_celery_task"]

_HOMES: Final = {
    "DatabaseConnection": "database",
    "HealthCheck": "health",
    "StructuredLogger": "logging",
    "make_celery_task": "tasks",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
