from collections.abc import Collection, Iterable
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db.models.base import Base, Leased
from ccat_ops_db.sets import is_among

_NOW = sa.func.clock_timestamp()


def _leased(noun: type[Leased]) -> sa.Table:
    assert issubclass(noun, Base)  # noqa: S101 - Leased is a mix-in of tables; narrows the type
    table = noun.__table__
    assert isinstance(table, sa.Table)  # noqa: S101 - what a declarative class maps to; narrows the type
    return table


def is_free(noun: type[Leased]) -> sa.ColumnElement[bool]:
    """Condition: nobody has a lease on the row, or the lease has run out."""
    table = _leased(noun)
    return sa.or_(table.c.lease_until.is_(None), table.c.lease_until < _NOW)


def claim(
    session: Session,
    noun: type[Leased],
    *,
    where: sa.ColumnElement[bool],
    by: str,
    lease: timedelta | sa.ColumnElement[timedelta],
    limit: int | sa.ColumnElement[int],
    order_by: Iterable[sa.ColumnElement[Any]] = (),
) -> list[int]:
    """Lease up to `limit` free rows and return their ids; rows that another transaction holds are passed over."""
    table = _leased(noun)
    chosen = (
        sa.select(table.c.id)
        .where(where, is_free(noun))
        .order_by(*order_by, table.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("chosen")
        .prefix_with("MATERIALIZED")
    )
    claimed = (
        sa.update(table)
        .where(table.c.id.in_(sa.select(chosen.c.id)))
        .values(claimed_by=by, lease_until=_NOW + lease)
        .returning(table.c.id)
    )
    return sorted(session.scalars(claimed))


def renew(session: Session, noun: type[Leased], ids: Iterable[int], *, by: str, lease: timedelta) -> list[int]:
    """Extend the leases that `by` still holds and return their ids; whoever is missing has lost the claim."""
    table = _leased(noun)
    renewed = (
        sa.update(table)
        .where(is_among(table.c.id, ids), table.c.claimed_by == by)
        .values(lease_until=_NOW + lease)
        .returning(table.c.id)
    )
    return sorted(session.scalars(renewed))


def holders(session: Session, noun: type[Leased]) -> list[str]:
    """Whoever has a lease on a row now."""
    table = _leased(noun)
    return list(session.scalars(sa.select(table.c.claimed_by).where(table.c.lease_until >= _NOW).distinct()))


def expire(session: Session, noun: type[Leased], *, of: Collection[str]) -> list[int]:
    """End the leases of holders that are known to be gone, and return the ids: to be found like leases that ran out."""
    table = _leased(noun)
    held = sa.update(table).where(table.c.claimed_by.in_(of), table.c.lease_until >= _NOW)
    return sorted(session.scalars(held.values(lease_until=_NOW).returning(table.c.id)))


def release(session: Session, noun: type[Leased], ids: Iterable[int], *, by: str | None = None) -> None:
    """Give back the leases that `by` still holds, or whoever holds them, so that the rows can be claimed at once."""
    table = _leased(noun)
    held = sa.update(table).where(is_among(table.c.id, ids))
    mine = held if by is None else held.where(table.c.claimed_by == by)
    session.execute(mine.values(claimed_by=None, lease_until=None))
