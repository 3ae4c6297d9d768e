"""What an instrument tells the operations database: a scan starts, writes files, ends.

Every verb is idempotent by the identifiers that the instrument made: telling the same twice changes nothing, telling
something else under a used identifier is refused.
"""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.lookup import LOCATION, MODULE, OBS_UNIT, SOURCE_LOCATION, TELESCOPE, find
from ccat_ops_db.moves import CHANNEL, advance
from ccat_ops_db.nights import observing_night
from ccat_ops_db.plan.names import is_reserved
from ccat_ops_db.states import LocationType, PhysicalCopyStatus
from ccat_ops_db.verbs.file_numbers import correct_number, note_lack

_FILE_FACTS: Final = {
    "scan": "executed_obs_unit_id",
    "module": "instrument_module_id",
    "path": "relative_path",
}
"""What a raw file is told with, and the column that records it."""
_NUMBER: Final = "number of files"
_REMEDIES: Final = {_NUMBER: "If the first was wrong, `ccat scan correct SCAN --files NUMBER` corrects it"}
"""Fact → what to do where it is told otherwise; else what is told is something new."""
_IS_LIVE_FILE: Final = sa.text("physical_copy.raw_data_file_id IS NOT NULL AND physical_copy.status <> 'deleted'")
"""As the index of paths at a source says it."""
_LOCK: Final = 0x66696C65
"""Key of the locks, one for each location, that let one register files there after the other."""


class RegisteredOtherwise(CcatError):
    """A raw file was registered with another size or checksum."""

    code = "registered_otherwise"

    def __init__(self, path: str, *, recorded: str, told: str, is_packed: bool) -> None:
        remedy = (
            "it is packed already: register what is right as a file of another name"
            if is_packed
            else "if it was registered before it was complete, `ccat scan add --replace` corrects that"
        )
        super().__init__(
            f"Raw file {path} is registered with {recorded}, now told {told}; {remedy}. Nothing was changed."
        )


class Contradiction(CcatError):
    """The same identifier was used before for something else."""

    code = "contradiction"

    def __init__(self, what: str, identifier: uuid.UUID, field: str, *, recorded: object, told: object) -> None:
        super().__init__(
            f"{what} {identifier} is recorded with {field} {recorded}, now told {told}. "
            f"{_REMEDIES.get(field, 'Use a new identifier for something new')}; nothing was changed."
        )


class UnknownScan(CcatError):
    """A scan was named that was never started."""

    code = "unknown_scan"

    def __init__(self, scan_id: uuid.UUID) -> None:
        super().__init__(f"There is no scan {scan_id}; record its start first (`ccat scan start`).")


class TelescopeNotSaid(CcatError):
    """No telescope was named, and there is not exactly one."""

    code = "telescope_not_said"

    def __init__(self, telescopes: Sequence[str]) -> None:
        names = ", ".join(f"`{name}`" for name in sorted(telescopes))
        super().__init__(
            f"Several telescopes are known, say which one executes the scan: {names}."
            if telescopes
            else "There is no telescope yet; `opsdb_init` records those of the observatory."
        )


class EndsBeforeStart(CcatError):
    """A scan was told to have ended before it started."""

    code = "ends_before_start"

    def __init__(self, scan_id: uuid.UUID, *, started_at: datetime, ended_at: datetime) -> None:
        super().__init__(
            f"Scan {scan_id} cannot end at {ended_at}: it started at {started_at}. Check the clock of the instrument."
        )


class NotASource(CcatError):
    """Raw files were said to be where no instrument writes."""

    code = "not_a_source"

    def __init__(self, location: str, location_type: LocationType) -> None:
        super().__init__(
            f"`{location}` is a {location_type} location; raw files are registered at the source location "
            "that their instrument wrote them to."
        )


class PathTaken(CcatError):
    """Another raw file of the same scan and module has this path."""

    code = "path_taken"

    def __init__(self, path: str, identifier: uuid.UUID) -> None:
        super().__init__(
            f"Raw file {identifier} cannot have the path {path}: another raw file of the same scan and module has it. "
            "Register a file again under the identifier that it got first; nothing was changed."
        )


class OfAnotherScan(CcatError):
    """Raw files lie where others of the same bytes are registered: they are the files of another scan."""

    code = "of_another_scan"

    def __init__(self, path: str, scan_id: uuid.UUID, *, location: str, more: int) -> None:
        others = f", as are {more:,} more that were told now" if more else ""
        super().__init__(
            f"Raw file {path} at {location} is registered already with the same bytes, for scan {scan_id}{others}. "
            "Check the scan and the files; `ccat scan add --again` registers what does belong to both. "
            "Nothing was registered."
        )


class NameReserved(CcatError):
    """A raw file is called like what data transfer removes as the rest of an unfinished file."""

    code = "name_reserved"

    def __init__(self, path: str) -> None:
        super().__init__(
            f"A raw file cannot have the path {path}: what is called so is removed as the rest of an unfinished file. "
            "Give it a name that does not end in `.partial-` or `.removed-`, a number and hexadecimal digits; nothing "
            "was registered."
        )


