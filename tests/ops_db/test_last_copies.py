"""The last verified archive copy of raw data is kept by the database itself, whoever writes."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.moves import advance
from ccat_ops_db.session import transaction
from ccat_ops_db.states import PhysicalCopyStatus
from tests.ops_db.rows import DIGEST, World, a_world, add

_Copy, _Status = models.PhysicalCopy, PhysicalCopyStatus


@pytest.fixture
def database(engine: sa.Engine) -> tuple[sa.Engine, World]:
    """One package of one file, archived."""
    with transaction(engine) as session:
        world = a_world(session)
        session.execute(sa.update(models.RawDataPackage).values(checksum=DIGEST, size_bytes=1))
        session.execute(sa.update(models.RawDataFile).values(raw_data_package_id=world.package))
        site = find(session, LOCATION, "cologne/lta").site_id
        kind = {"location_type": "long_term_archive", "path": "/elsewhere"}
        session.add(models.DiskDataLocation(site_id=site, name="lta2", **kind))
    return engine, world


def a_copy(session: Session, world: World, where: str, status: str = "present", **values: object) -> int:
    """A copy of the package, or of the file at its source, with this status."""
    row = {"path": f"x-{where}", "checksum": DIGEST, "verified_at": sa.func.now(), "status": status, **values}
    row["data_location_id"] = find(session, LOCATION, where).id
    if where == "ccat/chai_raw_data":
        return add(session, models.RawDataFilePhysicalCopy(raw_data_file_id=world.file, **row)).id
    return add(session, models.RawDataPackagePhysicalCopy(raw_data_package_id=world.package, **row)).id


def begin(session: Session, copy_id: int) -> list[int]:
    to = _Status.DELETION_IN_PROGRESS
    return advance(session, _Copy, [copy_id], to=to, because="a test", by="a test")


@pytest.mark.parametrize("where", ["ccat/buffer", "ccat/chai_raw_data", "cologne/ramses", "cologne/lta"])
def test_no_copy_of_raw_data_goes_without_a_verified_one_in_an_archive(
    database: tuple[sa.Engine, World], where: str
) -> None:
    engine, world = database
    with transaction(engine) as session:
        copy_id = a_copy(session, world, where, "deletion_scheduled")
    too_few = "would have 0 verified archive copies then, and needs 1"
    with pytest.raises(IntegrityError, match=too_few), transaction(engine) as session:
        begin(session, copy_id)
    with pytest.raises(IntegrityError, match="is kept"), engine.begin() as connection:
        connection.execute(sa.text("UPDATE physical_copy SET status = 'deleted' WHERE id = :id"), {"id": copy_id})
    with transaction(engine) as session:
        a_copy(session, world, "cologne/lta2")
    with transaction(engine) as session:
        assert begin(session, copy_id) == [copy_id]


@pytest.mark.parametrize(
    "lacks",
    [{"verified_at": None}, {"checksum": f"sha256:{'1' * 64}"}, {"status": "corrupt"}, {"status": "deletion_possible"}],
)
def test_only_a_copy_that_was_verified_and_is_there_counts(
    database: tuple[sa.Engine, World], lacks: dict[str, str]
) -> None:
    engine, world = database
    with transaction(engine) as session:
        a_copy(session, world, "cologne/lta", **lacks)
        copy_id = a_copy(session, world, "ccat/buffer", "deletion_scheduled")
    with pytest.raises(IntegrityError, match="is kept"), transaction(engine) as session:
        begin(session, copy_id)


def test_a_source_is_kept_while_there_are_fewer_copies_than_its_class_of_data_needs(
    database: tuple[sa.Engine, World],
) -> None:
    engine, world = database
    with transaction(engine) as session:
        safe = add(session, models.DataClass(name="precious", min_verified_archive_copies=2))
        session.execute(sa.update(models.Instrument).values(data_class_id=safe.id))
        a_copy(session, world, "cologne/lta")
        source = a_copy(session, world, "ccat/chai_raw_data", "deletion_scheduled")
        buffer = a_copy(session, world, "ccat/buffer", "deletion_scheduled")
    with transaction(engine) as session:
        assert begin(session, buffer) == [buffer]
    too_few = "would have 1 verified archive copies then, and needs 2"
    with pytest.raises(IntegrityError, match=too_few), transaction(engine) as session:
        begin(session, source)
    with transaction(engine) as session:
        a_copy(session, world, "cologne/lta2")
        assert begin(session, source) == [source]


def test_a_raw_file_that_is_in_no_package_is_never_let_go(database: tuple[sa.Engine, World]) -> None:
    engine, world = database
    with transaction(engine) as session:
        a_copy(session, world, "cologne/lta")
        copy_id = a_copy(session, world, "ccat/chai_raw_data", "deletion_scheduled")
        session.execute(sa.update(models.RawDataFile).values(raw_data_package_id=None))
    with pytest.raises(IntegrityError, match="is in no package yet"), transaction(engine) as session:
        begin(session, copy_id)


@pytest.mark.parametrize("status", ["writing", "corrupt", "missing"])
def test_rows_of_what_is_no_copy_are_closed_whatever_there_is_elsewhere(
    database: tuple[sa.Engine, World], status: str
) -> None:
    engine, world = database
    with transaction(engine) as session:
        copy_id = a_copy(session, world, "cologne/lta", status)
        to = _Status.DELETED
        assert advance(session, _Copy, [copy_id], to=to, because="made anew", by="a test") == [copy_id]


def test_of_two_that_delete_the_last_two_archive_copies_at_once_one_is_refused(
    database: tuple[sa.Engine, World],
) -> None:
    engine, world = database
    with transaction(engine) as session:
        copies = [a_copy(session, world, where, "present") for where in ("cologne/lta", "cologne/lta2")]
    both_have_begun = threading.Barrier(2)

    def delete(copy_id: int) -> bool:
        try:
            with transaction(engine) as session:
                session.execute(sa.select(_Copy.id).where(_Copy.id == copy_id).with_for_update())
                both_have_begun.wait(10)
                session.execute(
                    sa.text("UPDATE physical_copy SET status = 'deletion_in_progress' WHERE id = :id"), {"id": copy_id}
                )
                time.sleep(0.1)  # the other waits, or would win too
        except IntegrityError:
            return False
        return True

    for _ in range(5):
        both_have_begun.reset()
        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(delete, copies)) == [False, True]
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE physical_copy SET status = 'present'"))


def test_who_cannot_see_what_others_commit_deletes_nothing(database: tuple[sa.Engine, World]) -> None:
    engine, world = database
    with transaction(engine) as session:
        a_copy(session, world, "cologne/lta")
        copy_id = a_copy(session, world, "ccat/buffer", "deletion_scheduled")
    deleting = sa.text("UPDATE physical_copy SET status = 'deletion_in_progress' WHERE id = :id")
    blind = engine.execution_options(isolation_level="REPEATABLE READ")
    with pytest.raises(DBAPIError, match="READ COMMITTED"), blind.begin() as connection:
        connection.execute(deleting, {"id": copy_id})


# Products


def a_product_copy(session: Session, world: World, where: str, status: str = "present", **values: object) -> int:
    row = {"path": f"maps/x-{where}", "checksum": DIGEST, "verified_at": sa.func.now(), "status": status, **values}
    location_id = find(session, LOCATION, where).id
    of_product = {"data_product_id": world.product, "data_location_id": location_id}
    return add(session, models.DataProductPhysicalCopy(**of_product, **row)).id


def have_archived(session: Session) -> None:
    session.execute(sa.update(models.ReductionStepRevision).values(is_final=True, archive=True))


@pytest.mark.parametrize(
    ("where", "left", "is_enough"),
    [
        ("cologne/ramses", "cologne/lta", True),
        ("cologne/ramses", "cologne/buffer", True),
        ("cologne/buffer", "cologne/ramses", True),
        ("cologne/lta", "cologne/lta2", True),
        ("cologne/lta", "cologne/ramses", False),
    ],
)
def test_the_last_verified_copy_of_a_product_that_is_to_be_archived_stays_in_an_archive_if_it_is_there(
    database: tuple[sa.Engine, World], where: str, left: str, *, is_enough: bool
) -> None:
    engine, world = database
    with transaction(engine) as session:
        have_archived(session)
        copy_id = a_product_copy(session, world, where, "deletion_scheduled")
        a_product_copy(session, world, left, verified_at=None)
    with pytest.raises(IntegrityError, match="would have no verified copy"), transaction(engine) as session:
        begin(session, copy_id)
    with pytest.raises(IntegrityError, match="is kept"), engine.begin() as connection:
        connection.execute(sa.text("UPDATE physical_copy SET status = 'deleted' WHERE id = :id"), {"id": copy_id})
    with transaction(engine) as session:
        session.execute(sa.update(_Copy).where(_Copy.id != copy_id).values(verified_at=sa.func.now()))
    if is_enough:
        with transaction(engine) as session:
            assert begin(session, copy_id) == [copy_id]
    else:
        with pytest.raises(IntegrityError, match="copy in an archive then"), transaction(engine) as session:
            begin(session, copy_id)


@pytest.mark.parametrize("change", ["the step does not say so", "it does not count any more"])
def test_other_products_go_when_their_time_is_over(database: tuple[sa.Engine, World], change: str) -> None:
    engine, world = database
    with transaction(engine) as session:
        if change == "it does not count any more":
            have_archived(session)
            session.execute(sa.update(models.DataProduct).values(state="superseded"))
        copy_id = a_product_copy(session, world, "cologne/ramses", "deletion_scheduled")
    with transaction(engine) as session:
        assert begin(session, copy_id) == [copy_id]


@pytest.mark.parametrize("a_copy_of", [a_copy, a_product_copy], ids=["a raw package", "a product"])
def test_nobody_lets_a_copy_go_on_account_of_one_that_is_found_bad_meanwhile(
    database: tuple[sa.Engine, World], a_copy_of: Callable[..., int]
) -> None:
    engine, world = database
    with transaction(engine) as session:
        have_archived(session)
        bad = a_copy_of(session, world, "cologne/lta")
        copy_id = a_copy_of(session, world, "cologne/lta2", "deletion_scheduled")
    with transaction(engine) as scrubber:
        assert advance(scrubber, _Copy, [bad], to=_Status.CORRUPT, because="a test", by="a test") == [bad]
        with ThreadPoolExecutor(1) as pool:
            deleting = pool.submit(in_its_own, engine, copy_id)
            with pytest.raises(TimeoutError):
                deleting.result(0.3)  # it waits
            scrubber.commit()
            assert isinstance(deleting.exception(10), IntegrityError)


def in_its_own(engine: sa.Engine, copy_id: int) -> None:
    with transaction(engine) as session:
        begin(session, copy_id)
