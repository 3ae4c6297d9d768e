"""What follows when a transfer did not end well."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypeAlias

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.errors import BadProducts, DefectMet, GivenUp
from ccat_data_transfer.verbs.unmade import lost_as_before
from ccat_ops_db import claims, models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.moves import advance
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import LIVE_TRANSFER_STATUSES, PackageState, Status

Transfer: TypeAlias = (
    models.LongTermArchiveTransfer | models.DataTransfer | models.StagingJob | models.ProductArchiveTransfer
)
NOUNS: Final[Sequence[type[Transfer]]] = (
    models.LongTermArchiveTransfer,
    models.DataTransfer,
    models.StagingJob,
    models.ProductArchiveTransfer,
)

TRIES: Final = 10
"""Workers that may be lost with a transfer before it is given up: it may be what kills them."""

_UNDERWAY: Final = (Status.SCHEDULED, Status.IN_PROGRESS)
_BATCH: Final = 100


def put_back(
    session: Session,
    noun: type[Transfer],
    ids: Iterable[int],
    *,
    because: str,
    by: str,
    pause: timedelta,
    count: Mapping[str, Any],
) -> list[int]:
    """Have transfers tried again after a pause; `count` are the new values of the counters of what went wrong."""
    values = {"failure": because, "not_before": sa.func.clock_timestamp() + pause, **count}
    to = Status.PENDING
    return advance(session, noun, ids, to=to, expected=_UNDERWAY, because=because, by=by, values=values)


def give_up(session: Session, noun: type[Transfer], transfer_id: int, *, error: CcatError, by: str) -> None:
    """Fail a transfer for good; packages that cannot get into their archive are FAILED with the same sentence."""
    because = str(error)
    of_packages = noun is models.LongTermArchiveTransfer and not isinstance(error, DefectMet | GivenUp)
    says_how = of_packages or isinstance(error, BadProducts)
    if not says_how and (command := _retried_with(session, noun, transfer_id)):
        because += f" Once that is mended, `{command}` takes it up again."
    values = {"failure": because}
    failed = advance(session, noun, [transfer_id], to=Status.FAILED, because=because, by=by, values=values)
    if failed:
        packages, to = _packages_of(session, noun, transfer_id), PackageState.FAILED
        advance(session, models.RawDataPackage, packages, to=to, because=because, by=by, values=values)
        lost_as_before(session, is_among(models.PhysicalCopy.raw_data_package_id, packages), by=by)


def _retried_with(session: Session, noun: type[Transfer], transfer_id: int) -> str | None:
    """The command for a transfer that has failed for good; None where whoever wants it asks anew."""
    if noun is models.LongTermArchiveTransfer:
        return f"ccat package retry {_packages_of(session, noun, transfer_id)[0]}"
    if noun is models.ProductArchiveTransfer:
        return f"ccat run archive {session.get_one(models.ProductArchiveTransfer, transfer_id).run_id}"
    return f"ccat transfer retry {transfer_id}" if noun is models.DataTransfer else None


def _packages_of(session: Session, noun: type[Transfer], transfer_id: int) -> Sequence[int]:
    """Packages on their way into an archive that a transfer carries."""
    archiving = models.LongTermArchiveTransfer
    ids = sa.select(archiving.raw_data_package_id)
    if noun is models.DataTransfer:
        live = archiving.status.in_(LIVE_TRANSFER_STATUSES)
        return session.scalars(ids.where(archiving.data_transfer_id == transfer_id, live)).all()
    return session.scalars(ids.where(archiving.id == transfer_id)).all() if noun is archiving else ()


def recover_lost(session: Session, noun: type[Transfer], *, by: str) -> int:
    """Have transfers tried again whose lease has run out, and return how many: a message or a worker was lost.

    A lost message is nobody's fault; a worker that is lost time and again may be killed by the transfer itself. One
    that was cut off from the database says so once it is back, and then does not count.
    """
    lost = claims.claim(
        session, noun, where=noun.status.in_(_UNDERWAY), by=by, lease=timedelta(minutes=1), limit=_BATCH
    )
    if not lost:
        return 0
    advance(
        session,
        noun,
        lost,
        to=Status.PENDING,
        expected=[Status.SCHEDULED],
        because="no worker took it in time",
        by=by,
    )
    dangerous = session.scalars(sa.select(noun.id).where(noun.id.in_(lost), noun.retry_count + 1 >= TRIES)).all()
    for transfer_id in dangerous:
        give_up(session, noun, transfer_id, error=GivenUp(TRIES), by=by)
    because, count = "its worker ended in the middle", {"retry_count": noun.retry_count + 1}
    put_back(session, noun, lost, because=because, by=by, pause=timedelta(), count=count)
    claims.release(session, noun, lost, by=by)
    return len(lost)
