"""What is free on the disks that a worker serves, written down for those who see the database only."""

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

from sqlalchemy import Engine

from ccat_ops_db.session import transaction
from ccat_ops_db.verbs.spaces import record_space
from ccat_service.logging import StructuredLogger
from ccat_service.retries import first_line
from ccat_service.stop import Stop

_INTERVAL: Final = timedelta(seconds=15)
_PATIENCE: Final = timedelta(seconds=1)
"""With a look that goes on when the process is to end."""
_log = StructuredLogger(__name__)


@contextmanager
def watching_space(
    engine: Engine, roots: Mapping[int, Path], *, stop: Stop, interval: timedelta = _INTERVAL
) -> Iterator[None]:
    """Look at the disks of these locations again and again, inside the `with` block; `roots` are their directories.

    A thread for each: a file system that does not answer holds up nothing but the knowledge of itself.
    """
    looks = [partial(measure_space, engine, one, root) for one, root in roots.items()]
    threads = [threading.Thread(target=partial(_repeat, look, stop, interval), daemon=True) for look in looks]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.request()
        for thread in threads:
            thread.join(_PATIENCE.total_seconds())


def measure_space(engine: Engine, location_id: int, root: Path) -> None:
    """Write down what is free on the disk of a location; raises OSError where it cannot be seen."""
    usage = shutil.disk_usage(root)
    with transaction(engine) as session:
        record_space(session, location_id, free=usage.free, total=usage.total, now=datetime.now(UTC))


def _repeat(look: Callable[[], None], stop: Stop, interval: timedelta) -> None:
    trouble = ""
    while not stop.requested:
        try:
            look()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again, and the worker goes on
            if first_line(error) != trouble:
                trouble = first_line(error)
                _log.warning("cannot tell how much space is free, trying on", error=trouble)
        else:
            trouble = ""
        stop.wait(interval)
