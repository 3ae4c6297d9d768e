"""Packages get as many archive copies as their class of data wants: another one, or one in place of what was lost."""

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from ccat_data_transfer.replication import Archive, Holding, Wish, next_copy
from ccat_data_transfer.verbs.copies import PREFERRED_FIRST, Copy
from ccat_data_transfer.verbs.planning import announce
from ccat_data_transfer.verbs.unmade import lost_as_before
from ccat_data_transfer.verbs.ways import Map, is_packed, is_restorable, the_map
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.plan.retention import AWAY_AFTER, REPLACED_AFTER
from ccat_ops_db.queries.away import is_away, is_shut
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import (
    LIVE_TRANSFER_STATUSES,
    STORAGES,
    LocationType,
    PackageState,
    PhysicalCopyStatus,
    Status,
)

_Package, _Copy, _Location, _Archiving = (
    models.RawDataPackage,
    models.PhysicalCopy,
    models.DataLocation,
    models.LongTermArchiveTransfer,
)
AT_ONCE: Final = 1000
"""Packages that are short of copies, of which one look tells."""
MOST_UNDER_WAY: Final = 5_000
"""Further copies that are on their way to an archive at a time."""
_LOST: Final = (PhysicalCopyStatus.CORRUPT, PhysicalCopyStatus.MISSING)
_NOT_THERE: Final = (*_LOST, PhysicalCopyStatus.DELETED, PhysicalCopyStatus.WRITING)
"""What copies are that an archive does not have: one that is being written has a transfer, or was given up."""
_ARE_READ: Final = (LocationType.BUFFER, LocationType.LONG_TERM_ARCHIVE)
"""What further copies are made from."""
_ASKED: Final = (*LIVE_TRANSFER_STATUSES, Status.FAILED)
_TAKES_COPIES: Final = sa.and_(
    _Location.location_type == LocationType.LONG_TERM_ARCHIVE,
    _Location.storage_type.in_(STORAGES[LocationType.LONG_TERM_ARCHIVE]),
    _Location.active,
)
_LIVE: Final = sa.text(f"status IN ({', '.join(repr(str(status)) for status in LIVE_TRANSFER_STATUSES)})")


def replicate(session: Session, package_ids: Collection[int], *, leave_out: Collection[int] = (), by: str) -> int:
    """Ask for archive copies that are wanting of these archived packages; how many were asked for.

    One is asked for at a time for each package, until there are enough, and none is bad where it could be made anew.
    What nothing can be made of waits until something changes. Nothing is asked of archives that are to be left out, as
    `busy_archives` are where any number of packages is looked at.
    """
    take_back_useless(session, package_ids, by=by)
    wanting = _wanting_copies(session, is_among(_Package.id, package_ids))
    if not wanting:
        return 0
    archives = _archives(session, here := the_map(session), leave_out=leave_out)
    wish = partial(_wish, session, here=here, archives=archives)
    return _ask(session, [(one, wished) for one, is_short in wanting if (wished := wish(one, heals=not is_short))])


def has_sound_copy(session: Session, package_id: int) -> bool:
    """Whether an archive has a package, as far as is known: also where it is to be deleted, and can be taken back."""
    return bool(session.scalar(sa.select(_is_archived(package_id))))


def is_on_its_way(session: Session, package_id: int) -> bool:
    """Whether a package is being copied into an archive."""
    return bool(session.scalar(sa.select(_is_coming(package_id))))


def is_or_will_be_archived(session: Session, package_id: int) -> bool:
    """Whether an archive has a package, or it is being copied into one; what comes meanwhile is not overlooked."""
    return bool(session.scalar(sa.select(sa.or_(_is_archived(package_id), _is_coming(package_id)))))


