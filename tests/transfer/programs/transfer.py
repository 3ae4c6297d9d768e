"""A transfer-manager, or a worker for all transfers, as the composition root makes them; its first argument says which.

The manager polls once in an hour: whatever it does sooner, it was woken for.
"""

import sys
from dataclasses import replace
from datetime import timedelta

import sqlalchemy as sa

from ccat_data_transfer.managers import TransferContext, transfer_manager
from ccat_data_transfer.queues import queues_to_serve
from ccat_data_transfer.settings import DataTransferSettings
from ccat_data_transfer.tasks import register_tasks
from ccat_data_transfer.verbs.attempts import Worker
from ccat_ops_db import models
from ccat_service.database import DatabaseConnection
from ccat_service.health import HealthCheck
from ccat_service.logging import configure_logging
from ccat_service.loop import run_manager
from ccat_service.servers import OpsDbSettings
from ccat_service.stop import stop_on_signals
from ccat_service.tasks import make_celery_app
from ccat_service.worker import run_worker


def main(role: str) -> int:
    configure_logging()
    settings = DataTransferSettings.load()
    app = make_celery_app(settings, name=role)
    database = DatabaseConnection(OpsDbSettings.load().database_url(), role)
    redis = settings.client(role)
    with stop_on_signals() as stop, HealthCheck("tests", role, redis=redis) as health:
        if role == "transfer-manager":
            context = TransferContext(engine=database.engine, app=app, name=role, quiet_period=timedelta(seconds=0.5))
            manager = replace(transfer_manager(context), poll=timedelta(hours=1))
            run_manager(manager, database=database, health=health, stop=stop)
            return 0
        register_tasks(app, Worker(engine=database.engine, name=role))
        with database.transaction() as session:
            queues = queues_to_serve(session.scalars(sa.select(models.DataLocation)).all())
        return run_worker(app, queues, concurrency=2, redis=redis, health=health, stop=stop)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
