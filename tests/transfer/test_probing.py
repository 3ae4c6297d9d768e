"""An archive at which nothing can be read, on disk or in an object store, is no reason to let anything go."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from ccat_data_transfer.verbs.probing import probe
from ccat_data_transfer.verbs.scrubbing import scrub
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.plan.marks import MARK
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.session import transaction
from ccat_ops_db.states import AlertKind, PhysicalCopyStatus
from ccat_service.servers import RedisSettings
from tests.transfer.object_store import BUCKET, ENVIRONMENT, ObjectStore, Road
from tests.transfer.processes import CCAT, Process, settings_of
from tests.transfer.support import START, Observatory, eventually, say
from tests.transfer.test_replication import make_old
from tests.transfer.test_troubles import forbidden

FILES = {"a.fits": b"a" * 3000, "b.fits": b"b"}
DISK, STORE, SOURCE, BUFFER = "cologne/lta", "cologne/s3", "ccat/chai_raw_data", "ccat/buffer"


@contextmanager
def emptied(store: ObjectStore) -> Iterator[None]:
    kept = {key: (store.get(key), store.metadata(key)) for key in store.all_keys()}
    for key in kept:
        store.s3.delete_object(Bucket=BUCKET, Key=key)
    yield
    for key, (data, metadata) in kept.items():
        store.s3.put_object(Bucket=BUCKET, Key=key, Body=data, Metadata=metadata)


@contextmanager
def deleted(store: ObjectStore) -> Iterator[None]:
    with emptied(store):
        store.s3.delete_bucket(Bucket=BUCKET)
        yield
        store.s3.create_bucket(Bucket=BUCKET)


def revoked(store: ObjectStore) -> AbstractContextManager[None]:
    return store.asking_for_credentials()


AWAY = {"emptied": emptied, "deleted": deleted, "revoked": revoked}


def archived(observatory: Observatory, location: str) -> int:
    """A package whose only archive copy is there; what else has it would go at once."""
    package_id = observatory.observe(FILES)
    observatory.do_all()
    assert location in observatory.copies(package_id)
    for one in (SOURCE, BUFFER):
        observatory.keep(one, days=0)
    return package_id


def let_go(observatory: Observatory) -> int:
    return observatory.make_room(SOURCE) + observatory.make_room(BUFFER)


def look(observatory: Observatory, location: str) -> str | None:
    """What keeps everybody from reading at an archive, as its worker looks and writes it down."""
    probe(observatory.engine, observatory.location_id(location), by="worker")
    return unreadable(observatory, location)


def unreadable(observatory: Observatory, location: str) -> str | None:
    with transaction(observatory.engine) as session:
        return find(session, LOCATION, location).unreadable


def read(observatory: Observatory, package_id: int, location: str) -> None:
    """Read the copy there, as it is due."""
    make_old(observatory, days=181)
    with transaction(observatory.engine) as session:
        session.execute(sa.update(models.PhysicalCopy).values(not_before=None))
    scrub(observatory.worker, [observatory.copies(package_id)[location].id])


def told(observatory: Observatory) -> list[str]:
    """What people are told after some minutes."""
    with transaction(observatory.engine) as session:
        long_ago = models.DataLocation.unreadable_since - timedelta(minutes=3)
        session.execute(sa.update(models.DataLocation).values(unreadable_since=long_ago))
        found = conditions(session, late=START)
        return [one.sentence for one in found if one.kind is AlertKind.UNUSABLE_LOCATION]


@pytest.mark.parametrize("how", AWAY)
@pytest.mark.usefixtures("s3_archive")
def test_what_the_reader_of_an_object_store_meets_keeps_what_others_have(
    observatory: Observatory, object_store: ObjectStore, how: str
) -> None:
    package_id = archived(observatory, STORE)
    with AWAY[how](object_store):
        read(observatory, package_id, STORE)
        assert let_go(observatory) == 0
        assert observatory.copies(package_id)[STORE].status is PhysicalCopyStatus.PRESENT
    read(observatory, package_id, STORE)
    assert unreadable(observatory, STORE) is None
    assert let_go(observatory) == len(FILES) + 1


@pytest.mark.parametrize("how", AWAY)
@pytest.mark.usefixtures("s3_archive")
def test_who_serves_an_object_store_sees_that_it_cannot_be_read_though_nothing_is_due(
    observatory: Observatory, object_store: ObjectStore, how: str
) -> None:
    archived(observatory, STORE)
    assert look(observatory, STORE) is None
    with AWAY[how](object_store):
        assert STORE in (look(observatory, STORE) or "")
        assert let_go(observatory) == 0
        assert "they cannot be read, or no worker has looked" in say(observatory, "retention", "plan")
        assert "cannot be read: " in say(observatory, "locations")
        [sentence] = told(observatory)
        assert sentence.startswith(f"nothing can be read at archive {STORE} since ")
    assert (look(observatory, STORE), told(observatory)) == (None, [])
    assert let_go(observatory) == len(FILES) + 1


def test_a_disk_that_answers_and_gives_nothing_is_no_reason_to_let_anything_go(observatory: Observatory) -> None:
    package_id = archived(observatory, DISK)
    for reads_copies in (False, True):
        with forbidden(observatory.directory(DISK)):
            read(observatory, package_id, DISK) if reads_copies else look(observatory, DISK)
        assert "Permission denied" in (unreadable(observatory, DISK) or "")
        assert let_go(observatory) == 0
        assert look(observatory, DISK) is None
    assert let_go(observatory) == len(FILES) + 1


def test_who_reads_copies_knows_more_than_who_reads_the_mark(observatory: Observatory) -> None:
    package_id = archived(observatory, DISK)
    with forbidden(observatory.directory(DISK) / "raw"):
        assert look(observatory, DISK) is None
        read(observatory, package_id, DISK)
        assert "Permission denied" in (look(observatory, DISK) or "")
        assert let_go(observatory) == 0
    assert look(observatory, DISK) is None


@pytest.mark.usefixtures("s3_archive")
def test_an_object_store_that_nobody_has_looked_at_for_an_hour_is_away(observatory: Observatory) -> None:
    archived(observatory, STORE)
    look(observatory, STORE)
    with transaction(observatory.engine) as session:
        location = find(session, LOCATION, STORE)
        location.probed_at = sa.func.clock_timestamp() - timedelta(minutes=61)
    assert let_go(observatory) == 0
    look(observatory, STORE)
    assert let_go(observatory) == len(FILES) + 1


def test_an_archive_without_a_mark_is_read_by_its_copies(observatory: Observatory) -> None:
    archived(observatory, DISK)
    (observatory.directory(DISK) / MARK).unlink()
    assert look(observatory, DISK) is None


def test_an_archive_that_has_nothing_yet_is_in_no_trouble(observatory: Observatory) -> None:
    assert look(observatory, DISK) is None


@pytest.mark.usefixtures("s3_archive")
def test_a_transfer_worker_looks_at_the_archives_that_it_serves(
    observatory: Observatory, object_store: ObjectStore, redis_settings: RedisSettings, tmp_path: Path
) -> None:
    archived(observatory, STORE)
    url = observatory.engine.url.render_as_string(hide_password=False)
    command = [*CCAT, "transfer-worker", "--location", STORE]
    with deleted(object_store):
        process = Process(command, settings_of(url, redis_settings) | ENVIRONMENT, log=tmp_path / "worker")
        try:
            eventually(lambda: "has no such bucket" in (unreadable(observatory, STORE) or ""), within=60)
            process.stop()
        finally:
            process.end()


def test_a_road_that_is_cut_is_told_and_over_with_the_cut(observatory: Observatory, s3_archive: Road) -> None:
    archived(observatory, STORE)
    s3_archive.close()
    assert "fails" in (look(observatory, STORE) or "")
    s3_archive.mend()
    assert look(observatory, STORE) is None
