from collections.abc import Collection, Iterable
from datetime import timedelta
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from ccat_ops_db.models.base import Base, Leased
from ccat_ops_db.sets import is_given

_NOW: Final = sa.func.clock_timestamp()
_BY: Final = sa.bindparam("by", type_=sa.Text())
_LEASE: Final = sa.bindparam("lease", type_=sa.Interval())
_LIMIT: Final = sa.bindparam("limit", type_=sa.BigInteger())


def _leased(noun: type[Leased]) -> sa.Table:
    assert issubclass(noun, Base)  # noqa: S101 - Leased is a mix-in of tables; narrows the type
    table = noun.__table__
    assert isinstance(table, sa.Table)  # noqa: S101 - what a declarative class maps to; narrows the type
    return table


def is_free(noun: type[Leased]) -> sa.ColumnElement[bool]:
    """Condition: nobody has a lease on the row, or the lease has run out."""
    return _is_free(_leased(noun))


@cache
def _is_free(table: sa.Table) -> sa.ColumnElement[bool]:
    return sa.or_(table.c.lease_until.is_(None), table.c.lease_until < _NOW)


def claiming(
    noun: type[Leased],
    *,
    where: sa.ColumnElement[bool],
    lease: timedelta | sa.ColumnElement[timedelta] = _LEASE,
    limit: int | sa.ColumnElement[int] = _LIMIT,
    order_by: Iterable[sa.ColumnElement[Any]] = (),
    told: Iterable[str] = (),
) -> ReturningUpdate[Any]:
    """Statement that leases up to `limit` free rows; rows that another transaction holds are passed over.

    It returns their ids and the columns that are to be `told`. Its parameters are `by`, and `lease` and `limit` where
    these are not said here. Who claims in each round keeps it: to put it together takes longer than to execute it.
    """
    return _claiming(_leased(noun), where, lease=lease, limit=limit, order_by=order_by, told=told)


def _claiming(
    table: sa.Table,
    where: sa.ColumnElement[bool],
    *,
    lease: timedelta | sa.ColumnElement[timedelta] = _LEASE,
    limit: int | sa.ColumnElement[int],
    order_by: Iterable[sa.ColumnElement[Any]] = (),
    told: Iterable[str] = (),
) -> ReturningUpdate[Any]:
    chosen = (
        sa.select(table.c.id)
        .where(where, _is_free(table))
        .order_by(*order_by, table.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("chosen")
        .prefix_with("MATERIALIZED")
    )
    return (
        sa.update(table)
        .where(table.c.id.in_(sa.select(chosen.c.id)))
        .values(claimed_by=_BY, lease_until=_NOW + lease)
        .returning(table.c.id, *(table.c[name] for name in told))
    )


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
    statement = claiming(noun, where=where, lease=lease, limit=limit, order_by=order_by)
    return sorted(session.scalars(statement, {"by": by}))


def claim_one(session: Session, noun: type[Leased], number: int, *, by: str, lease: timedelta) -> bool:
    """Lease a row, given by its id; False where it is not free, or another transaction holds it."""
    claimed = session.scalars(_claiming_one(_leased(noun)), {"number": number, "by": by, "lease": lease})
    return claimed.first() is not None


@cache
def _claiming_one(table: sa.Table) -> ReturningUpdate[int]:
    return _claiming(table, table.c.id == sa.bindparam("number", type_=sa.BigInteger()), limit=1)


def renew(session: Session, noun: type[Leased], ids: Iterable[int], *, by: str, lease: timedelta) -> list[int]:
    """Extend the leases that `by` still holds and return their ids; whoever is missing has lost the claim."""
    held = sorted(set(ids))
    return sorted(session.scalars(_renewing(_leased(noun)), {"ids": held, "by": by, "lease": lease})) if held else []


@cache
def _renewing(table: sa.Table) -> ReturningUpdate[int]:
    mine = sa.and_(is_given(table.c.id, "ids"), table.c.claimed_by == _BY)
    return sa.update(table).where(mine).values(lease_until=_NOW + _LEASE).returning(table.c.id)


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
    held = {"ids": sorted(set(ids))}
    if by is None:
        session.execute(_releasing(_leased(noun), whoever_holds=True), held)
    else:
        session.execute(_releasing(_leased(noun), whoever_holds=False), {**held, "by": by})


@cache
def _releasing(table: sa.Table, *, whoever_holds: bool) -> sa.Update:
    held = sa.update(table).where(is_given(table.c.id, "ids")).values(claimed_by=None, lease_until=None)
    return held if whoever_holds else held.where(table.c.claimed_by == _BY)
