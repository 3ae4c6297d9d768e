from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session


@dataclass(frozen=True)
class Change:
    """What applying did to one named thing."""

    kind: str
    name: str
    action: Literal["created", "changed", "unchanged"]
    detail: str = ""


def update(row: Any, values: Mapping[str, Any], *, kind: str, name: str) -> Change:
    """Give a row these values, and tell which of them were new to it."""
    changed = [key for key, value in values.items() if getattr(row, key) != value]
    for key in changed:
        setattr(row, key, values[key])
    return Change(kind, name, "changed" if changed else "unchanged", ", ".join(changed))


def put(
    session: Session, noun: Any, key: Mapping[str, Any], *, values: Mapping[str, Any], kind: str, name: str
) -> tuple[Any, Change]:
    """The row with this natural key, made or brought to these values, and what that did."""
    known = session.scalars(sa.select(noun).filter_by(**key)).one_or_none()
    if known is not None:
        return known, update(known, values, kind=kind, name=name)
    row = noun(**key, **values)
    session.add(row)
    session.flush()
    return row, Change(kind, name, "created")


def identity(session: Session, noun: Any, **key: Any) -> Any:
    """The row with this natural key, made where there is none yet."""
    session.execute(insert(noun).values(**key).on_conflict_do_nothing())
    return session.scalars(sa.select(noun).filter_by(**key)).one()
