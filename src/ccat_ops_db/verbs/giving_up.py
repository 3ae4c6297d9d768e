"""Raw packages that nobody can mend are given up by a person: no alert is about them any more; nothing is deleted."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.queries.packages import UnknownPackage
from ccat_ops_db.states import PackageState
from ccat_ops_db.verbs.reasons import require_reason

_Package = models.RawDataPackage
_NOTHING = "Nothing was changed."


class PackageHasNotFailed(CcatError):
    """A package was to be given up that is on its way, or in the archive."""

    code = "package_has_not_failed"

    def __init__(self, package: str, state: str) -> None:
        super().__init__(
            f"Package {package} is {state}; what can be given up is a failed one. To keep it out of what is made, "
            f"`ccat package exclude`. {_NOTHING}"
        )


def give_up_package(session: Session, package_id: int, *, because: str, now: datetime, by: str) -> bool:
    """Say that a FAILED package is gone for good; False where it was said before, and the first reason stays.

    It holds until the package is taken up again. Raises UnknownPackage, ReasonMissing and PackageHasNotFailed.
    """
    require_reason(because, outcome="Nothing was given up.")
    package = session.scalars(sa.select(_Package).where(_Package.id == package_id).with_for_update()).one_or_none()
    if package is None:
        raise UnknownPackage(package_id)
    if package.state is not PackageState.FAILED:
        raise PackageHasNotFailed(package.name, package.state)
    if package.given_up_at is not None:
        return False
    package.given_up_at, package.given_up_because = now, f"{because.strip()} ({by})"
    return True
