"""One try of one transfer: take it over, keep its lease while bytes move, record how it ended.

The database decides who works: a try is taken by the guarded move SCHEDULED → IN_PROGRESS, and each of its later
transactions begins by renewing its lease. Whoever has lost it records nothing.
"""

import random
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from types import MappingProxyType
from typing import Any, Final, TypeAlias, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session, object_session

from ccat_data_transfer.backends.base import Store
from ccat_data_transfer.backends.errors import MoverUnknown
from ccat_data_transfer.backends.movers import MovesFiles, Rsync, copy
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.backends.s3.address import Address
from ccat_data_transfer.backends.s3.parts import PART_BYTES
from ccat_data_transfer.errors import LOSSES, DefectMet, NoBackend, PassingTrouble
from ccat_data_transfer.verbs.outcomes import Transfer, give_up, put_back
from ccat_ops_db import claims, models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.moves import advance
from ccat_ops_db.queries.spaces import holds_data, mark_of
from ccat_ops_db.session import DatabaseUnreachable, in_transaction
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import LIVE_TRANSFER_STATUSES, LocationType, Mover, Status
from ccat_service.logging import StructuredLogger
from ccat_service.processes import claimant
from ccat_service.retries import Backoff, first_line
from ccat_service.trouble import is_transient

Result = TypeVar("Result")

LEASE: Final = timedelta(minutes=1)
"""A transfer whose worker is lost goes on after this long, or as soon as a worker of the same host finds it gone."""
BACKOFF: Final = Backoff(first=timedelta(seconds=10), ceiling=timedelta(minutes=10))
"""Pauses between the tries of a transfer in trouble; the last one is how long it takes to notice that all is well."""
_NOW: Final = sa.func.clock_timestamp()
_PAUSE: Final = timedelta(milliseconds=500)
"""Between two questions to a database that is away."""

_log = StructuredLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Worker:
    """What every verb that moves bytes needs from the process that calls it."""

    engine: sa.Engine
    name: str
    """Shown in the history of whatever it moves."""
    lease: timedelta = LEASE
    backoff: Backoff = BACKOFF
    rsync: Rsync = field(default_factory=Rsync)
    part_bytes: int = PART_BYTES
    """Size of the parts of large objects in object stores."""


class LeaseLost(Exception):
    """Somebody else has the transfer now, or it was cancelled."""


