"""What turns out to be wrong is declared invalid, with all that was made from it; and valid again, if it was right."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from ccat_ops_db import models
from ccat_ops_db.cancelling import ask_to_cancel
from ccat_ops_db.moves import advance
from ccat_ops_db.queries.descent import descendant_products
from ccat_ops_db.queries.roots import Kind, Root
from ccat_ops_db.queries.validity import lock_validity, runs_on_withdrawn_inputs
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import ProductState, RunStatus, VersionState
from ccat_ops_db.verbs.archiving import request_archiving
from ccat_ops_db.verbs.reasons import require_reason
from ccat_ops_db.verbs.turns import take_turn

_Run, _Product, _Withdrawal, _Mark = (
    models.ExecutedReductionStep,
    models.DataProduct,
    models.Withdrawal,
    models.WithdrawnProduct,
)
_OBJECT: Final[Mapping[Kind, str]] = {
    Kind.PACKAGE: "raw_data_package_id",
    Kind.PRODUCT: "data_product_id",
    Kind.RUN: "run_id",
    Kind.VERSION: "software_version_id",
    Kind.CONFIG: "config_revision_id",
}
"""Column of a withdrawal that names its object."""


@dataclass(frozen=True)
class Withdrawn:
    """What withdrawing an object did."""

    what: str
    is_new: bool
    """False where it was withdrawn already; then nothing changed."""
    products: int = 0
    """How many are invalid now and were not before."""
    runs: Mapping[int, str] = field(default_factory=dict)
    """Runs that are cancelled, as they are made with something withdrawn, and with what."""


@dataclass(frozen=True)
class Reinstated:
    """What reinstating an object did."""

    what: str
    was_withdrawn: bool
    products: int = 0
    """How many count again, or are superseded."""
    still_invalid: int = 0
    """How many another withdrawal marks too."""


def withdraw(session: Session, root: Root, *, because: str, now: datetime, by: str) -> Withdrawn:
    """Declare one object invalid, and every product that was made from it, whatever of it was invalid already.

    It starts nothing any more; what is wanted is made again from what is valid. Raises ReasonMissing.
    """
    require_reason(because, outcome="Nothing was withdrawn.")
    take_turn(session)
    lock_validity(session)
    if _live(session, root) is not None:
        return Withdrawn(root.label, is_new=False)
    column, [number] = _OBJECT[root.kind], root.ids
    row = _Withdrawal(**{column: number}, what=root.label, because=because.strip(), by=by)
    session.add(row)
    session.flush()
    told = f"{root.label} was withdrawn: {because.strip()}"
    _switch_off(session, root, because=f"{because.strip()} ({by})", now=now, by=by)
    marked = _mark(session, row.id, root)
    moved = advance(session, _Product, marked, to=ProductState.WITHDRAWN, because=told, by=by)
    return Withdrawn(root.label, is_new=True, products=len(moved), runs=_stop(session, now=now, by=by))


def reinstate(session: Session, root: Root, *, now: datetime, by: str) -> Reinstated:
    """Undo the withdrawal of an object, and of what was made from it unless another withdrawal marks that too.

    Products of the newest run of a sub-group are current again; those of an older one are superseded.
    """
    take_turn(session)
    lock_validity(session)
    row = _live(session, root)
    if row is None:
        return Reinstated(root.label, was_withdrawn=False)
    row.reinstated_at, row.reinstated_by = now, by
    session.flush()
    _switch_on(session, root, by=by)
    back, held = _released(session, row.id)
    told = f"{root.label} was reinstated"
    for state, ids in back.items():
        advance(session, _Product, ids, to=state, because=told, by=by)
    again = sa.select(_Product.run_id).where(is_among(_Product.id, back.get(ProductState.CURRENT, ())))
    request_archiving(session, _Run.id.in_(again))
    return Reinstated(root.label, was_withdrawn=True, products=sum(map(len, back.values())), still_invalid=held)


def _stop(session: Session, *, now: datetime, by: str) -> Mapping[int, str]:
    """Have runs cancelled that are made with something withdrawn: what is wanted is made from what is valid."""
    found = runs_on_withdrawn_inputs(session)
    by_reason: defaultdict[str, list[int]] = defaultdict(list)
    for run_id, why in found.items():
        by_reason[why].append(run_id)
    for why, ids in by_reason.items():
        ask_to_cancel(session, ids, because=why, by=by, now=now, not_needed=True)
    return found


def _live(session: Session, root: Root) -> models.Withdrawal | None:
    """The withdrawal of an object that holds, if there is one."""
    [number] = root.ids
    of_object = sa.select(_Withdrawal).filter_by(**{_OBJECT[root.kind]: number})
    return session.scalars(of_object.where(_Withdrawal.reinstated_at.is_(None))).one_or_none()


def _mark(session: Session, withdrawal_id: int, root: Root) -> Sequence[int]:
    """Note which products a withdrawal marks."""
    made = descendant_products(root).subquery()
    rows = sa.select(sa.literal(withdrawal_id, sa.BigInteger), made.c.id).distinct()
    return session.scalars(
        sa.insert(_Mark).from_select(["withdrawal_id", "data_product_id"], rows).returning(_Mark.data_product_id)
    ).all()


def _released(session: Session, withdrawal_id: int) -> tuple[Mapping[ProductState, Sequence[int]], int]:
    """What becomes of products that a withdrawal marked, and how many another one marks too."""
    other, other_mark, newer = aliased(_Withdrawal), aliased(_Mark), aliased(_Run)
    is_held = sa.exists().where(
        other_mark.data_product_id == _Product.id,
        other.id == other_mark.withdrawal_id,
        other.reinstated_at.is_(None),
    )
    is_older = sa.exists().where(
        newer.reduction_step_id == _Run.reduction_step_id,
        newer.sub_group_key == _Run.sub_group_key,
        newer.id > _Run.id,
        newer.status == RunStatus.COMPLETED,
        sa.not_(newer.is_trial),
    )
    state = sa.case(
        (_Run.is_trial, ProductState.TRIAL), (is_older, ProductState.SUPERSEDED), else_=ProductState.CURRENT
    )
    of_it = (
        sa.select(sa.case((is_held, None), else_=state), sa.func.array_agg(_Product.id))
        .join(_Run, _Run.id == _Product.run_id)
        .join(_Mark, _Mark.data_product_id == _Product.id)
        .where(_Mark.withdrawal_id == withdrawal_id)
        .group_by(sa.text("1"))
    )
    found = {row[0]: row[1] for row in session.execute(of_it)}
    held = len(found.pop(None, ()))
    return {ProductState(name): ids for name, ids in found.items()}, held


def _switch_off(session: Session, root: Root, *, because: str, now: datetime, by: str) -> None:
    """Let an object start nothing."""
    [number] = root.ids
    match root.kind:
        case Kind.PACKAGE:
            _note(session.get_one(models.RawDataPackage, number, with_for_update=True), at=now, because=because)
        case Kind.CONFIG:
            _note(
                session.get_one(models.ReductionStepConfigRevision, number, with_for_update=True),
                at=now,
                because=because,
            )
        case Kind.VERSION:
            to = VersionState.WITHDRAWN
            advance(session, models.ReductionSoftwareVersion, [number], to=to, because=because, by=by)
        case _:
            return


def _switch_on(session: Session, root: Root, *, by: str) -> None:
    """Let an object be what it was before."""
    [number] = root.ids
    match root.kind:
        case Kind.PACKAGE:
            _note(session.get_one(models.RawDataPackage, number, with_for_update=True), at=None, because=None)
        case Kind.CONFIG:
            _note(
                session.get_one(models.ReductionStepConfigRevision, number, with_for_update=True), at=None, because=None
            )
        case Kind.VERSION:
            _release(session, number, by=by)
        case _:
            return


def _note(
    row: models.RawDataPackage | models.ReductionStepConfigRevision, *, at: datetime | None, because: str | None
) -> None:
    row.withdrawn_at, row.withdrawn_because = at, because


def _release(session: Session, version_id: int, *, by: str) -> None:
    """Let a version be RETIRED, and RELEASED if it was that."""
    noun, change, because = models.ReductionSoftwareVersion, models.StatusChange, "reinstated"
    before = session.scalar(
        sa.select(change.from_status)
        .filter_by(noun=noun.__tablename__, object_id=version_id, to_status=VersionState.WITHDRAWN)
        .order_by(change.id.desc())
        .limit(1)
    )
    states = [VersionState.RETIRED, *([VersionState.RELEASED] if before == VersionState.RELEASED else [])]
    for state in states:
        advance(session, noun, [version_id], to=state, because=because, by=by)
