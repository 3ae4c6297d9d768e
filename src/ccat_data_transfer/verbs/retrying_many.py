"""Many raw packages that failed are taken up again, once what they failed for is mended."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.verbs.retrying import retry_failed
from ccat_ops_db import models
from ccat_ops_db.queries.failed_packages import IS_OWED
from ccat_ops_db.session import in_transaction
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import PackageState
from ccat_ops_db.verbs.retrying import Retried

_Package = models.RawDataPackage
_AT_ONCE: Final = 200
"""Each may have thousands of raw files that are believed again."""
_GO_ON: Final = (PackageState.WAITING, PackageState.TRANSFERRING)


def retry_packages(
    engine: sa.Engine, package_ids: Sequence[int], *, by: str, progress: Callable[[int], None] = lambda _: None
) -> Retried:
    """Take packages up again that failed, some in each transaction; what goes on now, and why others do not.

    One that was given up stays given up. Where it was interrupted, what was not taken up is FAILED as before.
    """
    retried: list[int] = []
    refused: dict[int, str] = {}
    for start in range(0, len(package_ids), _AT_ONCE):
        some = package_ids[start : start + _AT_ONCE]
        done = in_transaction(engine, partial(_retry_some, package_ids=some, by=by))
        retried += done.retried
        refused |= done.refused
        progress(start + len(some))
    return Retried(retried, refused)


def _retry_some(session: Session, *, package_ids: Sequence[int], by: str) -> Retried:
    """What another one carried along with it in a transfer package, and took up before, goes on too."""
    held = sa.select(_Package.id).where(is_among(_Package.id, package_ids), IS_OWED).order_by(_Package.id)
    retry_failed(session, session.scalars(held.with_for_update()).all(), by=by)
    told = sa.select(_Package.id, _Package.name, _Package.state).where(is_among(_Package.id, package_ids))
    now = session.execute(told.order_by(_Package.id)).all()
    retried = [number for number, _, state in now if state in _GO_ON]
    return Retried(retried, {number: _refusal(name, state) for number, name, state in now if state not in _GO_ON})


def _refusal(package: str, state: PackageState) -> str:
    if state is PackageState.FAILED:
        return f"package {package} was given up meanwhile; `ccat package retry {package}` takes it up all the same"
    return f"package {package} is {state} by now"