class Attempt:
    """A try that was taken over."""

    def __init__(self, worker: Worker, noun: type[Transfer], transfer_id: int) -> None:
        self.by = worker.name
        self.transfer_id = transfer_id
        self.seen: Callable[[], Mapping[str, object]] = dict
        """Asked whenever the lease is renewed while bytes move; what it returns is written down of the transfer."""
        self._worker = worker
        self._noun = noun
        self._token = secrets.token_hex(4)
        self._claimed_by = f"{claimant(worker.name)} {self._token}"
        self._renew_at = 0.0

    def take(self) -> bool:
        """Take the transfer over from the manager that scheduled it; False where there is nothing to take."""
        return self._patiently(self._take)

    def _take(self, session: Session) -> bool:
        noun, ids = self._noun, [self.transfer_id]
        if claims.renew(session, noun, ids, by=self._claimed_by, lease=self._worker.lease):
            return True  # by a commit whose answer was lost
        if not advance(session, noun, ids, to=Status.IN_PROGRESS, because="a worker took it", by=self.by):
            return False
        manager = session.scalar(sa.select(noun.claimed_by).where(noun.id == self.transfer_id))
        claims.release(session, noun, ids, by=manager or "")
        claims.claim(
            session, noun, where=noun.id == self.transfer_id, by=self._claimed_by, lease=self._worker.lease, limit=1
        )
        self._note_renewal()
        return True

    def transaction(self, work: Callable[[Session], Result]) -> Result:
        """Result of `work` in a transaction that commits only if the try still has its lease; raises LeaseLost."""

        def guarded(session: Session) -> Result:
            self._renew(session)
            return work(session)

        return self._patiently(guarded)

    def regardless(self, work: Callable[[Session], Result]) -> Result:
        """Result of `work` in a transaction, whoever has the transfer by now."""
        return self._patiently(work)

    def _patiently(self, work: Callable[[Session], Result]) -> Result:
        """Result of `work` in a transaction; a database that is away is waited for as long as the lease may last."""
        deadline = monotonic() + self._worker.lease.total_seconds()
        while True:
            try:
                return in_transaction(self._worker.engine, work)
            except DatabaseUnreachable as error:
                if monotonic() > deadline:
                    raise
                _log.warning("the database is away, waiting for it", id=self.transfer_id, error=first_line(error))
                sleep(_PAUSE.total_seconds())

    def end(self, session: Session, to: Status, *, because: str, arrives: bool = False) -> None:
        """Move the transfer on, as one that works, and give its lease back.

        What was in its way is over where it `arrives` at the next place on it, unless it was lost at one before.
        """
        ids = [self.transfer_id]
        healthy: dict[str, object] = {"failure": None, "not_before": None, "doubts_since": None}
        if to is Status.COMPLETED:
            healthy |= {"retry_count": 0, "trouble_count": 0, "trouble_kept": 0}
        elif arrives:  # not from 0 again, or a bad buffer would never be given a rest
            healthy |= {"retry_count": 0, "trouble_count": self._noun.trouble_kept}
        advance(session, self._noun, ids, to=to, because=because, by=self.by, values=healthy)
        claims.release(session, self._noun, ids, by=self._claimed_by)

    def doubts_since(self, session: Session) -> datetime | None:
        """When the transfer first could not have a copy, on its way to where it goes next; None: it never could not."""
        return session.scalar(sa.select(self._noun.doubts_since).where(self._noun.id == self.transfer_id))

    def note_doubt(self, session: Session) -> None:
        """Note that the transfer cannot have a copy; of several times the first counts."""
        first = sa.update(self._noun).where(self._noun.id == self.transfer_id, self._noun.doubts_since.is_(None))
        session.execute(first.values(doubts_since=_NOW))

    def store(self, location: models.DataLocation) -> Store:
        """A location as this try uses it: whatever it reads or writes keeps the lease alive. Raises NoBackend."""
        if isinstance(location, models.S3DataLocation):
            return _bucket(location, progress=self.keep_lease, part_bytes=self._worker.part_bytes)
        return self.disk(location)

    def disk(self, location: models.DataLocation) -> Disk:
        """A location that keeps directories too; raises NoBackend for one that does not."""
        disk = disk_of(location, token=f"{self.transfer_id}-{self._token}", progress=self.keep_lease)
        return replace(disk, holds_data=_holds_data(location))

    def mover(self, route: models.DataTransferRoute) -> MovesFiles:
        """What brings files along a route; raises MoverUnknown."""
        match route.method:
            case Mover.COPY:
                return copy
            case Mover.RSYNC:
                return self._worker.rsync
            case Mover.BBCP:
                raise MoverUnknown(route.method, route.name)

    def settle(self, session: Session, error: CcatError) -> None:
        """Have the transfer tried again later, for as long as the trouble lasts; else give it up."""
        noun, ids = self._noun, [self.transfer_id]
        if error.transient:
            before = session.scalars(sa.select(noun.trouble_count).where(noun.id == self.transfer_id)).one()
            because, count = f"{error} It is tried again.", _counted(before + 1, is_lost=isinstance(error, LOSSES))
            put_back(session, noun, ids, because=because, by=self.by, pause=self._pause(before), count=count)
        else:
            give_up(session, noun, self.transfer_id, error=error, by=self.by)
        claims.release(session, noun, ids, by=self._claimed_by)

    def rest(
        self, session: Session, archive_transfer_ids: Collection[int], *, because: str, is_lost: bool = True
    ) -> None:
        """Have archive transfers, whose tar was found bad by this one, wait before that is made anew.

        They wait the longer the more often something was in their way; nobody works on them meanwhile. So do those
        whose tar is not lost, and cannot be read.
        """
        noun = models.LongTermArchiveTransfer
        these = sa.and_(is_among(noun.id, archive_transfer_ids), noun.status == Status.PENDING)
        for number, before in session.execute(sa.select(noun.id, noun.trouble_count).where(these)).all():
            values = {"failure": because, "not_before": _NOW + self._pause(before)}
            values |= _counted(before + 1, is_lost=is_lost)
            session.execute(sa.update(noun).where(noun.id == number).values(values))

    def _pause(self, troubles_before: int) -> timedelta:
        return self._worker.backoff.delay(troubles_before + 1, jitter=random.random())  # noqa: S311 - not a secret

    def outlive(self) -> None:
        """Note that it was not this worker's end that cost it the lease, where another may have the transfer by now."""
        self._patiently(self._outlive)

    def _outlive(self, session: Session) -> None:
        noun = self._noun
        is_anothers = noun.claimed_by.is_distinct_from(self._claimed_by)
        counted = sa.and_(noun.id == self.transfer_id, noun.status.in_(LIVE_TRANSFER_STATUSES), noun.retry_count > 0)
        session.execute(sa.update(noun).where(counted, is_anothers).values(retry_count=noun.retry_count - 1))

    def keep_lease(self) -> None:
        """Renew the lease where it is time to; raises LeaseLost."""
        if monotonic() < self._renew_at:
            return
        seen = self.seen()
        try:
            in_transaction(self._worker.engine, partial(self._renew, seen=seen))
        except Exception as error:
            if not is_transient(error):
                raise
            _log.warning("cannot renew the lease, copying on", id=self.transfer_id, error=first_line(error))
            self._note_renewal()

    def _renew(self, session: Session, *, seen: Mapping[str, object] = MappingProxyType({})) -> None:
        noun, lease = self._noun, self._worker.lease
        held = claims.renew(session, noun, [self.transfer_id], by=self._claimed_by, lease=lease)
        if not held or session.scalar(sa.select(noun.status).where(noun.id.in_(held))) is not Status.IN_PROGRESS:
            raise LeaseLost
        if seen:
            session.execute(sa.update(noun).where(noun.id == self.transfer_id).values(seen))
        self._note_renewal()

    def _note_renewal(self) -> None:
        self._renew_at = monotonic() + self._worker.lease.total_seconds() / 3


