"""What is bad once it was brought to another site is not called so from there: it is read where it lies.

The disk that it came to, or what is between, may be what is bad. Nor is it who could not read a copy. Until it was read
it is not verified: it counts as no archive copy, and is not sent anywhere.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.backends.base import Store
from ccat_data_transfer.backends.errors import BadFile, FileUnreadable, LocationFails
from ccat_data_transfer.backends.movers import unreadable
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.doubts import is_believed
from ccat_data_transfer.errors import BroughtInVain, CopyUnread, SoundWhereItLies
from ccat_data_transfer.verbs.attempts import Attempt
from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import PhysicalCopyStatus

_Copy, _Location = models.PhysicalCopy, models.DataLocation
IS_IN_DOUBT: Final = sa.and_(sa.text("physical_copy.status = 'present'"), _Copy.verified_at.is_(None))
"""Condition on a copy that is not of a raw file: it is to be read before it counts."""
IS_DOUBTED: Final = sa.and_(_Copy.raw_data_file_id.is_(None), IS_IN_DOUBT, _Copy.failure.is_not(None))
"""Condition on a copy: it says why it may be bad, and is to be read first, and before it is sent anywhere.

Any other that was not read yet, as all of an archive after a backup was restored, is compared where it arrives.
"""


@contextmanager
def reading(store: Store, path: str, *, copy_id: int) -> Iterator[None]:
    """Within it a copy is read; raises CopyUnread where it cannot be, and its location as a whole can."""
    try:
        yield
    except FileUnreadable as problem:
        raise CopyUnread(copy_id, problem) from problem
    except LocationFails as trouble:
        if trouble.location != store.name or not isinstance(store, Disk):
            raise
        raise CopyUnread(copy_id, unreadable(store, path, trouble)) from trouble


def doubt_what_was_brought(session: Session, one: Attempt, error: CcatError) -> CcatError | None:
    """Have copies that were brought or read in vain read next where they lie, before they are verified again.

    What was read there since this transfer was first in such trouble, and found right, is not: where that is so of all
    of them, what is told instead is that the trouble is with who reads them.
    """
    problems = _problems(error)
    if not problems:
        return None
    right = found_right(session, one, problems)
    told = {copy_id: f"{problems[copy_id]} {one.by} found that." for copy_id in sorted(problems.keys() - right)}
    places = {_doubt(session, copy_id, because=because) for copy_id, because in told.items()}
    read_soon(session, {place for place in places if place is not None})
    one.note_doubt(session)
    return None if told else SoundWhereItLies(problems.values(), by=one.by)


def found_right(session: Session, one: Attempt, copy_ids: Collection[int]) -> set[int]:
    """Those of some copies that, since this transfer could not have one, were found right where they lie."""
    since = one.doubts_since(session)
    if since is None:
        return set()
    read = sa.select(_Copy.id, _Copy.verified_at).where(is_among(_Copy.id, copy_ids), _Copy.verified_at > since)
    now: datetime = session.scalars(sa.select(sa.func.clock_timestamp())).one()
    return {
        copy_id for copy_id, at in session.execute(read) if at is not None and is_believed(at, since=since, now=now)
    }


def _problems(error: CcatError) -> Mapping[int, CcatError]:
    """What an error says of copies."""
    match error:
        case BroughtInVain():
            return error.problems
        case CopyUnread():
            return {error.copy_id: error.problem}
        case _:
            return {}


def _doubt(session: Session, copy_id: int, *, because: str) -> int | None:
    """Where a copy lies that is not verified from now on; None for one that is not there any more, or is in doubt."""
    is_trusted = sa.or_(_Copy.verified_at.is_not(None), _Copy.failure.is_(None))  # else it waits to be read already
    there = sa.update(_Copy).where(_Copy.id == copy_id, _Copy.status == PhysicalCopyStatus.PRESENT, is_trusted)
    anew = there.values(verified_at=None, not_before=None, failure=because).returning(_Copy.data_location_id)
    return session.scalar(anew, execution_options={"synchronize_session": False})


def read_soon(session: Session, location_ids: Collection[int]) -> None:
    """Have the manager look at locations at once, what is not verified there being read first."""
    looked_at = sa.update(_Location).where(is_among(_Location.id, location_ids)).values(archive_look_at=None)
    session.execute(looked_at, execution_options={"synchronize_session": False})


def still_there(session: Session, problems: Mapping[int, BadFile]) -> dict[int, BadFile]:
    """Those of some copies that nobody called bad where they lie."""
    there = sa.select(_Copy.id).where(is_among(_Copy.id, problems), _Copy.status == PhysicalCopyStatus.PRESENT)
    return {copy_id: problems[copy_id] for copy_id in sorted(session.scalars(there))}
