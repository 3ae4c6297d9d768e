"""A database that was copied from another installation becomes an installation of its own."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.claims import expire, holders
from ccat_ops_db.errors import CcatError
from ccat_ops_db.lookup import LOCATION
from ccat_ops_db.models.base import Base, Leased
from ccat_ops_db.plan.relocation import relocated, relocated_keys, relocated_settings
from ccat_ops_db.queries.spaces import place_told
from ccat_ops_db.states import LocationType
from ccat_ops_db.verbs.pausing import pause
from ccat_ops_db.verbs.reading import begin_to_read

NUMBERS_LEFT_OUT: Final = 1_000_000
"""At least so many of each kind: the other installation may have given them after its database was copied."""
_LEAVE_NUMBERS_OUT: Final = sa.text(f"""
    SELECT setval(
        format('%I.%I', schemaname, sequencename)::regclass,
        (coalesce(last_value, 0) / {NUMBERS_LEFT_OUT} + 2) * {NUMBERS_LEFT_OUT},
        false
    ) FROM pg_sequences WHERE schemaname = current_schema() AND data_type = 'bigint'::regtype
""")  # noqa: S608 - our own number


def become_another_installation(session: Session, *, because: str, by: str) -> uuid.UUID:
    """Give the database an installation id of its own, which is returned, and pause everything.

    Nobody holds anything any more, and no process is missed. What is made from now on has numbers that the other
    installation did not give.
    """
    fresh = uuid.uuid4()
    session.execute(sa.update(models.Installation).values(installation_id=fresh))
    session.execute(_LEAVE_NUMBERS_OUT)
    for noun in _leased():
        expire(session, noun, of=holders(session, noun))
    session.execute(sa.delete(models.SeenService))
    pause(session, pipeline=None, location=None, because=because, by=by)
    return fresh


def _leased() -> list[type[Leased]]:
    """Every noun that processes claim; kinds of one share its table."""
    mappers = (mapper for mapper in Base.registry.mappers if mapper.inherits is None)
    return [mapper.class_ for mapper in mappers if issubclass(mapper.class_, Leased)]


def trust_no_archive(session: Session) -> int:
    """Let copies in archives count for nothing until they were read here; how many that are.

    What a backup says of an archive is older than the archive may be: what relies on these copies is kept meanwhile.
    """
    copy, location = models.PhysicalCopy, models.DataLocation
    is_archive = location.location_type == LocationType.LONG_TERM_ARCHIVE
    session.execute(sa.update(location).where(is_archive).values(archive_look_at=None))
    begin_to_read(session)
    archives = sa.select(location.id).where(is_archive)
    read = sa.and_(copy.data_location_id.in_(archives), copy.verified_at.is_not(None))
    return session.connection().execute(sa.update(copy).where(read).values(verified_at=None)).rowcount


class NothingMoved(CcatError):
    """Something is said to have been moved that no location is in."""

    code = "nothing_moved"

    def __init__(self, old: str, places: Mapping[str, str]) -> None:
        told = ", ".join(f"{name} at {place}" for name, place in places.items())
        super().__init__(
            f"No location of the backup lies at or below {old}: {told}. Restore it again, with what was moved."
        )


def relocate(session: Session, moves: Mapping[str, str], *, said: Collection[str]) -> list[str]:
    """Let locations lie where their directories or buckets were moved to, old → new; the names of those that do now.

    Raises NothingMoved for one that somebody `said` to have been moved, and that moves none.
    """
    locations = _locations(session)
    for old in said:
        if not any(_changes(one, {old: moves[old]}) for one, _ in locations):
            raise NothingMoved(old, places_but(session, ()))
    moved = [(one, label, _changes(one, moves)) for one, label in locations]
    for one, _, changes in moved:
        for field, value in changes.items():
            setattr(one, field, value)
        if changes:
            one.marked_at = None  # its mark need not have come along
    return [label for _, label, changes in moved if changes]


def places_but(session: Session, names: Collection[str]) -> dict[str, str]:
    """Where all locations but these lie, by their names."""
    return {label: place_told(one) for one, label in _locations(session) if label not in names}


def _locations(session: Session) -> Sequence[tuple[models.DataLocation, str]]:
    rows = session.execute(LOCATION.rows.add_columns(LOCATION.label).order_by(LOCATION.label))
    return [(one, label) for one, label in rows]


def _changes(one: models.DataLocation, moves: Mapping[str, str]) -> Mapping[str, Any]:
    """What of a location is otherwise after moves."""
    now: dict[str, Any] = {}
    match one:
        case models.DiskDataLocation():
            now["path"] = relocated(one.path, moves)
            now["backend_settings"] = relocated_settings(one.backend_settings, moves)
        case models.S3DataLocation():
            now["bucket"], now["prefix"] = relocated_keys(one.bucket, one.prefix, moves)
    return {field: value for field, value in now.items() if getattr(one, field) != value}
