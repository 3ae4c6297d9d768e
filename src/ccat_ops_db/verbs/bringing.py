"""A person has raw packages staged at a processing location, to look at them there, and lets them go again."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.lookup import PROCESSING_LOCATION, find
from ccat_ops_db.models.data import GOING
from ccat_ops_db.moves import advance
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.plan.retention import Obstacle, hindered
from ccat_ops_db.queries.retention import obstacles, places
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import PackageState, PhysicalCopyStatus
from ccat_ops_db.verbs.copies import WHY_IN_DOUBT, note_use
from ccat_ops_db.verbs.staging import cancel_staging, keep_staging, request_staging

_Copy, _Package, _Status = models.PhysicalCopy, models.RawDataPackage, PhysicalCopyStatus
_PACKAGE: Final = sa.type_coerce(_Copy.raw_data_package_id, sa.BigInteger).label("package_id")
"""Of a copy of one."""
_IS_THERE: Final = sa.or_(_Copy.status == _Status.STAGED, sa.text(f"physical_copy.{GOING}"))
_NEVER_TRIED: Final = {"not_before": None, "trouble_count": 0, "failure": WHY_IN_DOUBT}
_NAMED: Final = 10
_Held: TypeAlias = sa.Row[int, int, PhysicalCopyStatus]
"""A copy, its package, and how it is."""


class NotArchivedYet(CcatError):
    """Packages were to be staged that no archive has."""

    code = "not_archived_yet"

    def __init__(self, states: Sequence[tuple[str, str]]) -> None:
        some = ", ".join(f"{name} is {state}" for name, state in states[:_NAMED])
        more = f", and so are {len(states) - _NAMED:,} more that are not archived" if len(states) > _NAMED else ""
        packages = counted(len(states), "package is", "packages are")
        super().__init__(
            f"{packages} not archived, and what is staged comes from an archive: {some}{more}. "
            "`ccat packages` says what each waits for. Nothing was asked for."
        )


@dataclass(frozen=True, kw_only=True)
class Brought:
    """What becomes of packages that are wanted somewhere; each is in one of these."""

    asked: Sequence[int]
    """Those whose staging is asked for."""
    on_their_way: Sequence[int]
    """Those that are staged there just now, or wait for it, for others."""
    staged: Sequence[int]
    """Those that are there, and count as used now."""


@dataclass(frozen=True, kw_only=True)
class LetGo:
    """What becomes of packages that are not wanted somewhere any more."""

    cancelled: Sequence[int]
    """Those whose staging was not done yet."""
    going: Sequence[int]
    """Those whose staged copy is removed now."""
    kept: Mapping[int, str]
    """Why others stay, or are staged all the same, as half a sentence."""
    absent: Sequence[int]
    """Those that are not there, and were not on their way."""


def stage_packages(session: Session, package_ids: Collection[int], location: str) -> Brought:
    """Have raw packages staged at a processing location, until it is said that they may go, or their time is over.

    What is there already is kept as long as if a run had begun to use it now. Raises UnknownName and NotArchivedYet.
    """
    place, wanted = find(session, PROCESSING_LOCATION, location), sorted(set(package_ids))
    _require_archived(session, wanted)
    _hold(session, wanted, place.id)
    new = request_staging(session, wanted, place.id)
    coming = keep_staging(session, wanted, place.id)
    staged = {one.package_id: one.id for one in _hold(session, wanted, place.id) if _is_staged(one)}
    note_use(session, list(staged.values()))
    return Brought(
        asked=sorted(coming[job] for job in coming.keys() & set(new)),
        on_their_way=sorted(coming[job] for job in coming.keys() - set(new)),
        staged=sorted(staged.keys() - set(coming.values())),
    )


def unstage_packages(session: Session, package_ids: Collection[int], location: str, *, by: str) -> LetGo:
    """Say that raw packages are not wanted at a processing location any more, but for what active runs take.

    Staging is cancelled, also in its middle, and what is staged is removed without waiting for its time.
    Raises UnknownName.
    """
    place, given = find(session, PROCESSING_LOCATION, location), sorted(set(package_ids))
    _hold(session, given, place.id)
    cancelled, wanted = cancel_staging(session, given, place.id, by=by)
    held = _hold(session, given, place.id)  # with what a worker had ready just then
    there = {one.id: one.package_id for one in held if _is_staged(one)}
    hinders = _hindrances(session, there, location_id=place.id)
    free = [copy_id for copy_id in there if copy_id not in hinders]
    options: dict[str, Any] = {"because": f"{by} does not want it there any more", "by": by, "values": _NEVER_TRIED}
    advance(session, _Copy, free, to=_Status.DELETION_POSSIBLE, **options)
    kept = {there[copy_id]: why for copy_id, why in hinders.items()} | dict.fromkeys(wanted, hindered(Obstacle.IN_USE))
    going = {one.package_id for one in held} - kept.keys()
    absent = set(given) - going - kept.keys() - set(cancelled)
    return LetGo(cancelled=cancelled, going=sorted(going), kept=dict(sorted(kept.items())), absent=sorted(absent))


def _require_archived(session: Session, package_ids: Collection[int]) -> None:
    others = sa.select(_Package.name, _Package.state).where(
        is_among(_Package.id, package_ids), _Package.state != PackageState.ARCHIVED
    )
    found = [(name, str(state)) for name, state in session.execute(others.order_by(_Package.id))]
    if found:
        raise NotArchivedYet(found)


def _hold(session: Session, package_ids: Collection[int], location_id: int) -> Sequence[_Held]:
    """Copies of packages that are at a location; nobody else lets them go, or begins to use them, meanwhile."""
    here = (is_among(_Copy.raw_data_package_id, package_ids), _Copy.data_location_id == location_id, _IS_THERE)
    found = sa.select(_Copy.id, _PACKAGE, _Copy.status).where(*here).order_by(_Copy.id)
    return session.execute(found.with_for_update()).all()


def _is_staged(copy: _Held) -> bool:
    staged: bool = copy.status is _Status.STAGED
    return staged


def _hindrances(session: Session, copy_ids: Iterable[int], *, location_id: int) -> Mapping[int, str]:
    """Why staged copies have to stay, those of them that have to."""
    ids = list(copy_ids)
    [place] = places(session, [location_id])
    if place.paused:
        return dict.fromkeys(ids, f"deleting is paused there: {place.paused}")
    return {copy_id: hindered(obstacle) for copy_id, obstacle in obstacles(session, ids).items()}
