"""A location whose files were moved: nothing counts there before it was read, and nobody goes on where it was."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs.archiving import archive
from ccat_data_transfer.verbs.attempts import Attempt, LeaseLost, Worker
from ccat_ops_db import models
from ccat_ops_db.session import create_engine
from ccat_ops_db.states import PackageState, PhysicalCopyStatus
from tests.transfer.support import AT_ONCE, Observatory, say

ARCHIVE, SOURCE, BUFFER = "cologne/lta", "ccat/chai_raw_data", "ccat/buffer"
FILES = {"a.fits": b"a" * 3000, "b.fits": b"b"}


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """Where the archive is to lie."""
    return tmp_path / "new"


def archived(observatory: Observatory) -> int:
    package_id = observatory.observe(FILES)
    observatory.do_all()
    return package_id


def move(observatory: Observatory, new: Path, *, code: int = 0) -> str:
    return say(observatory, "location", "move", ARCHIVE, "--path", str(new), code=code)


def test_what_was_moved_counts_once_it_was_read_where_it_is(observatory: Observatory, new: Path) -> None:
    package_id = archived(observatory)
    shutil.copytree(observatory.directory(ARCHIVE), new)
    assert "1 copy there counts once it was read" in move(observatory, new)
    observatory.keep(SOURCE, days=0)
    assert observatory.make_room(SOURCE) == 0, "nobody has read a byte of the copy where it lies now"
    assert observatory.read_again() == 1
    assert observatory.copies(package_id)[ARCHIVE].verified_at is not None
    assert observatory.make_room(SOURCE) == len(FILES)


def test_what_was_left_behind_is_noticed_before_anything_is_let_go(observatory: Observatory, new: Path) -> None:
    package_id = archived(observatory)
    shutil.copytree(observatory.directory(ARCHIVE), new, ignore=shutil.ignore_patterns("*.tar"))
    move(observatory, new)
    observatory.keep(SOURCE, days=0)
    assert observatory.make_room(SOURCE) == 0
    observatory.read_again()
    assert observatory.copies(package_id)[ARCHIVE].status is PhysicalCopyStatus.MISSING
    observatory.do_all()
    assert list(new.rglob("*.tar")), "it was archived anew"


def test_another_way_to_the_same_files_leaves_them_read(observatory: Observatory) -> None:
    package_id = archived(observatory)
    same = f"{observatory.directory(ARCHIVE)}/."
    for words in (("--host", "ccat@telescope"), ("--host", "telescope"), ("--path", same)):
        assert "counts once" not in say(observatory, "location", "move", ARCHIVE, *words)
    assert observatory.copies(package_id)[ARCHIVE].verified_at is not None
    assert "1 copy there counts once" in say(observatory, "location", "move", ARCHIVE, "--host", "another")


@pytest.mark.parametrize("operation", [Operation.PACKING, Operation.ARCHIVING])
def test_nothing_is_moved_from_under_those_who_read_or_write_there(
    observatory: Observatory, new: Path, operation: Operation
) -> None:
    observatory.observe(FILES)
    if operation is Operation.ARCHIVING:
        observatory.do(Operation.PACKING)
    [transfer_id] = observatory.schedule(operation)
    location = ARCHIVE if operation is Operation.ARCHIVING else SOURCE
    one = Attempt(observatory.worker, models.LongTermArchiveTransfer, transfer_id)
    assert one.take()
    refused = say(observatory, "location", "move", location, "--path", str(new), code=1)
    assert f"error: Location {location} is in use: " in " ".join(refused.split())
    assert "worker" in refused


def test_a_worker_that_slept_through_a_move_records_nothing(observatory: Observatory, new: Path) -> None:
    """Its lease is over; but for the move, nobody would have taken the transfer from it."""
    package_id = observatory.observe(FILES)
    observatory.do(Operation.PACKING)
    [transfer_id] = observatory.schedule(Operation.ARCHIVING)
    worker = Worker(engine=_engine(observatory), name="worker", backoff=AT_ONCE, lease=timedelta())

    def move_while_it_writes(_: sa.Connection) -> None:
        copy = observatory.copies(package_id).get(ARCHIVE)
        if copy is not None and not new.exists():
            new.mkdir()
            move(observatory, new)

    sa.event.listen(worker.engine, "begin", move_while_it_writes)
    archive(worker, transfer_id)
    worker.engine.dispose()
    assert new.exists()
    assert observatory.package(package_id).state is not PackageState.ARCHIVED
    observatory.recover()
    observatory.do_all()
    copy = observatory.copies(package_id)[ARCHIVE]
    assert (copy.status, (new / copy.path).exists()) == (PhysicalCopyStatus.PRESENT, True)


def test_a_worker_that_died_is_no_reason_to_wait_for_ever(observatory: Observatory, new: Path) -> None:
    observatory.observe(FILES)
    observatory.do(Operation.PACKING)
    [transfer_id] = observatory.schedule(Operation.ARCHIVING)
    worker = Worker(engine=observatory.engine, name="worker", lease=timedelta())
    one = Attempt(worker, models.LongTermArchiveTransfer, transfer_id)
    assert one.take()
    move(observatory, new)
    with pytest.raises(LeaseLost):
        one.transaction(lambda _: None)


def _engine(observatory: Observatory) -> sa.Engine:
    return create_engine(observatory.engine.url.render_as_string(hide_password=False), application_name="tests")
