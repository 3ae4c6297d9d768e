from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from ccat_ops_db.sets import is_among


@dataclass(frozen=True)
class Scope:
    """What is looked at: these, or everything."""

    ids: frozenset[int] | None

    @classmethod
    def of(cls, ids: Iterable[int]) -> "Scope":
        """These."""
        return cls(frozenset(ids))

    def __bool__(self) -> bool:
        return self.ids is None or bool(self.ids)

    def __or__(self, more: "Scope") -> "Scope":
        return EVERYTHING if self.ids is None or more.ids is None else Scope(self.ids | more.ids)

    def covers(self, column: Any) -> sa.ColumnElement[bool]:
        """Condition: the column holds one of these."""
        return sa.true() if self.ids is None else is_among(column, self.ids)


EVERYTHING: Final = Scope(None)
NOTHING: Final = Scope(frozenset())


@dataclass(frozen=True)
class Written:
    """What a statement changed, and how many rows that was; where it looked at everything, only whether."""

    scope: Scope
    rows: int

    @classmethod
    def those(cls, ids: Iterable[int]) -> "Written":
        """These, each once or more."""
        found = list(ids)
        return cls(Scope.of(found), len(found))

    @classmethod
    def anything(cls, rows: int) -> "Written":
        """So many rows of whatever sub-groups."""
        return cls(EVERYTHING if rows else NOTHING, rows)
