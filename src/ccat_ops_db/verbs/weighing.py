"""What an exclusion, or lifting one, would mean, before anybody does it."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from ccat_ops_db.queries.exclusions import Affected, Concerned, affected, concerned
from ccat_ops_db.verbs.foreseeing import Foreseen, foresee_change, undone
from ccat_ops_db.verbs.turns import take_turn


@dataclass(frozen=True)
class Weighed:
    """What a change of what is excluded would mean."""

    concerned: Concerned
    sub_groups: Sequence[Affected]
    """Those that have such packages now."""
    foreseen: Foreseen


def weigh(session: Session, change: Callable[[], Collection[int]], *, now: datetime, by: str) -> Weighed:
    """What a change would mean that makes or lifts exclusions, and returns their ids; nothing of it stays."""
    take_turn(session)
    with undone(session):
        numbers = change()
        packages, sub_groups = concerned(session, numbers), affected(session, numbers)
    return Weighed(packages, sub_groups, foresee_change(session, change, now=now, by=by))
