"""What was let go, could not be removed and has to stay by now is a copy again, if it is still there.

Whoever began to remove it may be asleep: so it gets another seal first, if it can, and is left alone by who wakes up.
Nobody knows for sure what is left of it, so it counts as never read.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.backends.base import Seal, Store
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.verbs.attempts import LeaseLost
from ccat_data_transfer.verbs.copies import keep_seals
from ccat_data_transfer.verbs.leases import CopyLease
from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.moves import advance
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import PhysicalCopyStatus
from ccat_ops_db.verbs.copies import take_back
from ccat_service.logging import StructuredLogger

_Copy, _Status = models.PhysicalCopy, PhysicalCopyStatus
_IDLE: Final = {"claimed_by": None, "lease_until": None}
_UNREAD: Final = {"verified_at": None, "not_before": None, "trouble_count": 0}
_GONE: Final = "it was to stay, and is not there any more"
_HALVED: Final = "it was to stay, and part of it was removed before"
_NOW: Final = sa.func.clock_timestamp()

_log = StructuredLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A copy that has to stay though its removal was begun."""

    copy_id: int
    store: Store
    path: str
    listing: str | None
    """What lists it, of a directory in an archive: objects below a name are nothing that has the name."""
    size_bytes: int | None
    """What all of it has."""
    because: str
    """Why it has to stay."""


@dataclass(frozen=True)
class _Found:
    is_there: bool
    is_whole: bool
    """As far as its size tells."""
    seal: Seal | None = None


def reclaim(session: Session, kept: Sequence[Kept], seen: Mapping[int, _Found | CcatError], *, one: CopyLease) -> None:
    """Have copies be what they were, as far as they are there; where that could not be seen it is looked at again."""
    mine, by = set(one.held(session)), one.worker.name
    pairs = [(copy, seen[copy.copy_id]) for copy in kept if copy.copy_id in mine.intersection(seen)]
    _put_off(session, {copy.copy_id: found for copy, found in pairs if isinstance(found, CcatError)}, one=one)
    looked_at = {copy.copy_id: found for copy, found in pairs if isinstance(found, _Found)}
    _bring_back(session, [copy for copy, _ in pairs if copy.copy_id in looked_at], by=by)
    session.execute(sa.update(_Copy).where(is_among(_Copy.id, looked_at)).values(_UNREAD))
    keep_seals(session, {copy_id: found.seal for copy_id, found in looked_at.items() if found.seal is not None})
    gone = [copy_id for copy_id, found in looked_at.items() if not found.is_there]
    halved = [copy_id for copy_id, found in looked_at.items() if found.is_there and not found.is_whole]
    were = [_Status.PRESENT, _Status.STAGED]
    advance(session, _Copy, gone, to=_Status.MISSING, expected=were, because=_GONE, by=by)
    advance(session, _Copy, halved, to=_Status.CORRUPT, expected=were, because=_HALVED, by=by)


def look_for(kept: Iterable[Kept], one: CopyLease) -> dict[int, _Found | CcatError]:
    """What is left of copies, or what keeps everybody from seeing that; nothing of those whose lease was lost."""
    seen: dict[int, _Found | CcatError] = {}
    for copy in kept:
        with suppress(LeaseLost):
            seen[copy.copy_id] = _look_for(copy, one)
    return seen


def _look_for(copy: Kept, one: CopyLease) -> _Found | CcatError:
    one.keep_lease(copy.copy_id)
    try:
        seal = copy.store.seal_anew(copy.path)
        is_listed = copy.listing is not None and copy.store.seal(copy.listing) is not None
        tree = copy.store.tree(copy.path) if isinstance(copy.store, Disk) and seal is not None else None
    except CcatError as trouble:
        return trouble
    is_whole = tree is None or copy.size_bytes in {None, tree.size_bytes}
    return _Found(is_there=seal is not None or is_listed, is_whole=is_whole, seal=seal)


def _bring_back(session: Session, copies: Iterable[Kept], *, by: str) -> None:
    by_reason: defaultdict[str, list[int]] = defaultdict(list)
    for copy in copies:
        by_reason[copy.because].append(copy.copy_id)
    for because, ids in by_reason.items():
        failed, to = [_Status.DELETION_FAILED], _Status.DELETION_SCHEDULED
        advance(session, _Copy, ids, to=to, expected=failed, because=f"it has to stay: {because}", by=by)
        take_back(session, ids, because=because, by=by)


def _put_off(session: Session, troubles: Mapping[int, CcatError], *, one: CopyLease) -> None:
    for copy_id, trouble in troubles.items():
        _log.warning("cannot see what has to stay, it is looked at again", copy=copy_id, error=str(trouble))
        later = {"failure": str(trouble), "not_before": _NOW + one.worker.backoff.ceiling, **_IDLE}
        later["trouble_count"] = _Copy.trouble_count + 1
        session.execute(sa.update(_Copy).where(_Copy.id == copy_id).values(later))
