"""A manager as the composition root makes one; its tick notes that it began and ended, and lasts as long as told."""

import os
from datetime import timedelta
from time import sleep

from ccat_data_transfer.settings import DataTransferSettings
from ccat_service.database import DatabaseConnection
from ccat_service.health import HealthCheck
from ccat_service.logging import StructuredLogger, configure_logging
from ccat_service.loop import Manager, run_manager
from ccat_service.servers import OpsDbSettings
from ccat_service.stop import stop_on_signals

log = StructuredLogger("tests.manager")


def tick(seconds: float) -> int:
    log.info("tick began")
    sleep(seconds)
    log.info("tick ended")
    return 1


def main() -> None:
    configure_logging()
    database = DatabaseConnection(OpsDbSettings.load().database_url(), "test manager")
    health = HealthCheck("tests", "manager", redis=DataTransferSettings.load().client("test manager"))
    manager = Manager(name="test", context=float(os.environ["TICK_SECONDS"]), tick=tick)
    with stop_on_signals(grace=timedelta(seconds=float(os.environ["GRACE_SECONDS"]))) as stop:
        run_manager(manager, database=database, health=health, stop=stop)


if __name__ == "__main__":
    main()
