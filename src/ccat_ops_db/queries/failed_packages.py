"""Raw packages that failed and wait for a person, and which of them failed alike."""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.queries.alike import alike
from ccat_ops_db.queries.packages import UnknownPackage
from ccat_ops_db.states import PackageState

_Package = models.RawDataPackage
IS_OWED: Final = sa.and_(_Package.state == PackageState.FAILED, _Package.given_up_at.is_(None))
"""Condition on a raw package: it failed, and nobody said that it is gone for good."""


class PackageHasNotFailed(CcatError):
    """Packages that failed like another were asked for, which did not."""

    code = "package_has_not_failed"

    def __init__(self, package: str, state: str) -> None:
        super().__init__(
            f"Package {package} is {state}, so none failed like it; `ccat packages --state failed` lists what failed."
        )


def failed_packages(session: Session) -> Sequence[int]:
    """All of them."""
    return session.scalars(sa.select(_Package.id).where(IS_OWED).order_by(_Package.id)).all()


def packages_alike(session: Session, package_id: int) -> Sequence[int]:
    """Those that failed for the same reason as one that is given, as alerts put them together.

    Raises UnknownPackage and PackageHasNotFailed.
    """
    package = session.get(_Package, package_id)
    if package is None:
        raise UnknownPackage(package_id)
    if package.state is not PackageState.FAILED:
        raise PackageHasNotFailed(package.name, package.state)
    reason = session.scalar(sa.select(alike(_Package.failure)).where(_Package.id == package_id))
    same = sa.select(_Package.id).where(IS_OWED, alike(_Package.failure) == reason)
    return session.scalars(same.order_by(_Package.id)).all()
