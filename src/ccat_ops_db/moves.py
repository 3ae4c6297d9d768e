from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.orm.util import identity_key
from sqlalchemy.sql.dml import ReturningInsert

from ccat_ops_db import models, states
from ccat_ops_db.errors import CcatError
from ccat_ops_db.sets import is_among

CHANNEL: Final = "ccat_moves"
"""PostgreSQL channel of wake-ups; a payload is `<table>:<status>`, sent when the move commits."""

Moves = Mapping[Any, frozenset[Any]]  # a Mapping is invariant in its keys, so the enum's own type will not do


@dataclass(frozen=True)
class _Machine:
    column: str
    moves: Moves


_MACHINES: Final[Mapping[type[models.Base], _Machine]] = {
    models.ExecutedReductionStep: _Machine("status", states.RUN_MOVES),
    models.RawDataPackage: _Machine("state", states.PACKAGE_MOVES),
    models.PhysicalCopy: _Machine("status", states.PHYSICAL_COPY_MOVES),
    models.StagingJob: _Machine("status", states.TRANSFER_MOVES),
    models.DataTransfer: _Machine("status", states.TRANSFER_MOVES),
    models.LongTermArchiveTransfer: _Machine("status", states.TRANSFER_MOVES),
    models.DataProduct: _Machine("state", states.PRODUCT_MOVES),
    models.ReductionSoftwareVersion: _Machine("state", states.VERSION_MOVES),
}


class IllegalMove(CcatError):
    """A move that the table of the noun does not have."""

    code = "illegal_move"

    def __init__(self, noun: str, sources: Iterable[StrEnum], to: StrEnum) -> None:
        super().__init__(
            f"No {noun} moves from {' or '.join(sorted(sources)) or 'anywhere'} to {to}; "
            "ccat_ops_db.states has its legal moves."
        )


def _table(noun: type[models.Base]) -> sa.Table:
    assert isinstance(noun.__table__, sa.Table)  # noqa: S101 - what a declarative class maps to; narrows the type
    return noun.__table__


def _sources(noun: type[models.Base], to: StrEnum, expected: Collection[StrEnum] | None) -> list[StrEnum]:
    moves = _MACHINES[noun].moves
    legal = {source for source, targets in moves.items() if to in targets}
    wanted = legal if expected is None else set(expected)
    if not wanted or not wanted <= legal:
        raise IllegalMove(noun.__tablename__, wanted - legal, to)
    return sorted(wanted)


def advance(
    session: Session,
    noun: type[models.Base],
    ids: Iterable[int],
    *,
    to: StrEnum,
    because: str | sa.ColumnElement[str],
    by: str,
    expected: Collection[StrEnum] | None = None,
    values: Mapping[str, Any] | None = None,
    listed: sa.FromClause | None = None,
) -> list[int]:
    """Move the objects that still have an expected status, and return their ids; the only writer of any status.

    Whoever is not returned was moved by somebody else first: a normal outcome. `expected` defaults to every status
    from which `to` is legal; `values` are columns set by the same statement. `because` and these may differ from object
    to object: they are columns of `listed` then, which has a row for each `id`. One history row per object is written,
    and a wake-up is sent, when the caller's transaction commits. Raises IllegalMove where the table has no such move.
    """
    table = _table(noun)
    status = table.c[_MACHINES[noun].column]
    locked = (
        sa.select(table.c.id, status.label("was"))
        .where(is_among(table.c.id, ids))
        .where(status.in_(_sources(noun, to, expected)))
        .order_by(table.c.id)
        .with_for_update()
        .cte("locked")
    )
    reason = sa.literal(because) if isinstance(because, str) else because
    moved = (
        sa.update(table)
        .where(table.c.id == locked.c.id, sa.true() if listed is None else listed.c.id == locked.c.id)
        .values({status.name: to, **(values or {})})
        .returning(table.c.id, locked.c.was, reason.label("because"))
        .cte("moved")
    )
    session.flush()
    ids_moved = sorted(session.scalars(_history(table.name, moved, to=to, by=by)))
    if ids_moved:
        session.execute(sa.select(sa.func.pg_notify(CHANNEL, f"{table.name}:{to}")))
        _forget(session, noun, ids_moved)
    return ids_moved


def _history(noun: str, moved: sa.CTE, *, to: StrEnum, by: str) -> ReturningInsert[int]:
    """Statement that writes down what was moved, and returns the ids."""
    columns = ["noun", "object_id", "from_status", "to_status", "by", "because"]
    values = (sa.literal(noun), moved.c.id, moved.c.was, sa.literal(str(to)), sa.literal(by), moved.c.because)
    history = sa.insert(models.StatusChange).from_select(columns, sa.select(*values))
    return history.returning(models.StatusChange.object_id)


def _forget(session: Session, noun: type[models.Base], ids: Collection[int]) -> None:
    """Let the next look at an object that the session already holds see what the statement wrote."""
    for moved in ids:
        instance = session.identity_map.get(identity_key(noun, moved))
        if instance is not None:
            session.expire(instance)
