"""A database that was copied from another installation becomes an installation of its own."""

import uuid
from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.claims import expire, holders
from ccat_ops_db.models.base import Base, Leased
from ccat_ops_db.plan.relocation import relocated, relocated_settings
from ccat_ops_db.verbs.pausing import pause

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


def relocate(session: Session, moves: Mapping[str, str]) -> list[str]:
    """Let locations lie where their directories were moved to, old → new; the names of those that do now."""
    moved = []
    for location in session.scalars(sa.select(models.DiskDataLocation).order_by(models.DiskDataLocation.id)):
        path, settings = relocated(location.path, moves), relocated_settings(location.backend_settings, moves)
        if (path, settings) != (location.path, location.backend_settings):
            location.path, location.backend_settings = path, settings
            moved.append(f"{location.site.short_name}/{location.name}")
    return moved
