"""Packages that an archive has, and that are not known here, are taken up: as after the restore of an old backup.

Their copies count for nothing until the workers of the archive have read them, as all archive copies of a backup.
"""

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ccat_data_transfer.adoption import Accepted, Found, Refused, identifier, judge
from ccat_data_transfer.verbs.copies import NOBODYS
from ccat_data_transfer.verbs.recalling import NOT_THERE, is_one_of, recall
from ccat_ops_db import models
from ccat_ops_db.moves import CHANNEL, advance
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import LIVE_TRANSFER_STATUSES, PackageState, PhysicalCopyStatus, Status
from ccat_ops_db.verbs.file_numbers import note_lack

_Copy, _Package, _File, _Scan, _Way = (
    models.RawDataPackagePhysicalCopy,
    models.RawDataPackage,
    models.RawDataFile,
    models.ExecutedObsUnit,
    models.LongTermArchiveTransfer,
)
_NOW: Final = sa.func.clock_timestamp()
_BECAUSE: Final = "the archive has it, as was found when it was looked through"
_AT_THIS_MOMENT: Final = "its scan is recorded at this moment by somebody else: adopt again"
_NEW_PACKAGES: Final = sa.insert(_Package).returning(_Package.id, sort_by_parameter_order=True)
_ENDED: Final = f"{_Scan.__tablename__}:ended"


@dataclass(frozen=True)
class Adopted:
    """Names of the packages that were taken up, or would be, and what is not."""

    packages: Sequence[str]
    refused: Sequence[Refused]


def would_adopt(session: Session, found: Sequence[Found]) -> Adopted:
    """What `adopt` would do, of which nothing is done."""
    accepted, refused = _judge(session, found)
    return Adopted([one.found.name for one in accepted], refused)


def adopt(session: Session, found: Sequence[Found], location_id: int, *, by: str) -> Adopted:
    """Take up all packages of an archive that may be; what is known already is changed by none of them."""
    scan_ids = {one.scan_id for one in found}
    recorded = _hold(session, scan_ids)
    accepted, refused = _judge(session, found)
    there = recorded | _add_scans(session, [one for one in accepted if one.found.scan_id not in recorded])
    late = [Refused(one.found.path, _AT_THIS_MOMENT) for one in accepted if one.found.scan_id not in there]
    taken = [one for one in accepted if one.found.scan_id in there]
    if taken:
        _tell_scans(session, taken)
        packages = _add_packages(session, taken)
        _add_files(session, taken, packages)
        _add_lost_files(session, taken, packages)
        note_lack(session, {one.found.scan_id for one in taken})
        _add_copies(session, taken, packages, location_id=location_id, by=by)
        _call_archived(session, packages.values(), location_id, by=by)
    return Adopted([one.found.name for one in taken], [*refused, *late])


