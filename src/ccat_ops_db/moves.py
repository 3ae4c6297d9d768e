from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.orm.util import identity_key
from sqlalchemy.sql.dml import ReturningInsert

from ccat_ops_db import models, states
from ccat_ops_db.errors import CcatError
from ccat_ops_db.sets import Rows, is_given, table_of

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
    models.ProductArchiveTransfer: _Machine("status", states.TRANSFER_MOVES),
    models.DataProduct: _Machine("state", states.PRODUCT_MOVES),
    models.ReductionSoftwareVersion: _Machine("state", states.VERSION_MOVES),
}
_HISTORY: Final = table_of(models.StatusChange)


class IllegalMove(CcatError):
    """A move that the table of the noun does not have."""

    code = "illegal_move"

    def __init__(self, noun: str, sources: Iterable[StrEnum], to: StrEnum) -> None:
        super().__init__(
            f"No {noun} moves from {' or '.join(sorted(sources)) or 'anywhere'} to {to}; "
            "ccat_ops_db.states has its legal moves."
        )


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
    listed: Rows | None = None,
) -> list[int]:
    """Move the objects that still have an expected status, and return their ids; the only writer of any status.

    Whoever is not returned was moved by somebody else first: a normal outcome. `expected` defaults to every status
    from which `to` is legal; `values` are columns set by the same statement. `because` and these may differ from object
    to object: they are columns of `listed` then, which has a row for each `id`. What is SQL of them is kept with the
    statement, so callers make it once. One history row per object is written, and a wake-up is sent, when the caller's
    transaction commits. Raises IllegalMove where the table has no such move.
    """
    worked_out = {name: value for name, value in (values or {}).items() if hasattr(value, "__clause_element__")}
    plain = {name: value for name, value in (values or {}).items() if name not in worked_out}
    statement = _move(
        noun,
        to,
        tuple(_sources(noun, to, expected)),
        because=None if isinstance(because, str) else because,
        plain=tuple(plain),
        worked_out=tuple(worked_out.items()),
        listed=listed.table if listed else None,
    )
    session.flush()
    parameters = {
        "moving": sorted(set(ids)),
        "moved_by": by,
        **({"said": because} if isinstance(because, str) else {}),
        **{f"new_{name}": value for name, value in plain.items()},
        **(listed.parameters if listed else {}),
    }
    moved = sorted(session.scalars(statement, parameters))
    _forget(session, noun, moved)
    return moved


@lru_cache(maxsize=200)  # to put it together takes longer than to carry it out
def _move(
    noun: type[models.Base],
    to: StrEnum,
    sources: tuple[StrEnum, ...],
    *,
    because: sa.ColumnElement[str] | None,
    plain: tuple[str, ...],
    worked_out: tuple[tuple[str, Any], ...],
    listed: sa.FromClause | None,
) -> sa.Select[int]:
    """Statement that moves what it is given, writes that down, wakes who waits for it, and returns the ids."""
    table = table_of(noun)
    status = table.c[_MACHINES[noun].column]
    locked = (
        sa.select(table.c.id, status.label("was"))
        .where(is_given(table.c.id, "moving"), status.in_(sources))
        .order_by(table.c.id)
        .with_for_update()
        .cte("locked")
    )
    reason = sa.bindparam("said", type_=sa.Text()) if because is None else because
    values = {name: sa.bindparam(f"new_{name}", type_=table.c[name].type) for name in plain}
    moved = (
        sa.update(table)
        .where(table.c.id == locked.c.id, sa.true() if listed is None else listed.c.id == locked.c.id)
        .values({status.name: to, **values, **dict(worked_out)})
        .returning(table.c.id, locked.c.was, reason.label("because"))
        .cte("moved")
    )
    history = _history(table.name, moved, to=to).cte("history")
    some = sa.select(history.c.object_id).limit(1).subquery()
    woken = sa.select(sa.func.pg_notify(CHANNEL, f"{table.name}:{to}")).select_from(some).cte("woken")
    return sa.select(history.c.object_id).join_from(history, woken, sa.true())


def _history(noun: str, moved: sa.CTE, *, to: StrEnum) -> ReturningInsert[int]:
    """Statement that writes down what was moved, and returns the ids."""
    columns = ["noun", "object_id", "from_status", "to_status", "by", "because"]
    by = sa.bindparam("moved_by", type_=sa.Text())
    values = (sa.literal(noun), moved.c.id, moved.c.was, sa.literal(str(to)), by, moved.c.because)
    history = sa.insert(_HISTORY).from_select(columns, sa.select(*values))
    return history.returning(_HISTORY.c.object_id)


def _forget(session: Session, noun: type[models.Base], ids: Collection[int]) -> None:
    """Let the next look at an object that the session already holds see what the statement wrote."""
    for moved in ids:
        instance = session.identity_map.get(identity_key(noun, moved))
        if instance is not None:
            session.expire(instance)
