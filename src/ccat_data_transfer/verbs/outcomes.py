"""What follows when a transfer did not end well."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Final, TypeAlias

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.errors import GivenUp
from ccat_ops_db import claims, models
from ccat_ops_db.moves import advance
from ccat_ops_db.states import PackageState, Status

Transfer: TypeAlias = models.LongTermArchiveTransfer | models.StagingJob

TRIES: Final = 10
"""Tries that may end in transient trouble before a transfer is given up."""

_UNDERWAY: Final = (Status.SCHEDULED, Status.IN_PROGRESS)
_BATCH: Final = 100


def put_back(
    session: Session, noun: type[Transfer], ids: Iterable[int], *, because: str, by: str, pause: timedelta
) -> list[int]:
    """Have transfers tried again after a pause; counts a try."""
    return advance(
        session,
        noun,
        ids,
        to=Status.PENDING,
        expected=_UNDERWAY,
        because=because,
        by=by,
        values={
            "failure": because,
            "retry_count": noun.retry_count + 1,
            "not_before": sa.func.clock_timestamp() + pause,
        },
    )


def give_up(session: Session, noun: type[Transfer], ids: Iterable[int], *, because: str, by: str) -> list[int]:
    """Fail transfers for good; a package that cannot get into its archive is FAILED with the same sentence."""
    failed = advance(session, noun, ids, to=Status.FAILED, because=because, by=by, values={"failure": because})
    if noun is models.LongTermArchiveTransfer:
        packages = session.scalars(
            sa.select(models.LongTermArchiveTransfer.raw_data_package_id).where(
                models.LongTermArchiveTransfer.id.in_(failed)
            )
        ).all()
        values = {"failure": because}
        advance(session, models.RawDataPackage, packages, to=PackageState.FAILED, because=because, by=by, values=values)
    return failed


def recover_lost(session: Session, noun: type[Transfer], *, by: str) -> int:
    """Have transfers tried again whose lease has run out, and return how many: a message or a worker was lost.

    A lost message is nobody's fault; a worker that is lost time and again may be killed by the transfer itself.
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
    give_up(session, noun, dangerous, because=str(GivenUp(TRIES)), by=by)
    put_back(session, noun, lost, because="its worker ended in the middle", by=by, pause=timedelta())
    claims.release(session, noun, lost, by=by)
    return len(lost)
