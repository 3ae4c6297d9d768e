"""Registered files become packages: of any number of scans and modules with a handful of statements."""

import uuid
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer import plan
from ccat_data_transfer.verbs.addressing import Addresses
from ccat_ops_db import models
from ccat_ops_db.moves import CHANNEL
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import LocationType, PackageState, PhysicalCopyStatus, Status

_File, _Scan, _Copy, _Location = (
    models.RawDataFile,
    models.ExecutedObsUnit,
    models.RawDataFilePhysicalCopy,
    models.DataLocation,
)
_Package, _Transfer = models.RawDataPackage, models.LongTermArchiveTransfer
_IS_UNPACKED: Final = sa.and_(_File.raw_data_package_id.is_(None), _File.lost_at.is_(None))


def _given(name: str, **kinds: sa.types.TypeEngine[Any]) -> sa.TableValuedAlias:
    """A table of values, whose columns are arrays that are brought along."""
    arrays = (sa.bindparam(column, type_=sa.ARRAY(kind)) for column, kind in kinds.items())
    columns = (sa.column(column, kind) for column, kind in kinds.items())
    return sa.func.unnest(*arrays).table_valued(*columns, name=name).render_derived()


_GROUPS: Final = _given("planned", scan_id=sa.Uuid(), module_id=sa.BigInteger())
_PLACED: Final = _given("placed", file_id=sa.Uuid(), package_id=sa.BigInteger())
_SOURCE: Final = (
    sa.select(sa.func.min(_Copy.data_location_id).label("location_id"))
    .join(_Location, _Location.id == _Copy.data_location_id)
    .where(
        _Copy.raw_data_file_id == _File.id,
        _Copy.status != PhysicalCopyStatus.DELETED,
        _Location.location_type == LocationType.SOURCE,
    )
    .lateral("source")
)
_FILES: Final = (
    sa.select(
        _GROUPS.c.scan_id,
        _GROUPS.c.module_id,
        _File.id,
        _File.relative_path,
        _File.size_bytes,
        _SOURCE.c.location_id,
    )
    .select_from(_GROUPS)
    .join(
        _File,
        sa.and_(
            _File.executed_obs_unit_id == _GROUPS.c.scan_id,
            _File.instrument_module_id == _GROUPS.c.module_id,
            _IS_UNPACKED,
        ),
    )
    .join(_SOURCE, _SOURCE.c.location_id.is_not(None))
)
_PARTS: Final = (
    sa.select(_GROUPS.c.scan_id, _GROUPS.c.module_id, sa.func.max(_Package.part))
    .join(
        _Package,
        sa.and_(
            _Package.executed_obs_unit_id == _GROUPS.c.scan_id, _Package.instrument_module_id == _GROUPS.c.module_id
        ),
    )
    .group_by(_GROUPS.c.scan_id, _GROUPS.c.module_id)
)
_PLACE: Final = sa.update(_File).where(_File.id == _PLACED.c.file_id).values(raw_data_package_id=_PLACED.c.package_id)
_ADD_PACKAGES: Final = sa.insert(_Package).returning(_Package.id, sort_by_parameter_order=True)
_ADD_TRANSFERS: Final = sa.insert(_Transfer).returning(_Transfer.id, sort_by_parameter_order=True)


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
    waiting = (
        sa.select(
            _File.executed_obs_unit_id.label("scan_id"),
            _File.instrument_module_id.label("module_id"),
            sa.func.count().label("number"),
            sa.func.max(_File.created_at).label("last_file_at"),
        )
        .where(_IS_UNPACKED)
        .group_by(_File.executed_obs_unit_id, _File.instrument_module_id)
        .subquery()
    )
    rows = session.execute(
        sa.select(waiting, _Scan.ended_at.is_not(None), _Scan.expected_files, registered)
        .join(_Scan, _Scan.id == waiting.c.scan_id)
        .order_by(_Scan.started_at, _Scan.id, waiting.c.module_id)
    )
    groups = [
        plan.UnpackedFiles(
            group=(scan_id, module_id),
            number=number,
            last_file_at=last_file_at,
            scan_ended=ended,
            expected_files=expected,
            registered_files=count,
        )
        for scan_id, module_id, number, last_file_at, ended, expected, count in rows
    ]
    return Unpacked(now=session.scalars(sa.select(sa.func.clock_timestamp())).one(), groups=groups)


def next_quiet(session: Session, quiet_period: timedelta) -> datetime | None:
    """When nothing came for the quiet period to the first scan and module that are not quiet yet."""
    last = (
        sa.select(sa.func.max(_File.created_at).label("file_at"))
        .where(_IS_UNPACKED)
        .group_by(_File.executed_obs_unit_id, _File.instrument_module_id)
        .subquery()
    )
    first = sa.select(sa.func.min(last.c.file_at)).where(last.c.file_at > sa.func.clock_timestamp() - quiet_period)
    found: datetime | None = session.scalars(first).one()
    return found and found + quiet_period