def archive_copies_now(session: Session, package_id: int) -> tuple[list[Copy], bool]:
    """Archive copies of a package as `archive_copies` has them, and whether one is coming, both of one moment.

    Asked one after the other, a copy that comes in between would be neither there nor on its way.
    """
    is_archived = Copy.location.has(location_type=LocationType.LONG_TERM_ARCHIVE)
    there = sa.and_(Copy.raw_data_package_id == _Package.id, Copy.status != PhysicalCopyStatus.DELETED, is_archived)
    package = sa.select(Copy, _is_coming(package_id)).select_from(_Package).where(_Package.id == package_id)
    copies = package.outerjoin(Copy, there).outerjoin(Copy.location).order_by(*PREFERRED_FIRST)
    rows = session.execute(copies, execution_options={"populate_existing": True}).all()
    return [copy for copy, _ in rows if copy is not None], any(is_coming for _, is_coming in rows)


def _is_archived(package_id: int) -> sa.Exists:
    there = sa.select(_Copy.id).join(_Location, _Location.id == _Copy.data_location_id)
    is_archived = _Location.location_type == LocationType.LONG_TERM_ARCHIVE
    is_there = (_Copy.raw_data_package_id == package_id, _Copy.status.not_in(_NOT_THERE))
    found = there.where(*is_there, is_archived, _Location.lost_at.is_(None))
    return found.exists()


def _is_coming(package_id: int) -> sa.Exists:
    return sa.exists().where(
        _Archiving.raw_data_package_id == package_id, _Archiving.status.in_(LIVE_TRANSFER_STATUSES)
    )


def wanting_copies(session: Session, which: sa.ColumnElement[bool]) -> Sequence[int]:
    """Archived packages with fewer sound archive copies than they want, and those that are coming, or with bad ones.

    What lies in an archive that has been away for long is not there. Left out are those that every archive has, or is
    to have: nothing can be asked for. The first thousand are told.
    """
    return [package_id for package_id, _ in _wanting_copies(session, which)]


def _wanting_copies(session: Session, which: sa.ColumnElement[bool]) -> Sequence[sa.Row[int, bool]]:
    """These packages, and whether they have too few copies; else only bad ones are made anew."""
    is_there = sa.not_(is_away(for_long=REPLACED_AFTER))
    sound = sound_copies(_Package.id).where(is_there).with_only_columns(sa.func.count())
    coming = (
        sa.select(sa.func.count())
        .select_from(_Archiving)
        .where(_Archiving.raw_data_package_id == _Package.id, _Archiving.status.in_(LIVE_TRANSFER_STATUSES))
    )
    there = sound.correlate(_Package).scalar_subquery() + coming.correlate(_Package).scalar_subquery()
    is_short = sa.and_(there < wanted_copies(), _lacks_in_some_archive())
    wanting = (which, _Package.state == PackageState.ARCHIVED, sa.or_(is_short, _has_bad_copy()))
    return session.execute(sa.select(_Package.id, is_short).where(*wanting).order_by(_Package.id).limit(AT_ONCE)).all()


def _has_bad_copy() -> sa.ColumnElement[bool]:
    """Condition on a package: its copy is bad in an archive that takes copies, and nobody tried to make it anew yet."""
    bad = (_Copy.raw_data_package_id == _Package.id, _Copy.data_location_id == _Location.id, _Copy.status.in_(_LOST))
    was_asked = _was_asked().correlate(_Package, _Location)
    return sa.exists().where(_TAKES_COPIES, *bad, sa.not_(was_asked)).correlate(_Package)


def _lacks_in_some_archive() -> sa.ColumnElement[bool]:
    """Condition on a package: an archive that takes copies has none of it, and none is or was on its way there."""
    has = sa.exists().where(
        _Copy.raw_data_package_id == _Package.id,
        _Copy.data_location_id == _Location.id,
        _Copy.status.not_in(_NOT_THERE),
    )
    none = (sa.not_(one.correlate(_Package, _Location)) for one in (has, _was_asked()))
    return sa.exists().where(_TAKES_COPIES, *none).correlate(_Package)


def _was_asked() -> sa.Exists:
    """Condition on a package and an archive: it is, or was in vain, on its way there."""
    return sa.exists().where(
        _Archiving.raw_data_package_id == _Package.id,
        _Archiving.destination_id == _Location.id,
        _Archiving.status.in_(_ASKED),
    )


