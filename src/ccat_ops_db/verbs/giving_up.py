"""Raw packages that nobody can mend are given up by a person: no alert is about them any more; nothing is deleted."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.models.data import UNFINISHED
from ccat_ops_db.queries.lost_packages import IS_LOST
from ccat_ops_db.queries.packages import UnknownPackage
from ccat_ops_db.states import PackageState
from ccat_ops_db.verbs.reasons import require_reason

_Package, _Copy = models.RawDataPackage, models.PhysicalCopy
_NOTHING = "Nothing was changed."


class PackageIsNotGone(CcatError):
    """A package was to be given up that is on its way, or of which there is a copy."""

    code = "package_is_not_gone"

    def __init__(self, package: str, state: str) -> None:
        super().__init__(
            f"Package {package} is {state}; what can be given up is a failed one, or an archived one of which no copy "
            f"is known any more. To keep it out of what is made, `ccat package exclude`. {_NOTHING}"
        )


def give_up_package(session: Session, package_id: int, *, because: str, now: datetime, by: str) -> bool:
    """Say that a package that FAILED, or was lost once ARCHIVED, is gone for good; False where it was said before.

    The first reason stays. It holds until the package is taken up again, or a tar of it is there. Raises
    UnknownPackage, ReasonMissing and PackageIsNotGone.
    """
    require_reason(because, outcome="Nothing was given up.")
    package = _held(session, package_id)
    if package.state is not PackageState.FAILED and not _is_lost(session, package_id):
        raise PackageIsNotGone(package.name, package.state)
    if package.given_up_at is not None:
        return False
    package.given_up_at, package.given_up_because = now, f"{because.strip()} ({by})"
    return True


def _held(session: Session, package_id: int) -> models.RawDataPackage:
    """The package, of which nobody makes or finds a copy before the transaction is over."""
    begun = sa.select(_Copy.id).where(_Copy.raw_data_package_id == package_id, sa.text(f"physical_copy.{UNFINISHED}"))
    session.execute(begun.order_by(_Copy.id).with_for_update())
    package = session.scalars(sa.select(_Package).where(_Package.id == package_id).with_for_update()).one_or_none()
    if package is None:
        raise UnknownPackage(package_id)
    return package


def _is_lost(session: Session, package_id: int) -> bool:
    return bool(session.scalar(sa.select(sa.exists().where(_Package.id == package_id, IS_LOST))))
