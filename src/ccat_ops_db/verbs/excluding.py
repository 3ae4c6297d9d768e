"""Packages that people take out of all groupings, and let in again."""

from datetime import datetime

from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.queries.packages import UnknownPackage
from ccat_ops_db.verbs.reasons import require_reason


def exclude_package(session: Session, package_id: int, *, because: str, now: datetime, by: str) -> bool:
    """Take a package out of all groupings, so that nothing is made of it any more; False where it was out already.

    Raises UnknownPackage and ReasonMissing.
    """
    require_reason(because, outcome="Nothing was excluded.")
    package = _lock(session, package_id)
    if package.excluded_at is not None:
        return False
    package.excluded_at, package.excluded_because = now, f"{because.strip()} ({by})"
    return True


def readmit_package(session: Session, package_id: int) -> bool:
    """Let a package in again; False where it was not out. Raises UnknownPackage."""
    package = _lock(session, package_id)
    if package.excluded_at is None:
        return False
    package.excluded_at = package.excluded_because = None
    return True


def _lock(session: Session, package_id: int) -> models.RawDataPackage:
    # As it is once it is locked, also where it was looked up before.
    package = session.get(models.RawDataPackage, package_id, with_for_update=True, populate_existing=True)
    if package is None:
        raise UnknownPackage(package_id)
    return package