def sound_copies(package_id: Any) -> sa.Select[int]:
    """Copies of a package in archives that are not lost, which nobody found bad."""
    return (
        sa.select(_Copy.id)
        .join(_Location, _Location.id == _Copy.data_location_id)
        .where(
            _Copy.raw_data_package_id == package_id,
            _Copy.status == PhysicalCopyStatus.PRESENT,
            _Location.location_type == LocationType.LONG_TERM_ARCHIVE,
            _Location.lost_at.is_(None),
        )
    )


def wanted_copies() -> sa.ColumnElement[int]:
    """Archive copies that the class of a package's data asks for."""
    module, instrument, usual = models.InstrumentModule, models.Instrument, aliased(models.DataClass)
    of_usual = sa.select(usual.id).where(usual.name == "raw").scalar_subquery()
    asked = (
        sa.select(models.DataClass.min_verified_archive_copies)
        .join(instrument, models.DataClass.id == sa.func.coalesce(instrument.data_class_id, of_usual))
        .join(module, module.instrument_id == instrument.id)
        .where(module.id == _Package.instrument_module_id)
    )
    return sa.func.coalesce(asked.correlate(_Package).scalar_subquery(), 1)


def take_back_useless(session: Session, package_ids: Collection[int] | None = None, *, by: str) -> None:
    """Cancel transfers of archived packages, of these or of any, that cannot start any more, or go where nothing goes.

    So others are asked for. What only one that is out of use is left for waits for it.
    """
    of_these = sa.true() if package_ids is None else is_among(_Archiving.raw_data_package_id, package_ids)
    useless = {
        "what it was to be copied from is gone": _has_no_start(),
        "where it was to go is out of use, and it goes elsewhere": _goes_astray(),
    }
    for because, which in useless.items():
        found = sa.select(_Archiving.id).where(of_these, _Archiving.status == Status.PENDING, which)
        cancelled = advance(
            session, _Archiving, session.scalars(found).all(), to=Status.CANCELLED, because=because, by=by
        )
        packages = sa.select(_Archiving.raw_data_package_id).where(is_among(_Archiving.id, cancelled))
        lost_as_before(session, _Copy.raw_data_package_id.in_(packages), by=by)


def _has_no_start() -> sa.ColumnElement[bool]:
    start = aliased(_Location, flat=True)
    is_buffer = sa.exists().where(start.id == _Archiving.origin_id, start.location_type == LocationType.BUFFER)
    is_made_of_nothing = sa.and_(sa.not_(is_packed()), sa.not_(is_restorable()))
    return sa.and_(_is_of_archived(), is_made_of_nothing, sa.or_(sa.not_(is_buffer), sa.not_(_has_sources())))


def _goes_astray() -> sa.ColumnElement[bool]:
    """What travels is looked at again where it arrives."""
    trip = models.DataTransfer
    travels = sa.exists().where(trip.id == _Archiving.data_transfer_id, trip.status.in_(LIVE_TRANSFER_STATUSES))
    takes_copies = sa.exists().where(_Location.id == _Archiving.destination_id, _TAKES_COPIES)
    return sa.and_(_is_of_archived(_lacks_in_some_archive()), sa.not_(takes_copies), sa.not_(travels))


