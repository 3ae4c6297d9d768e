"""What keeps data on their way: what is tried again and again, and what waits where nobody works."""

from collections.abc import Iterator
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION
from ccat_ops_db.models.transfers import LIVE
from ccat_ops_db.plan.alerts import Condition
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.queries.unplanned import unplanned
from ccat_ops_db.states import LIVE_TRANSFER_STATUSES, AlertKind, Status

_Way, _Trip, _Package = models.LongTermArchiveTransfer, models.DataTransfer, models.RawDataPackage
_Job = models.StagingJob
CARRIES: Final = sa.and_(
    _Trip.id == _Way.data_transfer_id,
    _Trip.origin_id == _Way.origin_id,  # as it moves on with what is unpacked
    _Trip.status.in_([*LIVE_TRANSFER_STATUSES, Status.FAILED]),
)
"""Condition: it is a transfer between sites that an archive transfer waits for."""
IN_VAIN: Final = 5
"""Troubles in a row, after which people are told: some minutes, as the pauses between are long by then."""


def troubled_transfers(session: Session) -> Iterator[Condition]:
    """What people are told of data on their way."""
    yield from _unplanned(session)
    yield from _tried_in_vain(session)
    yield from _staged_in_vain(session)
    yield from _unserved(session)


def _unplanned(session: Session) -> Iterator[Condition]:
    """Raw files that get into no package."""
    for one in unplanned(session):
        files = counted(one.files, "raw file gets", "raw files get")
        scans = counted(one.scans, "scan", "scans")
        yield Condition(
            kind=AlertKind.BACKLOG,
            key=f"raw files: {one.failure}",
            sentence=f"{files} into no package, of {scans}, and so into no archive: {one.failure} "
            "`ccat transfer status` lists all that is so",
            number=one.files,
        )


def _tried_in_vain(session: Session) -> Iterator[Condition]:
    """Raw packages that go on being tried again on their way, one by one or with all that they cross with.

    Such as those that a buffer loses time and again, and those that cannot be brought there.
    """
    crosses_in_vain = sa.and_(_Trip.status != Status.FAILED, _Trip.trouble_count >= IN_VAIN)
    number, cause = session.execute(
        sa.select(sa.func.count(sa.distinct(_Package.id)), sa.func.min(sa.func.coalesce(_Trip.failure, _Way.failure)))
        .join(_Way, _Way.raw_data_package_id == _Package.id)
        .outerjoin(_Trip, CARRIES)
        .where(sa.text(f"long_term_archive_transfer.{LIVE}"), sa.or_(_Way.trouble_count >= IN_VAIN, crosses_in_vain))
    ).one()
    if number:
        packages = counted(number, "raw package", "raw packages")
        yield Condition(
            kind=AlertKind.BACKLOG,
            key="raw packages tried in vain",
            sentence=f"{packages} met trouble {IN_VAIN} times or more on the way into an "
            f"archive{f', such as: {cause}' if cause else ';'} `ccat packages` says what is in the way",
            number=number,
        )


def _staged_in_vain(session: Session) -> Iterator[Condition]:
    """What goes on being tried to be brought to a processing location, unless it waits for a worker."""
    in_vain = sa.and_(_Job.trouble_count >= IN_VAIN, _Job.unserved_since.is_(None))
    rows = session.execute(
        sa.select(LOCATION.label, sa.func.count(), sa.func.min(_Job.failure))
        .select_from(_Job)
        .join(models.DataLocation, models.DataLocation.id == _Job.data_location_id)
        .join(models.DataLocation.site)
        .where(sa.text(f"staging_job.{LIVE}"), in_vain)
        .group_by(LOCATION.label)
        .order_by(LOCATION.label)
    )
    for name, number, cause in rows:
        what = counted(number, "raw package or product", "raw packages or products")
        yield Condition(
            kind=AlertKind.BACKLOG,
            key=f"staged in vain {name}",
            sentence=f"{what} met trouble {IN_VAIN} times or more on the way to {name}, where runs take "
            f"them{f', such as: {cause}' if cause else ';'} `ccat transfer status` says what is in the way",
            number=number,
        )


def _unserved(session: Session) -> Iterator[Condition]:
    """What waits where no transfer-worker serves, as it says itself."""
    nouns = (_Way, _Trip, models.StagingJob, models.ProductArchiveTransfer)
    waits = sa.union_all(
        *(
            sa.select(noun.failure.label("because"), noun.unserved_since.label("since")).where(
                sa.text(f"{noun.__tablename__}.{LIVE}"), noun.unserved_since.is_not(None), noun.failure.is_not(None)
            )
            for noun in nouns
        )
    ).subquery()
    told = sa.select(waits.c.because, sa.func.count(), sa.func.min(waits.c.since)).group_by(waits.c.because)
    for because, number, since in session.execute(told.order_by(waits.c.because)):
        transfers = counted(number, "transfer waits", "transfers wait")
        yield Condition(
            kind=AlertKind.BACKLOG,
            key=because.partition(":")[0],
            sentence=f"{because} {transfers} for that, noticed at {since:%F %H:%M} UTC",
            number=number,
        )