@dataclass(frozen=True)
class NewFile:
    """A raw file as its instrument describes it."""

    id: uuid.UUID
    relative_path: str
    """Path below the root of the source location."""
    size_bytes: int
    checksum: str
    """`sha256:` and 64 hexadecimal digits, computed where the file was written."""


def start_scan(
    session: Session,
    scan_id: uuid.UUID,
    obs_unit: str,
    *,
    started_at: datetime,
    telescope: str | None = None,
    conditions: dict[str, Any] | None = None,
) -> models.ExecutedObsUnit:
    """Record that a planned observation began to be executed; `telescope` may be left out where there is only one."""
    planned = find(session, OBS_UNIT, obs_unit)
    where = _only_telescope(session) if telescope is None else find(session, TELESCOPE, telescope)
    session.execute(
        insert(models.ExecutedObsUnit)
        .values(
            id=scan_id,
            obs_unit_id=planned.id,
            telescope_id=where.id,
            started_at=started_at,
            observing_night=observing_night(started_at, where.observatory.longitude_deg),
            conditions=conditions or {},
        )
        .on_conflict_do_nothing(index_elements=["id"])
    )
    scan = session.get_one(models.ExecutedObsUnit, scan_id)
    facts = {
        "observation": (scan.obs_unit.name, planned.name),
        "telescope": (scan.telescope.name, where.name),
        "start": (scan.started_at, started_at),
        "conditions": (scan.conditions or None, conditions),
    }
    _agree("Scan", scan_id, facts)
    scan.conditions = scan.conditions or conditions or {}
    return scan


@dataclass(frozen=True)
class Added:
    """How many raw files were new, and how many were corrected."""

    new: int
    replaced: int


def add_files(
    session: Session,
    scan_id: uuid.UUID,
    files: Sequence[NewFile],
    *,
    module: str,
    location: str,
    replace: bool = False,
    again: bool = False,
    by: str,
) -> Added:
    """Record raw files that a module wrote to a SOURCE location.

    `module` is `Instrument/Module`, `location` is `site/name`. With `replace`, what was registered before with another
    size or checksum, and is not packed yet, is corrected; raises RegisteredOtherwise without. With `again` files may
    belong to two scans; raises OfAnotherScan without. Raises NameReserved, and Contradiction and PathTaken where an
    identifier or a path was used for something else. Nobody else registers files there before the transaction is over.
    """
    for file in files:
        if is_reserved(file.relative_path):
            raise NameReserved(file.relative_path)
    scan, source = _scan(session, scan_id), source_location(session, location)
    session.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK, source.id)))  # before any lock of rows
    owner = {"executed_obs_unit_id": scan.id, "instrument_module_id": find(session, MODULE, module).id}
    rows = [owner | asdict(file) for file in files]
    statement = insert(models.RawDataFile).on_conflict_do_nothing().returning(models.RawDataFile.id)
    new = set(session.scalars(statement, rows)) if rows else set()
    replaced = _reconcile(session, rows, replace=replace, by=by)
    unseen_ids = new | _without_copies(session, {file.id for file in files} - new)
    unseen = {file.id: file for file in files if file.id in unseen_ids}
    if not again:
        _require_no_other_owner(session, unseen, source, location=location)
    _register_copies(session, unseen.values(), source.id, by=by)
    note_lack(session, {scan.id})
    return Added(len(new), replaced)


def finish_scan(session: Session, scan_id: uuid.UUID, *, ended_at: datetime, expected_files: int | None = None) -> None:
    """Record the end of a scan and, as soon as the instrument knows it, the number of files that belong to it."""
    scan = _scan(session, scan_id, for_update=True)
    facts = {"end": (scan.ended_at, ended_at), _NUMBER: (scan.expected_files, expected_files)}
    _agree("Scan", scan_id, facts)
    if ended_at < scan.started_at:
        raise EndsBeforeStart(scan_id, started_at=scan.started_at, ended_at=ended_at)
    scan.ended_at = ended_at
    scan.expected_files = scan.expected_files if expected_files is None else expected_files
    session.flush()
    note_lack(session, {scan_id})
    session.execute(sa.select(sa.func.pg_notify(CHANNEL, "executed_obs_unit:ended")))


def correct_scan(session: Session, scan_id: uuid.UUID, *, files: int, because: str, by: str) -> bool:
    """Say how many raw files belong to a scan, where a wrong number was told; see `correct_number`."""
    return correct_number(session, _scan(session, scan_id, for_update=True), files, because=because, by=by)


def _scan(session: Session, scan_id: uuid.UUID, *, for_update: bool = False) -> models.ExecutedObsUnit:
    scan = session.get(models.ExecutedObsUnit, scan_id, with_for_update=for_update, populate_existing=for_update)
    if scan is None:
        raise UnknownScan(scan_id)
    return scan


def source_location(session: Session, name: str) -> models.DataLocation:
    """The location where an instrument writes, by `site/name`; raises NotASource, or UnknownName with the nearest."""
    other = session.scalars(LOCATION.rows.where(LOCATION.label == name)).one_or_none()
    if other is not None and other.location_type is not LocationType.SOURCE:
        raise NotASource(name, other.location_type)
    return find(session, SOURCE_LOCATION, name)


