"""Whoever pauses a location pauses that one."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION
from ccat_ops_db.queries.pauses import held_because, is_held
from ccat_ops_db.queries.retention import is_paused
from ccat_ops_db.queries.unread import archives_unserved
from ccat_ops_db.states import PhysicalCopyStatus
from tests.ops_db.rows import World, add

_Location = models.DataLocation


@pytest.fixture
def session(shared_engine: sa.Engine) -> Iterator[Session]:
    """A session whose work is undone."""
    with Session(shared_engine) as session:
        yield session


def pause(session: Session, location: int | None) -> None:
    add(session, models.Pause(data_location_id=location, because="the roof leaks", by="Ann"))


def among_all(session: Session, condition: sa.ColumnElement[bool]) -> set[int]:
    return set(session.scalars(LOCATION.rows.with_only_columns(_Location.id).where(condition)))


def test_a_pause_of_one_location_holds_no_other(session: Session, world: World) -> None:
    pause(session, world.archive)
    for condition in (is_held(), is_paused(), held_because().is_not(None)):
        assert among_all(session, condition) == {world.archive}
    elsewhere = sa.exists().where(_Location.id == world.source_location, sa.not_(is_held()))
    assert session.scalar(sa.select(elsewhere))


@pytest.mark.usefixtures("world")
def test_a_pause_of_everything_holds_all_locations(session: Session) -> None:
    pause(session, None)
    assert among_all(session, is_held()) == set(session.scalars(sa.select(_Location.id)))


def test_copies_elsewhere_are_not_what_is_to_be_read_at_an_archive(session: Session, world: World) -> None:
    row = {"raw_data_package_id": world.package, "path": "x", "status": PhysicalCopyStatus.PRESENT}
    add(session, models.RawDataPackagePhysicalCopy(data_location_id=world.processing, **row))
    assert list(archives_unserved(session)) == []
    add(session, models.RawDataPackagePhysicalCopy(data_location_id=world.archive, **row))
    assert [one.key for one in archives_unserved(session)] == ["not read again cologne/lta"]