def plan_packages(
    session: Session, groups: Collection[plan.Group], *, limit_bytes: int = plan.PACKAGE_LIMIT_BYTES
) -> list[int]:
    """Put the unpacked files of scans and modules into new packages, each with its transfer into the archive.

    Returns the packages' ids, in the order of the groups: none of those that have no such files, or whose scan somebody
    else plans now. Raises NoLocation where there is no buffer or no archive for one of them.
    """
    starts = _lock(session, {scan_id for scan_id, _ in groups})
    new = _divide(session, [group for group in groups if group[0] in starts], limit_bytes=limit_bytes)
    if not new:
        return []
    addresses, names = Addresses(session), _names(session, new, starts)
    ways = [addresses.of(one.files[0].location_id) for one in new]
    packages = [one.row(name) for one, name in zip(new, names, strict=True)]
    ids = list(session.scalars(_ADD_PACKAGES, packages))
    _place(session, {file.id: id_ for id_, one in zip(ids, new, strict=True) for file in one.files})
    transfers = [_transfer(id_, *way) for id_, way in zip(ids, ways, strict=True)]
    session.scalars(_ADD_TRANSFERS, transfers)
    announce(session, _Package, PackageState.WAITING)
    announce(session, _Transfer, Status.PENDING)
    return ids


@dataclass(frozen=True, kw_only=True)
class _New:
    """A package that is to be."""

    scan_id: uuid.UUID
    module_id: int
    part: int
    files: Sequence[plan.UnpackedFile]

    def row(self, name: str) -> dict[str, Any]:
        return {
            "executed_obs_unit_id": self.scan_id,
            "instrument_module_id": self.module_id,
            "part": self.part,
            "name": name,
            "state": PackageState.WAITING,
        }


def _lock(session: Session, scan_ids: Collection[uuid.UUID]) -> Mapping[uuid.UUID, datetime]:
    """When scans started; those that somebody else plans now are left out."""
    wanted = _Scan.id == sa.any_(sa.literal(sorted(scan_ids), sa.ARRAY(sa.Uuid)))
    found = sa.select(_Scan.id, _Scan.started_at).where(wanted).order_by(_Scan.id)
    return dict(session.execute(found.with_for_update(key_share=True, skip_locked=True)).all())


def _divide(session: Session, groups: Collection[plan.Group], *, limit_bytes: int) -> list[_New]:
    """The packages of each group, whose parts follow those that are there."""
    given = {"scan_id": [scan_id for scan_id, _ in groups], "module_id": [module_id for _, module_id in groups]}
    files: defaultdict[plan.Group, list[plan.UnpackedFile]] = defaultdict(list)
    for scan_id, module_id, *file in session.execute(_FILES, given):
        files[scan_id, module_id].append(plan.UnpackedFile(*file))
    parts = {(scan_id, module_id): part for scan_id, module_id, part in session.execute(_PARTS, given)}
    return [
        _New(scan_id=group[0], module_id=group[1], part=part, files=package)
        for group in groups
        for part, package in enumerate(plan.divide(files[group], limit_bytes=limit_bytes), 1 + parts.get(group, 0))
    ]


def _names(session: Session, new: Collection[_New], starts: Mapping[uuid.UUID, datetime]) -> list[str]:
    module, instrument = models.InstrumentModule, models.Instrument
    rows = session.execute(
        sa.select(module.id, instrument.name, module.name)
        .join(module.instrument)
        .where(is_among(module.id, [one.module_id for one in new]))
    )
    names = {module_id: both for module_id, *both in rows}
    return [
        plan.package_name(*names[one.module_id], started_at=starts[one.scan_id], scan_id=one.scan_id, part=one.part)
        for one in new
    ]


def _place(session: Session, packages: Mapping[uuid.UUID, int]) -> None:
    """Put files into packages."""
    given = {"file_id": list(packages), "package_id": list(packages.values())}
    session.execute(_PLACE, given, execution_options={"synchronize_session": False})


def _transfer(package_id: int, buffer_id: int, archive_id: int) -> dict[str, Any]:
    return {
        "raw_data_package_id": package_id,
        "origin_id": buffer_id,
        "destination_id": archive_id,
        "status": Status.PENDING,
    }


def announce(session: Session, noun: type[models.Base], status: PackageState | Status) -> None:
    """Wake whoever waits for new rows; those that move are announced by advance()."""
    session.execute(sa.select(sa.func.pg_notify(CHANNEL, f"{noun.__tablename__}:{status}")))
