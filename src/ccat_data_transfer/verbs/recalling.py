"""What the database knows of whatever the packages of an archive name."""

from collections.abc import Collection, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.adoption import Found, Known, KnownFile, KnownPackage, KnownScan, identifier
from ccat_ops_db import models
from ccat_ops_db.lookup import MODULE, OBS_UNIT, TELESCOPE, Named
from ccat_ops_db.states import PhysicalCopyStatus, Status

_Copy, _Package, _File, _Scan, _Way = (
    models.PhysicalCopy,
    models.RawDataPackage,
    models.RawDataFile,
    models.ExecutedObsUnit,
    models.LongTermArchiveTransfer,
)
NOT_THERE: Final = (PhysicalCopyStatus.WRITING, PhysicalCopyStatus.MISSING)
"""What copies are of which nobody knows that they are at an archive, and that may be found there."""
_UUID, _TEXT = sa.Uuid(), sa.Text()


def is_one_of(column: Any, values: Collection[Any], kind: sa.types.TypeEngine[Any]) -> sa.ColumnElement[bool]:
    """Condition: the column holds one of these values, of which there may be any number."""
    found: sa.ColumnElement[bool] = column == sa.any_(sa.literal(list(values), sa.ARRAY(kind)))
    return found


def known_at(session: Session, location_id: int, names: Collection[str]) -> set[str]:
    """Which of these packages are known to be at a location, or to have been found damaged there.

    One that is being written there at this moment counts too: whoever is at it says how that ends.
    """
    has_copy = sa.exists().where(
        _Copy.raw_data_package_id == _Package.id,
        _Copy.data_location_id == location_id,
        _Copy.status.not_in([*NOT_THERE, PhysicalCopyStatus.DELETED]),
    )
    is_written = sa.exists().where(
        _Way.raw_data_package_id == _Package.id,
        _Way.destination_id == location_id,
        _Way.status == Status.IN_PROGRESS,
        _Way.lease_until > sa.func.clock_timestamp(),
    )
    known = sa.select(_Package.name).where(is_one_of(_Package.name, names, _TEXT), sa.or_(has_copy, is_written))
    return set(session.scalars(known))


def recall(session: Session, found: Sequence[Found]) -> Known:
    """What there is of whatever these packages name: scans, packages, raw files, and what was planned."""
    known = Known(
        obs_units=_numbers(session, OBS_UNIT, {one.told.observation.obs_unit for one in found}),
        telescopes=_numbers(session, TELESCOPE, {one.told.instrument.telescope for one in found}),
        modules=_numbers(session, MODULE, {one.module for one in found}),
    )
    scan_ids = {one.scan_id for one in found}
    facts = sa.select(_Scan.id, _Scan.obs_unit_id, _Scan.telescope_id, _Scan.started_at)
    for scan_id, obs_unit_id, telescope_id, start in session.execute(facts.where(is_one_of(_Scan.id, scan_ids, _UUID))):
        known.scans[scan_id] = KnownScan(obs_unit_id, telescope_id, start)
    _recall_packages(session, known, {one.name for one in found})
    settled = {name for name, package in known.packages.items() if package.checksum is not None}
    _recall_files(session, known, [one for one in found if one.name not in settled])
    return known


def _numbers(session: Session, named: Named[Any], names: Collection[str]) -> dict[str, int]:
    noun = named.rows.column_descriptions[0]["entity"]
    rows = named.rows.with_only_columns(named.label, noun.id)
    return dict(session.execute(rows.where(is_one_of(named.label, names, _TEXT))).all())


def _recall_packages(session: Session, known: Known, names: Collection[str]) -> None:
    columns = (_Package.executed_obs_unit_id, _Package.instrument_module_id, _Package.part, _Package.checksum)
    of_scans = is_one_of(_Package.executed_obs_unit_id, known.scans, _UUID)
    is_named = is_one_of(_Package.name, names, _TEXT)
    rows = session.execute(sa.select(_Package.id, _Package.name, *columns).where(sa.or_(of_scans, is_named)))
    for number, name, scan_id, module_id, part, checksum in rows:
        known.add_package(KnownPackage(number, name, (scan_id, module_id), part, checksum))


def _recall_files(session: Session, known: Known, found: Sequence[Found]) -> None:
    ids = [identifier(one.scan_id, file) for one in found for file in one.told.files]
    of_scans = is_one_of(_File.executed_obs_unit_id, {one.scan_id for one in found} & known.scans.keys(), _UUID)
    columns = (_File.executed_obs_unit_id, _File.instrument_module_id, _File.relative_path)
    rows = session.execute(
        sa.select(_File.id, *columns, _File.size_bytes, _File.checksum, _Package.name)
        .outerjoin(_Package, _Package.id == _File.raw_data_package_id)
        .where(sa.or_(of_scans, is_one_of(_File.id, ids, _UUID)))
    )
    for identity, scan_id, module_id, path, size_bytes, checksum, package in rows:
        known.add_file(KnownFile(identity, (scan_id, module_id), path, (size_bytes, checksum), package))
