"""One worker that cannot read an archive says nothing for the others, and is told of by name."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from ccat_data_transfer.verbs.probing import probe
from ccat_data_transfer.verbs.scrubbing import scrub
from ccat_ops_db import models
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.session import transaction
from ccat_ops_db.states import AlertKind, LocationType
from ccat_ops_db.verbs.losing import lose_location
from tests.transfer.object_store import ObjectStore, Road
from tests.transfer.support import START, Observatory, say
from tests.transfer.test_probing import DISK, STORE, archived, let_go, read, unreadable
from tests.transfer.test_troubles import forbidden

GOOD, BAD = "transfer-worker@cologne-1:7", "transfer-worker@cologne-2:8"
READER = models.ArchiveReader
MINUTES = timedelta(minutes=3)


def look(observatory: Observatory, by: str, location: str = STORE) -> None:
    probe(observatory.engine, observatory.location_id(location), by=by)


def fail(observatory: Observatory, store: ObjectStore, by: str) -> None:
    """A worker looks that lacks its key."""
    with store.asking_for_credentials():
        look(observatory, by)


def told(observatory: Observatory) -> list[str]:
    with transaction(observatory.engine) as session:
        found = conditions(session, late=START)
        return [one.sentence for one in found if one.kind is AlertKind.UNUSABLE_LOCATION]


def let_minutes_pass(observatory: Observatory, *, of: str) -> None:
    """It has been so for minutes; a worker `of` which nothing is heard any more is gone."""
    with transaction(observatory.engine) as session:
        since = {"unreadable_since": READER.unreadable_since - MINUTES}
        session.execute(sa.update(READER).values(since))
        session.execute(sa.update(READER).where(READER.worker == of).values(looked_at=READER.looked_at - MINUTES))


@pytest.fixture
def package(observatory: Observatory, s3_archive: Road) -> int:
    """A package whose only archive copy is in the store."""
    del s3_archive
    return archived(observatory, STORE)


def test_an_archive_is_readable_for_all_while_one_worker_reads_it(
    observatory: Observatory, object_store: ObjectStore, package: int
) -> None:
    look(observatory, GOOD)
    for _ in range(2):
        fail(observatory, object_store, BAD)
        assert unreadable(observatory, STORE) is None
        with object_store.asking_for_credentials():  # a reader of copies says the same
            read(observatory, package, STORE)
        assert unreadable(observatory, STORE) is None
        look(observatory, GOOD)
    assert let_go(observatory) == 3


@pytest.mark.usefixtures("package")
def test_people_are_told_which_worker_cannot_read_until_it_can(
    observatory: Observatory, object_store: ObjectStore
) -> None:
    look(observatory, GOOD)
    fail(observatory, object_store, BAD)
    assert told(observatory) == []
    let_minutes_pass(observatory, of="nobody")
    fail(observatory, object_store, BAD)
    [sentence] = told(observatory)
    assert sentence.startswith(f"transfer-worker@cologne-2 can read nothing at archive {STORE} since ")
    assert "while others can: Location cologne/s3 " in sentence
    assert "cannot be read by transfer-worker@cologne-2: Location" in " ".join(say(observatory, "locations").split())
    look(observatory, BAD)
    assert told(observatory) == []
    assert "cannot be read" not in say(observatory, "locations")


@pytest.mark.usefixtures("package")
def test_an_archive_is_away_when_the_last_worker_that_reads_it_is_gone(
    observatory: Observatory, object_store: ObjectStore
) -> None:
    look(observatory, GOOD)
    fail(observatory, object_store, BAD)
    let_minutes_pass(observatory, of=GOOD)
    fail(observatory, object_store, BAD)
    assert STORE in (unreadable(observatory, STORE) or "")
    assert let_go(observatory) == 0
    look(observatory, GOOD)
    fail(observatory, object_store, BAD)
    assert unreadable(observatory, STORE) is None


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("first", [GOOD, BAD])
def test_an_archive_that_no_worker_can_read_is_away_whoever_sees_it_first(
    observatory: Observatory, object_store: ObjectStore, first: str
) -> None:
    for one in (GOOD, BAD):
        look(observatory, one)
    for one in sorted((GOOD, BAD), key=lambda worker: worker != first):
        assert unreadable(observatory, STORE) is None
        fail(observatory, object_store, one)
    assert unreadable(observatory, STORE) is not None


def test_a_mark_that_another_worker_reads_does_not_end_what_a_reader_of_copies_met(observatory: Observatory) -> None:
    package_id = archived(observatory, DISK)
    look(observatory, GOOD, DISK)
    with forbidden(observatory.directory(DISK) / "raw"):  # its mark can be read
        look(observatory, GOOD, DISK)
        read(observatory, package_id, DISK)
        look(observatory, GOOD, DISK)
        assert "Permission denied" in (unreadable(observatory, DISK) or "")
    scrub(observatory.worker, [observatory.copies(package_id)[DISK].id])
    assert unreadable(observatory, DISK) is None


def test_what_workers_saw_goes_with_an_archive_that_is_lost_and_with_one_that_is_removed(
    observatory: Observatory, object_store: ObjectStore, package: int
) -> None:
    del package
    fail(observatory, object_store, BAD)
    lose_location(observatory.engine, STORE, because="it burnt", by="a test")
    observatory.add_location("cologne/new", LocationType.LONG_TERM_ARCHIVE)
    look(observatory, GOOD, "cologne/new")
    say(observatory, "location", "remove", "cologne/new")
    with transaction(observatory.engine) as session:
        assert session.scalars(sa.select(READER.worker)).all() == []
