"""Packages whose archive, or the buffer that they are to be packed in, is out of use by now get another one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ccat_data_transfer.verbs.addressing import Addresses
from ccat_data_transfer.verbs.planning import announce
from ccat_data_transfer.verbs.scheduling import source_id
from ccat_data_transfer.verbs.ways import is_packed
from ccat_ops_db import models
from ccat_ops_db.models.transfers import LIVE
from ccat_ops_db.moves import advance
from ccat_ops_db.sets import table_of
from ccat_ops_db.states import LIVE_TRANSFER_STATUSES, PackageState, Status

_Archiving, _Trip, _Package = models.LongTermArchiveTransfer, models.DataTransfer, models.RawDataPackage
_Location = table_of(models.DataLocation)
_AT_ONCE: Final = 1000
"""Packages that one round is about."""
_UNUSED: Final = sa.select(_Location.c.id).where(sa.not_(_Location.c.active))
_TRAVELS: Final = sa.exists().where(
    _Trip.id == _Archiving.data_transfer_id,
    _Trip.status.in_(LIVE_TRANSFER_STATUSES),
    _Trip.destination_id.not_in(_UNUSED),
)
"""On its way to a location that is in use: it is looked at again once it is there."""
_GOES_ASTRAY: Final = sa.or_(
    _Archiving.destination_id.in_(_UNUSED), sa.and_(_Archiving.origin_id.in_(_UNUSED), sa.not_(is_packed()))
)
_ASTRAY: Final = (
    sa.select(
        _Archiving.id,
        _Archiving.raw_data_package_id,
        _Archiving.origin_id,
        _Archiving.destination_id,
        sa.case((is_packed(), None), else_=source_id()),
        _Archiving.destination_id.in_(_UNUSED),
    )
    .join(_Package, _Package.id == _Archiving.raw_data_package_id)
    .where(
        sa.text(f"long_term_archive_transfer.{LIVE}"),
        _Archiving.status == Status.PENDING,
        _Package.state.in_([PackageState.WAITING, PackageState.TRANSFERRING]),
        _GOES_ASTRAY,
        sa.not_(_TRAVELS),
    )
    .order_by(_Archiving.id)
    .limit(_AT_ONCE)
    .with_for_update(of=_Archiving, skip_locked=True)
)


@dataclass(frozen=True)
class _Astray:
    transfer_id: int
    package_id: int
    origin_id: int
    archive_id: int
    source_id: int | None
    """Where it is to be packed from; None: it is packed."""
    archive_is_unused: bool


def readdress(session: Session, *, by: str) -> int:
    """Cancel archive transfers of packages that are in no archive yet, and cannot get there, for others that can.

    Those to an archive that is inactive, and those that are to be packed into a buffer that is; how many these were.
    Where nothing leads to another one they stay as they are, and wait.
    """
    astray = [_Astray(*row) for row in session.execute(_ASTRAY)]
    if not astray:
        return 0
    addresses = Addresses(session)
    found = [(one, way) for one in astray if (way := _way(addresses, one)) is not None]
    because, ids = "where it was to go is out of use, and it goes elsewhere", [one.transfer_id for one, _ in found]
    moved = set(advance(session, _Archiving, ids, to=Status.CANCELLED, because=because, by=by))
    _ask(session, [(one.package_id, *way) for one, way in found if one.transfer_id in moved])
    return len(moved)


def _way(addresses: Addresses, one: _Astray) -> tuple[int, int] | None:
    """The buffer that it starts from now, and the archive; None where there is no better than what it has."""
    start = one.origin_id if one.source_id is None else addresses.buffer_of(one.source_id)
    if start is None:
        return None
    archive = addresses.archive_from(start) if one.archive_is_unused else one.archive_id
    return None if archive is None or (start, archive) == (one.origin_id, one.archive_id) else (start, archive)


def _ask(session: Session, asked: Sequence[tuple[int, int, int]]) -> None:
    rows = [
        {"raw_data_package_id": package, "origin_id": origin, "destination_id": archive}
        for package, origin, archive in asked
    ]
    if rows:
        new = insert(_Archiving).on_conflict_do_nothing(
            index_elements=["raw_data_package_id", "destination_id"], index_where=sa.text(LIVE)
        )
        session.execute(new, rows)
        announce(session, _Archiving, Status.PENDING)
