"""What every long-running process shares: settings, logging, database, heartbeat, the manager loop and queue tasks."""

from ccat_service.database import DatabaseConnection
from ccat_service.health import HealthCheck
from ccat_service.logging import StructuredLogger
from ccat_service.tasks import make_celery_task

__all__ = ["DatabaseConnection", "HealthCheck", "StructuredLogger", "make_celery_task"]