def _is_of_archived(*also: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    archived = (_Package.id == _Archiving.raw_data_package_id, _Package.state == PackageState.ARCHIVED)
    return sa.exists().where(*archived, *also).correlate(_Archiving)


def can_be_made_anew(session: Session, archive_transfer_id: int) -> bool:
    """Whether there is something to make the tar of again that an archive transfer starts from."""
    of_package = sound_copies(_Archiving.raw_data_package_id).correlate(_Archiving).exists()
    there = sa.exists().where(_Archiving.id == archive_transfer_id, sa.or_(_has_sources(), of_package))
    return bool(session.scalar(sa.select(there)))


def _has_sources() -> sa.ColumnElement[bool]:
    """Condition on an archive transfer: all raw files of its package are at a SOURCE."""
    file = models.RawDataFile
    is_there = sa.exists().where(_Copy.raw_data_file_id == file.id, _Copy.status == PhysicalCopyStatus.PRESENT)
    lacks = sa.exists().where(file.raw_data_package_id == _Archiving.raw_data_package_id, sa.not_(is_there))
    return sa.not_(lacks.correlate(_Archiving))


def busy_archives(session: Session) -> Sequence[int]:
    """Archives that as many further copies are on their way to as may be at a time: new data would wait behind them."""
    further = (_Archiving.status.in_(LIVE_TRANSFER_STATUSES), _Package.state == PackageState.ARCHIVED)
    ways = sa.select(_Archiving.destination_id).join(_Package, _Package.id == _Archiving.raw_data_package_id)
    by_archive = ways.where(*further).group_by(_Archiving.destination_id)
    return session.scalars(by_archive.having(sa.func.count() >= MOST_UNDER_WAY)).all()


def _archives(session: Session, here: Map, *, leave_out: Collection[int]) -> Sequence[Archive]:
    """Archives that take copies, but for some."""
    takes_more = sa.and_(_TAKES_COPIES, _Location.id.not_in(leave_out))
    rows = session.execute(sa.select(_Location.id, _Location.priority, is_shut()).where(takes_more))
    return [Archive(place=here.places[number], priority=first, is_shut=shut) for number, first, shut in rows]


def _wish(session: Session, package_id: int, *, here: Map, archives: Sequence[Archive], heals: bool) -> Wish | None:
    """The next copy that a package wants; one that has enough, and `heals`, only where its copy is bad."""
    copies = session.execute(
        sa.select(_Copy.data_location_id, _Copy.status, _Location.location_type, is_away(for_long=AWAY_AFTER))
        .join(_Location, _Location.id == _Copy.data_location_id)
        .where(_Copy.raw_data_package_id == package_id, _Copy.status != PhysicalCopyStatus.DELETED)
    ).all()
    asked = sa.select(_Archiving.destination_id).where(
        _Archiving.raw_data_package_id == package_id, _Archiving.status.in_(_ASKED)
    )
    lost = {place for place, status, kind, _ in copies if status in _LOST and kind is LocationType.LONG_TERM_ARCHIVE}
    holdings = [
        Holding(place=here.places[place], type=kind)
        for place, status, kind, away in copies
        if status is PhysicalCopyStatus.PRESENT and kind in _ARE_READ and not away
    ]
    return next_copy(
        [one for one in archives if one.place.location_id in lost or not heals],
        holdings,
        taken={place for place, status, *_ in copies if status not in _NOT_THERE} | set(session.scalars(asked)),
        lost=lost,
        buffers=here.buffers,
        sources=_source_sites(session, package_id),
        leads=here.leads_to,
    )


def _source_sites(session: Session, package_id: int) -> set[int]:
    """Sites where raw files of a package are."""
    file = models.RawDataFile
    return set(
        session.scalars(
            sa.select(_Location.site_id)
            .join(_Copy, _Copy.data_location_id == _Location.id)
            .join(file, file.id == _Copy.raw_data_file_id)
            .where(file.raw_data_package_id == package_id, _Copy.status == PhysicalCopyStatus.PRESENT)
            .distinct()
        )
    )


def _ask(session: Session, wishes: Sequence[tuple[int, Wish]]) -> int:
    if not wishes:
        return 0
    rows = [
        {"raw_data_package_id": one, "origin_id": wish.origin_id, "destination_id": wish.archive_id}
        for one, wish in wishes
    ]
    new = insert(_Archiving).on_conflict_do_nothing(
        index_elements=["raw_data_package_id", "destination_id"], index_where=_LIVE
    )
    asked = session.scalars(new.returning(_Archiving.id), rows).all()
    announce(session, _Archiving, Status.PENDING)
    return len(asked)
