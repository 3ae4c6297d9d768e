from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.gap.evaluation import evaluate_now
from ccat_ops_db.gap.telling import lacks_of_its_scan
from ccat_ops_db.lookup import PIPELINE, find
from ccat_ops_db.moves import CHANNEL
from ccat_ops_db.queries.gaps import SubGroupNow, named_step, named_sub_group
from ccat_ops_db.states import LeftOut, PackageState, Verdict
from ccat_ops_db.verbs.reasons import require_reason

_Member, _Package = models.SubGroupPackage, models.RawDataPackage


class NothingToAccept(CcatError):
    """A sub-group was to go without what it waits for, and waits for nothing that it could go without."""

    code = "nothing_to_accept"

    def __init__(self, place: SubGroupNow) -> None:
        super().__init__(
            f"Step `{place.step.key}`, sub-group `{place.path}` waits for no package: it is "
            f"{place.verdict.replace('_', ' ')} ({place.because}). Nothing was accepted."
        )


class NothingLeft(CcatError):
    """A sub-group was to go without all of its packages."""

    code = "nothing_left"

    def __init__(self, place: SubGroupNow) -> None:
        super().__init__(
            f"Step `{place.step.key}`, sub-group `{place.path}` would have no input left: none of its packages is "
            "ready. Nothing was accepted."
        )


@dataclass(frozen=True)
class Accepted:
    """What a sub-group goes without from now on."""

    sub_group: str
    packages: tuple[str, ...]
    """Names of the packages; none where a scan lacks only what is in no package."""


def accept_coverage(
    session: Session, pipeline: str, step: str, *, sub_group: str, because: str, now: datetime, by: str
) -> Accepted:
    """Let a sub-group, given by its path or key, go without the packages that it waits for now.

    What comes through later is an ordinary change of its inputs; what it comes to wait for later blocks again. Raises
    UnknownName, ReasonMissing, NothingToAccept where no package is waited for, or NothingLeft where none is ready.
    """
    require_reason(because, outcome="Nothing was accepted.")
    place = _place(session, pipeline, step, sub_group=sub_group, now=now, by=by)
    unready = _unready(session, place)
    packages = [*unready, *_on_their_way(session, place)]
    if place.verdict is Verdict.BLOCKED and len(unready) == _number(session, place):
        raise NothingLeft(place)
    if place.verdict is not Verdict.BLOCKED or not (packages or lacks_of_its_scan(session, place.step, place.id)):
        raise NothingToAccept(place)
    accepted = models.AcceptedCoverage(
        reduction_step_id=place.step.id, sub_group_key=place.key, because=because, by=by, packages=packages
    )
    session.add(accepted)
    session.flush()
    session.execute(sa.select(sa.func.pg_notify(CHANNEL, f"{accepted.__tablename__}:made")))
    return Accepted(place.path, tuple(one.name for one in packages))


def _place(session: Session, pipeline: str, step: str, *, sub_group: str, now: datetime, by: str) -> SubGroupNow:
    """The sub-group as it is now."""
    found = evaluate_now(session, find(session, PIPELINE, pipeline).id, now=now, by=by)
    return named_sub_group(session, named_step(found, step, pipeline_name=pipeline), sub_group)


def _number(session: Session, place: SubGroupNow) -> int:
    """How many packages a sub-group has that it does not go without anyway."""
    return session.scalars(sa.select(sa.func.count()).where(*_counts(place))).one()


def _counts(place: SubGroupNow) -> tuple[sa.ColumnElement[bool], ...]:
    is_kept = _Member.left_out.is_distinct_from(LeftOut.OMITTED)
    return _Member.sub_group_id == place.id, sa.not_(_Member.is_faded), is_kept


def _unready(session: Session, place: SubGroupNow) -> Sequence[models.RawDataPackage]:
    """Packages of a sub-group that wait for something upstream."""
    above = aliased(_Member)
    waits = sa.exists().where(
        above.reduction_step_id == sa.any_(sa.literal(list(place.step.upstream), sa.ARRAY(sa.BigInteger))),
        above.raw_data_package_id == _Member.raw_data_package_id,
        sa.not_(above.is_ready),
        sa.not_(above.is_faded),
    )
    query = sa.select(_Package).join(_Member, _Member.raw_data_package_id == _Package.id)
    return session.scalars(query.where(*_counts(place), waits).order_by(_Package.id)).all()


def _on_their_way(session: Session, place: SubGroupNow) -> Sequence[models.RawDataPackage]:
    """Packages of a sub-group's scan that are not in the archive, where its step waits for them."""
    if not place.step.waits.for_scan:
        return []
    member = sa.select(_Member.raw_data_package_id).where(_Member.sub_group_id == place.id)
    scans = sa.select(_Package.executed_obs_unit_id).where(_Package.id.in_(member))
    query = sa.select(_Package).where(
        _Package.executed_obs_unit_id.in_(scans),
        _Package.state != PackageState.ARCHIVED,
        _Package.excluded_at.is_(None),
        _Package.withdrawn_at.is_(None),
    )
    return session.scalars(query.order_by(_Package.id)).all()