def _hold(session: Session, scan_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Scans that are recorded; nobody registers files of them, or plans packages, before the transaction is over."""
    held = sa.select(_Scan.id).where(is_one_of(_Scan.id, scan_ids, sa.Uuid())).order_by(_Scan.id)
    return set(session.scalars(held.with_for_update()))


def _judge(session: Session, found: Sequence[Found]) -> tuple[list[Accepted], list[Refused]]:
    verdicts = judge(found, recall(session, found))
    accepted = [one for one in verdicts if isinstance(one, Accepted)]
    return accepted, [one for one in verdicts if isinstance(one, Refused)]


def _add_scans(session: Session, accepted: Iterable[Accepted]) -> set[uuid.UUID]:
    """Record scans; those of which nobody else did so meanwhile."""
    rows = {
        one.found.scan_id: {
            "id": one.found.scan_id,
            "obs_unit_id": one.obs_unit_id,
            "telescope_id": one.telescope_id,
            "started_at": one.found.told.observation.start,
            "observing_night": one.found.told.observation.observing_night,
        }
        for one in accepted
    }
    new = insert(_Scan).on_conflict_do_nothing().returning(_Scan.id)
    return set(session.scalars(new, list(rows.values()))) if rows else set()


def _tell_scans(session: Session, taken: Iterable[Accepted]) -> None:
    """Record of scans what nobody has told here: their ends, numbers of files, and conditions."""
    told = [one.found.told.observation for one in taken]
    ends: dict[uuid.UUID, datetime] = {one.id: one.end for one in told if one.end is not None}
    numbers = {one.id: one.expected_files for one in told if one.expected_files is not None}
    conditions = {one.id: one.conditions for one in told if one.conditions}
    for scan in session.scalars(sa.select(_Scan).where(is_one_of(_Scan.id, {one.id for one in told}, sa.Uuid()))):
        scan.ended_at = scan.ended_at or ends.get(scan.id)
        scan.expected_files = numbers.get(scan.id) if scan.expected_files is None else scan.expected_files
        scan.conditions = scan.conditions or conditions.get(scan.id, {})
    session.flush()
    session.execute(sa.select(sa.func.pg_notify(CHANNEL, _ENDED)))


def _add_packages(session: Session, taken: Sequence[Accepted]) -> dict[str, int]:
    """Ids of the packages by their names; new ones are recorded, and known ones are packed by now."""
    new = [one for one in taken if one.package_id is None]
    ids = list(session.scalars(_NEW_PACKAGES, [_package(one) for one in new])) if new else []
    packed = {one.package_id: one.found.told.tar for one in taken if one.package_id is not None}
    unpacked = sa.select(_Package).where(is_among(_Package.id, packed), _Package.checksum.is_(None))
    for package in session.scalars(unpacked.order_by(_Package.id).with_for_update()):
        tar = packed[package.id]
        package.size_bytes, package.checksum = tar.size_bytes, tar.checksum
    session.flush()
    known = {one.found.name: one.package_id for one in taken if one.package_id is not None}
    return known | {one.found.name: id_ for one, id_ in zip(new, ids, strict=True)}


def _package(one: Accepted) -> dict[str, Any]:
    told = one.found.told
    return {
        "executed_obs_unit_id": one.found.scan_id,
        "instrument_module_id": one.module_id,
        "part": told.package.part,
        "name": told.package.name,
        "state": PackageState.WAITING,
        "size_bytes": told.tar.size_bytes,
        "checksum": told.tar.checksum,
        "metadata_": told.package.metadata,
    }


def _add_files(session: Session, taken: Iterable[Accepted], packages: Mapping[str, int]) -> None:
    """Record the raw files of packages; those that are known, and in none so far, are put into theirs."""
    rows = [
        {
            "id": identity,
            "executed_obs_unit_id": one.found.scan_id,
            "instrument_module_id": one.module_id,
            "raw_data_package_id": packages[one.found.name],
            "relative_path": file.path,
            "size_bytes": file.size_bytes,
            "checksum": file.checksum,
        }
        for one in taken
        for identity, file in one.files.items()
    ]
    new = insert(_File)
    is_there = [_File.executed_obs_unit_id, _File.instrument_module_id, _File.relative_path]
    known_again = {"lost_at": None, "lost_because": None, "lost_from_id": None}  # what was lost is in the archive
    into = {"raw_data_package_id": new.excluded.raw_data_package_id, **known_again}
    placed = new.on_conflict_do_update(index_elements=is_there, set_=into, where=_File.raw_data_package_id.is_(None))
    session.scalars(placed.returning(_File.id), rows).all()  # with one statement for many, as triggers look at each


def _add_lost_files(session: Session, taken: Iterable[Accepted], packages: Mapping[str, int]) -> None:
    """Record the raw files that packages were built without, where nobody knows them."""
    rows = [
        {
            "id": identifier(one.found.scan_id, file),
            "executed_obs_unit_id": one.found.scan_id,
            "instrument_module_id": one.module_id,
            "relative_path": file.path,
            "size_bytes": file.size_bytes,
            "checksum": file.checksum,
            "lost_from_id": packages[one.found.name],
            "lost_at": file.lost_at,
            "lost_because": file.because,
        }
        for one in taken
        for file in one.found.told.lost_files
    ]
    if rows:
        session.scalars(insert(_File).on_conflict_do_nothing().returning(_File.id), rows).all()


def _add_copies(
    session: Session, taken: Iterable[Accepted], packages: Mapping[str, int], *, location_id: int, by: str
) -> None:
    here = sa.and_(_Copy.data_location_id == location_id, is_among(_Copy.raw_data_package_id, packages.values()))
    before = session.scalars(sa.select(_Copy.id).where(here, _Copy.status.in_(NOT_THERE))).all()
    gone = PhysicalCopyStatus.DELETED
    advance(session, models.PhysicalCopy, before, to=gone, because=_BECAUSE, by=by, values=NOBODYS)
    rows = [
        {
            "type": "raw_data_package",
            "raw_data_package_id": packages[one.found.name],
            "data_location_id": location_id,
            "path": one.found.path,
            "size_bytes": one.found.size_bytes,
            "checksum": one.found.told.tar.checksum,
            "mtime_ns": one.found.seal.mtime_ns,
            "inode": one.found.seal.inode,
        }
        for one in taken
    ]
    copies = session.scalars(sa.insert(_Copy).returning(_Copy.id), rows).all()
    advance(session, models.PhysicalCopy, copies, to=PhysicalCopyStatus.PRESENT, because=_BECAUSE, by=by)


def _call_archived(session: Session, package_ids: Collection[int], location_id: int, *, by: str) -> None:
    """Packages are archived, and nobody copies them into this archive any more."""
    archived = {"archived_at": _NOW, "failure": None}
    advance(session, _Package, package_ids, to=PackageState.TRANSFERRING, because=_BECAUSE, by=by)
    advance(session, _Package, package_ids, to=PackageState.ARCHIVED, because=_BECAUSE, by=by, values=archived)
    to_here = (is_among(_Way.raw_data_package_id, package_ids), _Way.destination_id == location_id)
    asked = sa.select(_Way.id).where(*to_here, _Way.status.in_([*LIVE_TRANSFER_STATUSES, Status.FAILED]))
    ways = session.scalars(asked).all()
    advance(session, _Way, ways, to=Status.PENDING, expected=[Status.FAILED], because=_BECAUSE, by=by)
    advance(session, _Way, ways, to=Status.CANCELLED, because=_BECAUSE, by=by)
