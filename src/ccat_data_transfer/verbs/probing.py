"""Whether archives can be read now, also where nothing is due to be: nobody relies on one that cannot."""

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.backends.base import Store
from ccat_data_transfer.backends.errors import BadFile, LocationTrouble
from ccat_data_transfer.backends.page_cache import flush_file
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.backends.s3.parts import PART_BYTES
from ccat_data_transfer.tar import CHUNK
from ccat_data_transfer.verbs.attempts import store_of
from ccat_data_transfer.verbs.unreadable import some_at
from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.plan.marks import MARK
from ccat_ops_db.queries.unread import unread_by_some
from ccat_ops_db.session import database_time, in_transaction
from ccat_ops_db.states import LocationType
from ccat_ops_db.verbs.reading import note_probe, note_unreadable
from ccat_service.logging import StructuredLogger
from ccat_service.looking import EVERY, Look, looking
from ccat_service.stop import Stop

_log = StructuredLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Order:
    store: Store
    began: datetime
    before: str | None
    """Why nothing could be read there before, by anybody or by some."""
    files: Sequence[str]
    """Some that were found right."""
    is_empty: bool
    """Whether no copy is there."""


@contextmanager
def watching_archives(
    engine: sa.Engine,
    served: Callable[[], Collection[models.DataLocation]],
    *,
    name: str,
    stop: Stop,
    interval: timedelta = EVERY,
) -> Iterator[None]:
    """See again and again, inside the `with` block, whether archives can be read, of those that are served by then.

    `name` is that of the worker that looks.
    """

    def looks() -> Mapping[Hashable, Look]:
        archives = [one.id for one in served() if one.location_type is LocationType.LONG_TERM_ARCHIVE]
        return {one: partial(probe, engine, one, by=name) for one in archives}

    with looking(looks, "see whether an archive can be read", stop=stop, interval=interval):
        yield


def probe(engine: sa.Engine, location_id: int, *, by: str) -> None:
    """Read something at an archive, and write down what keeps a worker from that, or that nothing does.

    That is its mark, or where there is none the begin of a file; and where somebody could read nothing before, such a
    file: those who read copies know more than who reads the mark. Where no copy is relied on there is nothing to see.
    """
    order = in_transaction(engine, partial(_prepare, location_id=location_id))
    if not order.files and order.before is not None and not order.is_empty:
        return  # who reads what is there says so once it can be read
    trouble = _trouble(order) if order.files else None
    if trouble is None:
        in_transaction(engine, partial(note_probe, location_id=location_id, began=order.began, by=by))
        return
    if order.before is None:
        _log.error("nothing can be read at an archive", location=order.store.name, error=str(trouble))
    in_transaction(engine, partial(note_unreadable, location_id=location_id, because=str(trouble), by=by))


def _prepare(session: Session, *, location_id: int) -> _Order:
    location = session.get_one(models.DataLocation, location_id)
    is_there = sa.text("physical_copy.status = 'present'")  # as the index says it
    here = (models.PhysicalCopy.data_location_id == location_id, models.PhysicalCopy.raw_data_file_id.is_(None))
    return _Order(
        store=store_of(location, token="probe", progress=lambda: None, part_bytes=PART_BYTES),  # noqa: S106 - no password, and it writes nothing
        began=database_time(session),
        before=location.unreadable or unread_by_some(session, location_id),
        files=some_at(session, location_id),
        is_empty=not session.scalar(sa.select(sa.exists().where(*here, is_there))),
    )


def _trouble(order: _Order) -> CcatError | None:
    """What keeps a worker here from reading there; None where something can be read."""
    paths = order.files if order.before is not None else [MARK, *order.files]
    troubles: list[CcatError] = []
    for path in paths:
        try:
            _read(order.store, path)
        except (BadFile, LocationTrouble) as trouble:
            troubles.append(trouble)
        else:
            return None
    return next((one for one in troubles if isinstance(one, LocationTrouble)), troubles[-1])


def _read(store: Store, path: str) -> None:
    if isinstance(store, Disk) and store.seal(path) is not None:
        with store.explained():
            flush_file(Path(store.where(path)))  # what the page cache has says nothing of the disk
    with store.open(path) as file:
        file.read(CHUNK)
