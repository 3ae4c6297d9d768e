"""Which runs are made with something that was withdrawn.

Who withdraws or reinstates holds one lock alone; who fixes the inputs of runs or registers products holds it together
with others: each for its whole transaction, and before any other lock. So inputs are fixed and products are registered
either before a withdrawal looks for what is made of what, which then cancels and marks it, or after it is committed,
when whoever fixes or registers sees it. Rows of inputs, of which a run may have very many, need no lock of their own.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.sets import is_given
from ccat_ops_db.states import ProductState, RunStatus, VersionState

_Run, _Input, _Withdrawal = models.ExecutedReductionStep, models.RunInput, models.Withdrawal
_LOCK: Final = 0x76616C6964
_ALONE: Final = sa.select(sa.func.pg_advisory_xact_lock(_LOCK))
_TOGETHER: Final = sa.select(sa.func.pg_advisory_xact_lock_shared(_LOCK))
_HOLDS: Final = _Withdrawal.reinstated_at.is_(None)
_UNDER_WAY: Final = (RunStatus.STAGING_DATA, RunStatus.SUBMITTED, RunStatus.RUNNING)


def lock_validity(session: Session) -> None:
    """Wait until nobody relies on what is valid, and let nobody until the end of the transaction: for who withdraws."""
    session.execute(_ALONE)


def share_validity(session: Session) -> None:
    """Wait until nobody withdraws or reinstates, and let nobody until the transaction is over: for who relies on it."""
    session.execute(_TOGETHER)


def invalid_inputs(session: Session, run_ids: Iterable[int]) -> Mapping[int, str]:
    """Of some runs those withdrawn, or made with something that is, each with a sentence that names it.

    What is not returned stays valid until the end of the transaction: nobody withdraws anything meanwhile. So call it
    first, before a lock on any row is taken.
    """
    share_validity(session)
    return dict(session.execute(_OF_SOME, {"runs": list(run_ids)}).all())


def runs_on_withdrawn_inputs(session: Session) -> Mapping[int, str]:
    """Runs under way whose inputs are fixed and that are withdrawn or made with what is, each with what that is.

    Not among them are those that look for themselves: what is being collected, and what is to be tried again, which
    takes what is valid then. Trials take the same inputs again and again, and a run that is withdrawn stays it.
    """
    is_fixed = sa.and_(_Run.status == RunStatus.PENDING, _Run.inputs_frozen_at.is_not(None))
    is_withdrawn = sa.exists().where(_Withdrawal.run_id == _Run.id, _HOLDS).correlate(_Run)
    is_for_good = sa.or_(_Run.is_trial, is_withdrawn)
    is_tried_again = sa.and_(_Run.status == RunStatus.FAILED, _Run.retry_at.is_not(None), is_for_good)
    return dict(session.execute(_invalid(sa.or_(_Run.status.in_(_UNDER_WAY), is_fixed, is_tried_again))).all())


def _invalid(which: sa.ColumnElement[bool]) -> sa.Select[int, str]:
    arms = (_packages(which), _products(which), _versions(which), _configs(which), _runs(which))
    reasons = sa.union_all(*arms).subquery()
    return sa.select(reasons.c.run_id, sa.func.min(reasons.c.why)).group_by(reasons.c.run_id)


def _packages(which: sa.ColumnElement[bool]) -> sa.Select[int, str]:
    package = models.RawDataPackage
    why = sa.func.format("raw package %s was withdrawn: %s", package.name, package.withdrawn_because).label("why")
    taken = sa.select(_Run.id.label("run_id"), why).join(_Input, _Input.run_id == _Run.id)
    return taken.join(package, package.id == _Input.raw_data_package_id).where(which, package.withdrawn_at.is_not(None))


def _products(which: sa.ColumnElement[bool]) -> sa.Select[int, str]:
    product = models.DataProduct
    why = sa.func.format("product %s (%s) was withdrawn", product.id, product.relative_path).label("why")
    taken = sa.select(_Run.id, why).join(_Input, _Input.run_id == _Run.id)
    is_withdrawn = product.state == ProductState.WITHDRAWN
    return taken.join(product, product.id == _Input.data_product_id).where(which, is_withdrawn)


def _versions(which: sa.ColumnElement[bool]) -> sa.Select[int, str]:
    version, software = models.ReductionSoftwareVersion, models.ReductionSoftware
    why = sa.func.format("version %s/%s was withdrawn", software.name, version.version).label("why")
    used = sa.select(_Run.id, why).join(version, version.id == _Run.software_version_id)
    is_withdrawn = version.state == VersionState.WITHDRAWN
    return used.join(software, software.id == version.reduction_software_id).where(which, is_withdrawn)


def _configs(which: sa.ColumnElement[bool]) -> sa.Select[int, str]:
    revision, config = models.ReductionStepConfigRevision, models.ReductionStepConfig
    told = ("config %s/%s was withdrawn: %s", config.name, revision.number, revision.withdrawn_because)
    used = sa.select(_Run.id, sa.func.format(*told).label("why")).join(revision, revision.id == _Run.config_revision_id)
    is_withdrawn = revision.withdrawn_at.is_not(None)
    return used.join(config, config.id == revision.reduction_step_config_id).where(which, is_withdrawn)


def _runs(which: sa.ColumnElement[bool]) -> sa.Select[int, str]:
    why = sa.func.format("it was withdrawn itself: %s", _Withdrawal.because).label("why")
    return sa.select(_Run.id, why).join(_Withdrawal, _Withdrawal.run_id == _Run.id).where(which, _HOLDS)


_OF_SOME: Final = _invalid(is_given(_Run.id, "runs"))