def _only_telescope(session: Session) -> models.Telescope:
    telescopes = session.scalars(sa.select(models.Telescope)).all()
    if len(telescopes) != 1:
        raise TelescopeNotSaid([telescope.name for telescope in telescopes])
    return telescopes[0]


def _agree(what: str, identifier: uuid.UUID, facts: Mapping[str, tuple[object, object]]) -> None:
    """Refuse what differs from what is recorded; silence, on either side, contradicts nothing."""
    for field, (recorded, told) in facts.items():
        if None not in (recorded, told) and recorded != told:
            raise Contradiction(what, identifier, field, recorded=recorded, told=told)


def _reconcile(session: Session, rows: Collection[Mapping[str, Any]], *, replace: bool, by: str) -> int:
    """Compare what is told with what is recorded, and return how many files were corrected."""
    told = sa.literal([row["id"] for row in rows], sa.ARRAY(sa.Uuid))
    files = session.scalars(sa.select(models.RawDataFile).where(models.RawDataFile.id == sa.any_(told)))
    recorded = {file.id: file for file in files}
    replaced = 0
    for row in rows:
        file = recorded.get(row["id"])
        if file is None:
            raise PathTaken(row["relative_path"], row["id"])
        facts = {fact: (getattr(file, column), row[column]) for fact, column in _FILE_FACTS.items()}
        _agree("Raw file", row["id"], facts)
        if (file.size_bytes, file.checksum) != (row["size_bytes"], row["checksum"]):
            _correct(session, file, row, allowed=replace, by=by)
            replaced += 1
    return replaced


def _correct(session: Session, file: models.RawDataFile, told: Mapping[str, Any], *, allowed: bool, by: str) -> None:
    """Give a file that is not packed yet another size and checksum, and say in the audit who did."""
    package = models.RawDataPackage
    packed = session.scalar(
        sa.select(package.checksum.is_not(None)).where(package.id == file.raw_data_package_id).with_for_update()
    )
    before, after = _content(file.size_bytes, file.checksum), _content(told["size_bytes"], told["checksum"])
    if packed or not allowed:
        raise RegisteredOtherwise(file.relative_path, recorded=before, told=after, is_packed=bool(packed))
    file.size_bytes, file.checksum = told["size_bytes"], told["checksum"]
    detail = {"before": before, "after": after, "by": by}
    session.add(models.AuditEntry(action="replace", resource="raw_data_file", resource_id=str(file.id), detail=detail))


def _content(size_bytes: int, checksum: str) -> str:
    return f"{size_bytes} bytes, {checksum}"


def _without_copies(session: Session, file_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Raw files of which no copy was ever known where they were written: they were adopted from an archive."""
    if not file_ids:
        return set()
    file, copy = models.RawDataFile, models.PhysicalCopy
    told = file.id == sa.any_(sa.literal(list(file_ids), sa.ARRAY(sa.Uuid)))
    has_copy = sa.exists().where(copy.raw_data_file_id == file.id)
    return set(session.scalars(sa.select(file.id).where(told, sa.not_(has_copy))))


def _require_no_other_owner(
    session: Session, files: Mapping[uuid.UUID, NewFile], source: models.DataLocation, *, location: str
) -> None:
    """Raise OfAnotherScan where what lies at the same path is registered with the same bytes: other bytes are new."""
    told = {(file.relative_path, file.checksum) for file in files.values()}
    file, copy = models.RawDataFile, models.PhysicalCopy
    registered = session.execute(
        sa.select(copy.path, file.checksum, file.executed_obs_unit_id)
        .join(file, file.id == copy.raw_data_file_id)
        .where(copy.data_location_id == source.id, _IS_LIVE_FILE)
        .where(copy.path == sa.any_(sa.literal(sorted({path for path, _ in told}), sa.ARRAY(sa.Text))))
        .where(file.id != sa.all_(sa.literal(list(files), sa.ARRAY(sa.Uuid))))
        .order_by(copy.path, copy.id.desc())
    )
    owners: dict[str, uuid.UUID] = {}
    for path, checksum, scan_id in registered:
        if (path, checksum) in told:
            owners.setdefault(path, scan_id)
    if owners:
        path, scan_id = next(iter(owners.items()))
        raise OfAnotherScan(path, scan_id, location=location, more=len(owners) - 1)


def _register_copies(session: Session, files: Collection[NewFile], location_id: int, *, by: str) -> None:
    if not files:
        return
    rows = [
        {
            "type": "raw_data_file",
            "raw_data_file_id": file.id,
            "data_location_id": location_id,
            "path": file.relative_path,
            "size_bytes": file.size_bytes,
        }
        for file in files
    ]
    copies = session.scalars(insert(models.PhysicalCopy).returning(models.PhysicalCopy.id), rows).all()
    advance(
        session,
        models.PhysicalCopy,
        copies,
        to=PhysicalCopyStatus.PRESENT,
        because="registered by its instrument",
        by=by,
    )
