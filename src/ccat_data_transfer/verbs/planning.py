import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer import plan
from ccat_data_transfer.errors import NoLocation
from ccat_data_transfer.verbs.ways import the_map
from ccat_ops_db import models
from ccat_ops_db.moves import CHANNEL
from ccat_ops_db.states import STORAGES, LocationType, PackageState, PhysicalCopyStatus, Status

_File, _Scan, _Copy, _Location = (
    models.RawDataFile,
    models.ExecutedObsUnit,
    models.RawDataFilePhysicalCopy,
    models.DataLocation,
)
_Transfer = models.LongTermArchiveTransfer


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """All raw files that are in no package yet."""

    now: datetime
    """The database's clock when it was asked."""
    groups: Sequence[plan.UnpackedFiles]


def unpacked_files(session: Session) -> Unpacked:
    """What is to be packed, now or later, by scan and module."""
    of_scan = sa.orm.aliased(_File)
    registered = (
        sa.select(sa.func.count()).where(of_scan.executed_obs_unit_id == _Scan.id).correlate(_Scan).scalar_subquery()
    )
    rows = session.execute(
        sa.select(
            _Scan.id,
            _File.instrument_module_id,
            sa.func.max(_File.created_at),
            _Scan.ended_at.is_not(None),
            _Scan.expected_files,
            registered,
        )
        .join(_Scan, _Scan.id == _File.executed_obs_unit_id)
        .where(_File.raw_data_package_id.is_(None))
        .group_by(_Scan.id, _File.instrument_module_id)
        .order_by(_Scan.started_at, _Scan.id, _File.instrument_module_id)
    )
    groups = [
        plan.UnpackedFiles(
            scan_id=scan_id,
            module_id=module_id,
            last_file_at=last_file_at,
            scan_ended=ended,
            expected_files=expected,
            registered_files=count,
        )
        for scan_id, module_id, last_file_at, ended, expected, count in rows
    ]
    return Unpacked(now=session.scalars(sa.select(sa.func.clock_timestamp())).one(), groups=groups)


def plan_packages(
    session: Session, scan_id: uuid.UUID, module_id: int, *, limit_bytes: int = plan.PACKAGE_LIMIT_BYTES
) -> list[int]:
    """Put the unpacked files of a scan and module into new packages, each with its transfer into the archive.

    Returns the packages' ids: none where there are no such files, or somebody else plans this scan now. Raises
    NoLocation where there is no buffer or no archive.
    """
    scan = session.scalars(
        sa.select(_Scan).where(_Scan.id == scan_id).with_for_update(key_share=True, skip_locked=True)
    ).one_or_none()
    files = _files(session, scan_id, module_id) if scan is not None else []
    if scan is None or not files:
        return []
    module = session.get_one(models.InstrumentModule, module_id)
    first_part = 1 + _parts_so_far(session, scan_id, module_id)
    return [
        _add_package(session, scan, module, part=part, files=package)
        for part, package in enumerate(plan.divide(files, limit_bytes=limit_bytes), start=first_part)
    ]


def _files(session: Session, scan_id: uuid.UUID, module_id: int) -> list[plan.UnpackedFile]:
    source = (
        sa.select(sa.func.min(_Copy.data_location_id))
        .join(_Location, _Location.id == _Copy.data_location_id)
        .where(
            _Copy.raw_data_file_id == _File.id,
            _Copy.status != PhysicalCopyStatus.DELETED,
            _Location.location_type == LocationType.SOURCE,
        )
        .correlate(_File)
        .scalar_subquery()
    )
    rows = session.execute(
        sa.select(_File.id, _File.relative_path, _File.size_bytes, source).where(
            _File.executed_obs_unit_id == scan_id,
            _File.instrument_module_id == module_id,
            _File.raw_data_package_id.is_(None),
            source.is_not(None),
        )
    )
    return [plan.UnpackedFile(*row) for row in rows]


def _parts_so_far(session: Session, scan_id: uuid.UUID, module_id: int) -> int:
    highest = session.scalar(
        sa.select(sa.func.max(models.RawDataPackage.part)).where(
            models.RawDataPackage.executed_obs_unit_id == scan_id,
            models.RawDataPackage.instrument_module_id == module_id,
        )
    )
    return highest or 0


def _add_package(
    session: Session,
    scan: models.ExecutedObsUnit,
    module: models.InstrumentModule,
    *,
    part: int,
    files: Sequence[plan.UnpackedFile],
) -> int:
    name = plan.package_name(
        module.instrument.name, module.name, started_at=scan.started_at, scan_id=scan.id, part=part
    )
    package = models.RawDataPackage(
        executed_obs_unit_id=scan.id, instrument_module_id=module.id, part=part, name=name, state=PackageState.WAITING
    )
    session.add(package)
    session.flush()
    ids = sa.literal([file.id for file in files], sa.ARRAY(sa.Uuid()))  # there may be any number
    session.execute(sa.update(_File).where(_File.id == sa.any_(ids)).values(raw_data_package_id=package.id))
    buffer = _preferred(session, LocationType.BUFFER, session.get_one(_Location, files[0].location_id).site)
    session.add(
        models.LongTermArchiveTransfer(
            raw_data_package_id=package.id,
            origin_id=buffer.id,
            destination_id=_archive(session, buffer).id,
            status=Status.PENDING,
        )
    )
    announce(session, models.RawDataPackage, PackageState.WAITING)
    announce(session, models.LongTermArchiveTransfer, Status.PENDING)
    return package.id


def _archive(session: Session, buffer: models.DataLocation) -> models.DataLocation:
    """The preferred archive of the site whose turn it is, of those that can be got to: all get packages one by one."""
    of_archive = sa.select(sa.func.max(_Transfer.id)).where(_Transfer.destination_id == _Location.id)
    newest = sa.func.coalesce(of_archive.correlate(_Location).scalar_subquery(), 0)
    archives = _usable(LocationType.LONG_TERM_ARCHIVE).with_only_columns(_Location.id, _Location.site_id, newest)
    found = session.execute(archives.order_by(_Location.id)).all()
    here = the_map(session)
    reached = [row for row in found if here.leads_to(buffer.id, row[0])] or found
    if not reached:
        raise NoLocation(LocationType.LONG_TERM_ARCHIVE, "at any site")
    last = {site_id: max(number for _, site, number in reached if site == site_id) for _, site_id, _ in reached}
    in_turn = min(last, key=lambda site_id: (last[site_id], site_id))
    return _preferred(session, LocationType.LONG_TERM_ARCHIVE, session.get_one(models.Site, in_turn))


def _preferred(session: Session, location_type: LocationType, site: models.Site) -> models.DataLocation:
    """The active location with the highest priority that can be written at a site."""
    candidates = _usable(location_type).where(_Location.site_id == site.id)
    chosen = session.scalars(candidates.order_by(_Location.priority.desc(), _Location.id).limit(1)).one_or_none()
    if chosen is None:
        raise NoLocation(location_type, f"at site {site.short_name}")
    return chosen


def _usable(location_type: LocationType) -> sa.Select[models.DataLocation]:
    """Active locations that can be written."""
    return sa.select(_Location).where(
        _Location.location_type == location_type,
        _Location.storage_type.in_(STORAGES[location_type]),
        _Location.active,
    )


def announce(session: Session, noun: type[models.Base], status: PackageState | Status) -> None:
    """Wake whoever waits for new rows; those that move are announced by advance()."""
    session.execute(sa.select(sa.func.pg_notify(CHANNEL, f"{noun.__tablename__}:{status}")))