def store_of(location: models.DataLocation, *, token: str, progress: Callable[[], None], part_bytes: int) -> Store:
    """A location as somebody with this token uses it. Raises NoBackend."""
    if isinstance(location, models.S3DataLocation):
        return _bucket(location, progress=progress, part_bytes=part_bytes)
    return disk_of(location, token=token, progress=progress)


def disk_of(location: models.DataLocation, *, token: str, progress: Callable[[], None]) -> Disk:
    """A location that keeps directories, as somebody with this token uses it. Raises NoBackend."""
    name = _name(location)
    if not isinstance(location, models.DiskDataLocation):
        raise NoBackend(name, location.storage_type)
    reserve = location.free_space_reserve_bytes
    return Disk(
        name=name,
        root=Path(location.path),
        reserve_bytes=reserve,
        token=token,
        progress=progress,
        mark=mark_of(location),
        bore_mark=location.marked_at is not None,
    )


def _holds_data(location: models.DataLocation) -> bool:
    """Whether something is known to lie at a location that may be written; nothing writes a SOURCE."""
    session = object_session(location)
    is_written = location.location_type is not LocationType.SOURCE
    return session is not None and is_written and holds_data(session, location.id)


def _bucket(location: models.S3DataLocation, *, progress: Callable[[], None], part_bytes: int) -> Store:
    from ccat_data_transfer.backends.s3.bucket import Bucket  # noqa: PLC0415 - its client takes 50 MB of memory

    address = Address(
        location=_name(location),
        bucket=location.bucket,
        prefix=location.prefix,
        endpoint_url=location.endpoint_url,
        region=location.region,
    )
    return Bucket(address=address, progress=progress, part_bytes=part_bytes, mark=mark_of(location))


def _name(location: models.DataLocation) -> str:
    return f"{location.site.short_name}/{location.name}"


def _counted(troubles: int, *, is_lost: bool) -> dict[str, Any]:
    """The counters of a transfer after so much trouble; a loss makes all that was before it count on."""
    return {"trouble_count": troubles, **({"trouble_kept": troubles} if is_lost else {})}


OnFailure: TypeAlias = Callable[[Session, Attempt, CcatError], CcatError | None]
"""Records what a failure means for other rows; returns what is the matter where that shows it to be something else."""


def attempt(
    worker: Worker,
    noun: type[Transfer],
    transfer_id: int,
    *,
    work: Callable[[Attempt], None],
    on_failure: OnFailure,
) -> None:
    """Do `work` if the transfer is scheduled; where it fails, record what that means for other rows and settle it."""
    one = Attempt(worker, noun, transfer_id)
    log = _log.bind(transfer=noun.__tablename__, id=transfer_id)
    if not one.take():
        log.debug("nothing to do, somebody else has it")
        return
    try:
        try:
            work(one)
        except (LeaseLost, DatabaseUnreachable):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told; left alone, it would be met for ever
            known = _known(error, worker)
            log.warning("transfer failed", code=known.code, error=str(known))
            one.transaction(partial(_fail, one=one, error=known, on_failure=on_failure))
    except LeaseLost:
        log.warning("the lease is lost, somebody else goes on")
        one.outlive()


def _known(error: Exception, worker: Worker) -> CcatError:
    """What is recorded of an error."""
    if isinstance(error, CcatError):
        return error
    if is_transient(error):
        return PassingTrouble(error)
    _log.exception("a transfer met a defect of ours", error)
    return DefectMet(error, worker.name)


def _fail(session: Session, *, one: Attempt, error: CcatError, on_failure: OnFailure) -> None:
    one.settle(session, on_failure(session, one, error) or error)
