"""Raw files that a person knows to be lost: their package is built of the rest, and a file that is found again is kept.

What is lost is in no package any more, and remembers which one it was lost from.
"""

from collections.abc import Collection, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.verbs.retrying import LOST, believe, retry_package
from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.lookup import LOCATION
from ccat_ops_db.moves import CHANNEL
from ccat_ops_db.queries.packages import UnknownPackage
from ccat_ops_db.states import LocationType, PackageState, PhysicalCopyStatus
from ccat_ops_db.verbs.reasons import require_reason

_File, _Package, _Copy = models.RawDataFile, models.RawDataPackage, models.PhysicalCopy
_NOTHING = "Nothing was changed."
_NO_TAR = (*LOST, PhysicalCopyStatus.WRITING, PhysicalCopyStatus.DELETED)


class NotAFileOfPackage(CcatError):
    """A raw file was named that its package does not have, or has not lost."""

    code = "not_a_file_of_package"

    def __init__(self, path: str, package: str, *, is_lost: bool) -> None:
        what = "is not lost from" if is_lost else "is not in"
        super().__init__(f"Raw file {path} {what} package {package}; name it by its path below the source. {_NOTHING}")


class PackageNotFailed(CcatError):
    """A raw file was said to be lost of a package that is on its way, or in the archive."""

    code = "package_not_failed"

    def __init__(self, package: str, state: str) -> None:
        super().__init__(
            f"Package {package} is {state}; raw files are said to be lost of one that failed for want of them. "
            f"{_NOTHING}"
        )


class NothingIsLost(CcatError):
    """Raw files were said to be lost of a package whose tar has them all."""

    code = "nothing_is_lost"

    def __init__(self, package: str, package_id: int, location: str) -> None:
        super().__init__(
            f"Package {package} is packed, and its tar at {location} has all its raw files, so that none is lost; "
            f"`ccat package retry {package_id}` sends it on its way. {_NOTHING}"
        )


class NothingIsLeft(CcatError):
    """All raw files of a package were said to be lost."""

    code = "nothing_is_left"

    def __init__(self, package: str) -> None:
        super().__init__(
            f"Nothing would be left of package {package}; say that it is gone, with `ccat package give-up`. {_NOTHING}"
        )


def lose_files(
    session: Session, package_id: int, paths: Collection[str], *, because: str, now: datetime, by: str
) -> Sequence[str]:
    """Say of raw files of a FAILED package that they are lost, and have it built of the rest; their paths.

    Raises ReasonMissing, UnknownPackage, PackageNotFailed, NothingIsLost, NotAFileOfPackage, and NothingIsLeft.
    """
    require_reason(because, outcome="Nothing was called lost.")
    package = _locked(session, package_id)
    if package.state is not PackageState.FAILED:
        raise PackageNotFailed(package.name, package.state)
    _require_unpacked(session, package)
    files = session.scalars(sa.select(_File).where(_File.raw_data_package_id == package_id)).all()
    lost = _named(files, paths, package=package.name, is_lost=False)
    if len(lost) == len(files):
        raise NothingIsLeft(package.name)
    package.size_bytes = package.checksum = None
    for file in lost:
        file.raw_data_package_id, file.lost_from_id = None, package_id
        file.lost_at, file.lost_because = now, f"{because.strip()} ({by})"
    session.flush()
    retry_package(session, package_id, by=by)
    return [file.relative_path for file in lost]


def find_files(session: Session, package_id: int, paths: Collection[str], *, by: str) -> Sequence[str]:
    """Take back that raw files are lost: they make the next package of their scan and module; their paths.

    The audit keeps what was said of them. Raises UnknownPackage and NotAFileOfPackage.
    """
    package = _locked(session, package_id)
    files = session.scalars(sa.select(_File).where(_File.lost_from_id == package_id)).all()
    found = _named(files, paths, package=package.name, is_lost=True)
    for file in found:
        detail = {"lost": file.lost_because, "from": package.name, "by": by}
        entry = models.AuditEntry(action="find", resource=_File.__tablename__, resource_id=str(file.id), detail=detail)
        session.add(entry)
        file.lost_at = file.lost_because = file.lost_from_id = None
    session.flush()
    source = models.DataLocation.location_type == LocationType.SOURCE
    these = _Copy.raw_data_file_id == sa.any_(sa.literal([file.id for file in found], sa.ARRAY(sa.Uuid)))
    believe(session, sa.select(_Copy).join(_Copy.location).where(these, source, _Copy.status.in_(LOST)), by=by)
    session.execute(sa.select(sa.func.pg_notify(CHANNEL, "executed_obs_unit:ended")))
    return [file.relative_path for file in found]


def _locked(session: Session, package_id: int) -> models.RawDataPackage:
    package = session.scalars(sa.select(_Package).where(_Package.id == package_id).with_for_update()).one_or_none()
    if package is None:
        raise UnknownPackage(package_id)
    return package


def _require_unpacked(session: Session, package: models.RawDataPackage) -> None:
    is_tar = (_Copy.raw_data_package_id == package.id, _Copy.status.not_in(_NO_TAR))
    tar = sa.select(LOCATION.label).select_from(_Copy).join(_Copy.location).join(models.DataLocation.site)
    where = session.scalars(tar.where(*is_tar, models.DataLocation.lost_at.is_(None)).limit(1)).one_or_none()
    if where is not None:
        raise NothingIsLost(package.name, package.id, where)


def _named(
    files: Collection[models.RawDataFile], paths: Collection[str], *, package: str, is_lost: bool
) -> Sequence[models.RawDataFile]:
    """The files of these paths, in their order."""
    by_path = {file.relative_path: file for file in files}
    for path in paths:
        if path not in by_path:
            raise NotAFileOfPackage(path, package, is_lost=is_lost)
    return [by_path[path] for path in sorted(set(paths))]
